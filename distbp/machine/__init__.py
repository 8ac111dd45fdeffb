"""What the processor does: compiling, addresses, BLAS, vector math, futexes, shared memory."""
