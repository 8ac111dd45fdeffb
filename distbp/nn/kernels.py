"""Kernel sets: who computes matrix products, and whether ops are compiled.

Five sets: "numpy"; "numba", compiled ops with the products of NumPy's OpenBLAS; "fma", the same with large
float32 products of our own (`distbp.nn.vector_product`); "mkl", with MKL's products (optional); and "amx",
with large float32 products on the processor's matrix unit (`distbp.nn.tile_product`). They round
differently, so the name of the set is part of the numerics fingerprint: every process of a job uses the
same one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from distbp.nn import blas
from distbp.nn.blas import Gemm

Products = Callable[[np.dtype[Any]], Gemm]


@dataclass(frozen=True)
class Kernels:
    """A kernel set. `gemm(dtype)`: who computes products in compiled ops; None: nothing is compiled."""

    name: str
    gemm: Products | None = None


NUMPY = Kernels("numpy")


def load(name: str) -> Kernels:
    """The set called `name`. Raises ImportError where what it takes is not there, KeyError for another
    name."""
    return {
        "numpy": lambda: NUMPY,
        "numba": _numba,
        "fma": _fma,
        "mkl": _mkl,
        "amx": _amx,
    }[name]()


def _numba() -> Kernels:
    from distbp.nn import jit  # noqa: F401 - loads Numba, or says that it is not there

    return Kernels("numba", blas.openblas())


def _mkl() -> Kernels:
    from distbp.nn import jit  # noqa: F401

    blas.load_mkl()
    return Kernels("mkl", blas.mkl)


def _fma() -> Kernels:
    from distbp.nn.vector_product import LEAST, vector_sgemm  # loads Numba

    return Kernels("fma", _with_own(blas.products_beside_vectors(), vector_sgemm, LEAST))


def _amx() -> Kernels:
    from distbp.nn.tile_product import LEAST, tile_sgemm  # loads Numba

    blas.allow_tiles()
    return Kernels("amx", _with_own(blas.products_beside_tiles(), tile_sgemm, LEAST))


def _with_own(others: Products, own: Callable[[], int], least: int) -> Products:
    def gemm(dtype: np.dtype[Any]) -> Gemm:
        found = others(dtype)
        return found._replace(own=own(), least=least) if dtype == np.float32 else found

    return gemm
