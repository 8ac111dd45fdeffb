"""How exact float32 products of a kernel set are: `python -m benchmarks.product_error`.

Prints a table: the root mean square of the error relative to that of the result, for normally distributed
values, of the set's products (those of the matrix unit where `DISTBP_KERNELS` or this processor chooses it)
and of NumPy's."""

from __future__ import annotations

import numpy as np

from distbp.core import settings
from distbp.engine.numerics import kernel_set, one_blas_thread
from distbp.nn import kernels
from distbp.nn.layers import Dense
from distbp.nn.network import Network
from distbp.nn.program import Program

LINES, TERMS = 256, (128, 256, 2048, 16384)


def main() -> None:
    name = kernel_set(settings.get("DISTBP_KERNELS"))
    rng = np.random.default_rng(0)
    print(f"| terms | {name} | NumPy |\n| ---: | ---: | ---: |")
    for terms in TERMS:
        a, b = (rng.normal(size=(LINES, terms)).astype(np.float32) for _ in range(2))
        network = Network([Dense(units=LINES)], (terms,))
        vector = np.append(b.ravel(), np.zeros(LINES, np.float32))  # no biases
        right = a.astype(np.float64) @ b.astype(np.float64).T
        errors = []
        for one in (kernels.load(name), kernels.NUMPY):
            layer = Program(network, LINES, vector, kernels=one)
            layer.run(a)
            errors.append(np.sqrt(np.mean((layer.outputs(LINES) - right) ** 2) / np.mean(right**2)))
        print(f"| {terms} | {errors[0]:.1e} | {errors[1]:.1e} |")


if __name__ == "__main__":
    with one_blas_thread():
        main()
