"""Code close to the processor: compiling, addresses, BLAS, vector math, futexes, shared memory."""
