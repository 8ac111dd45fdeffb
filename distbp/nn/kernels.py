"""Kernel sets: who computes matrix products, and whether ops are compiled.

Five sets: "numpy"; "numba", compiled ops with the products of NumPy's OpenBLAS; "fma", the same with large
float32 products of our own (`distbp.machine.own_products.vector_product`); "mkl", with MKL's products
(optional); and "amx", with large float32 products on the processor's matrix unit
(`distbp.machine.own_products.tile_product`). They round differently, so the name of the set is part of the
numerics fingerprint: every process of a job uses the same one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from distbp.machine import blas
from distbp.machine.blas import Gemm

Products = Callable[[np.dtype[Any]], Gemm]


class Chosen(Protocol):
    """Who computes the products of a job. `ours`: whether any of them is for our own code."""

    def __call__(self, dtype: np.dtype[Any], ours: bool = True) -> Gemm: ...


@dataclass(frozen=True)
class Kernels:
    """A kernel set. `gemm(dtype)`: who computes products in compiled ops; None: nothing is compiled. least:
    rows, columns and terms of the smallest product that our own code computes; 0 where it computes none."""

    name: str
    gemm: Chosen | None = None
    least: int = 0


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
    from distbp.machine import jit  # noqa: F401 - loads Numba, or says that it is not there

    return Kernels("numba", _from_library(blas.openblas()))


def _mkl() -> Kernels:
    from distbp.machine import jit  # noqa: F401

    blas.load_mkl()
    return Kernels("mkl", _from_library(blas.mkl))


def _fma() -> Kernels:
    from distbp.machine.own_products.vector_product import LEAST, vector_sgemm  # loads Numba

    return Kernels("fma", _with_own(blas.products_beside_vectors(), vector_sgemm, LEAST), LEAST)


def _amx() -> Kernels:
    from distbp.machine.own_products.tile_product import LEAST, tile_sgemm  # loads Numba

    blas.allow_tiles()
    return Kernels("amx", _with_own(blas.products_beside_tiles(), tile_sgemm, LEAST), LEAST)


def _from_library(products: Products | None) -> Chosen | None:
    return None if products is None else lambda dtype, ours=True: products(dtype)


def _with_own(others: Products, own: Callable[[], int], least: int) -> Chosen:
    """Our own are compiled, which takes seconds, where a job has a product for them only."""

    def gemm(dtype: np.dtype[Any], ours: bool = True) -> Gemm:
        found = others(dtype)
        return found._replace(own=own(), least=least) if ours and dtype == np.float32 else found

    return gemm
