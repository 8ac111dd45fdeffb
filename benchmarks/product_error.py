"""How exact float32 products of a kernel set are: `python -m benchmarks.product_error`.

Prints a table: the root mean square of the error relative to that of the result, for normally distributed
values, of the set's products (those of the matrix unit where `DISTBP_KERNELS` or this processor chooses it)
and of NumPy's."""

from __future__ import annotations

import numpy as np
from distbp.nn.products import NUMPY_PRODUCTS

from distbp import settings
from distbp.nn import kernels
from distbp.numerics import kernel_set, one_blas_thread

LINES, TERMS = 256, (128, 256, 2048, 16384)


def main() -> None:
    name = kernel_set(settings.get("DISTBP_KERNELS"))
    products = kernels.load(name).products(np.dtype(np.float32))
    rng = np.random.default_rng(0)
    print(f"| terms | {name} | NumPy |\n| ---: | ---: | ---: |")
    for terms in TERMS:
        a, b = (rng.normal(size=(LINES, terms)).astype(np.float32) for _ in range(2))
        right = a.astype(np.float64) @ b.astype(np.float64).T
        errors = []
        for one in (products, NUMPY_PRODUCTS):
            out = np.empty((LINES, LINES), np.float32)
            one.nt(a, b, out)
            errors.append(np.sqrt(np.mean((out - right) ** 2) / np.mean(right**2)))
        print(f"| {terms} | {errors[0]:.1e} | {errors[1]:.1e} |")


if __name__ == "__main__":
    with one_blas_thread():
        main()
