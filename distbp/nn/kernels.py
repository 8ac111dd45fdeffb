"""Kernel sets: which functions compute matrix products, and whether ops are compiled.

    numpy  NumPy's definitions of the ops; nothing is compiled
    numba  compiled ops, products by NumPy's OpenBLAS; with AVX2, small float32 products by our own code
           (`distbp.machine.own_products.direct`)
    fma    as numba, and large float32 products by our own code (`.vector_product`)
    mkl    compiled ops, products by MKL (optional)
    amx    compiled ops, large float32 products on the processor's matrix unit (`.tile_product`)

The sets round differently, so the name of the set is part of the numerics fingerprint: every process of a job
uses the same set.
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
    """Returns the functions that compute the products of a job. `ours` false: no product is for our own
    code, so none of it is compiled."""

    def __call__(self, dtype: np.dtype[Any], ours: bool = True) -> Gemm: ...


@dataclass(frozen=True)
class Kernels:
    """A kernel set. `gemm`: see `Chosen`; None: nothing is compiled. least: our own code computes large
    products with at least this number of rows, columns and terms; 0: it computes none. direct: whether our
    own code computes small products."""

    name: str
    gemm: Chosen | None = None
    least: int = 0
    direct: bool = False


NUMPY = Kernels("numpy")


def load(name: str) -> Kernels:
    """The set called `name`. Raises ImportError if a package or instruction that it needs is missing,
    KeyError for another name."""
    return {
        "numpy": lambda: NUMPY,
        "numba": _numba,
        "fma": _fma,
        "mkl": _mkl,
        "amx": _amx,
    }[name]()


def _numba() -> Kernels:
    from distbp.machine import jit  # noqa: F401 - loads Numba, or raises ImportError

    products = blas.openblas()
    chosen = None if products is None else _with_own(products, 0, **_direct())
    return Kernels("numba", chosen, 0, blas.small_are_ours())


def _mkl() -> Kernels:
    from distbp.machine import jit  # noqa: F401

    blas.load_mkl()
    return Kernels("mkl", _with_own(blas.mkl, 0))


def _fma() -> Kernels:
    from distbp.machine.own_products.vector_product import LEAST, vector_sgemm  # loads Numba

    chosen = _with_own(blas.products_beside_vectors(), LEAST, own=vector_sgemm, **_direct())
    return Kernels("fma", chosen, LEAST, blas.small_are_ours())


def _amx() -> Kernels:
    from distbp.machine.own_products.tile_product import LEAST, tile_sgemm  # loads Numba

    blas.allow_tiles()
    return Kernels("amx", _with_own(blas.products_beside_tiles(), LEAST, own=tile_sgemm), LEAST)


def _direct() -> dict[str, Callable[[], int]]:
    """The field of `Gemm` for our function for small products; {} if this machine uses OpenBLAS's."""
    if not blas.small_are_ours():
        return {}
    from distbp.machine.own_products.direct import direct_sgemm

    return {"direct": direct_sgemm}


def _with_own(others: Products, least: int, **own: Callable[[], int]) -> Chosen:
    """The products of a library, with our own functions in the fields of `Gemm` that `own` names. They are
    compiled, which takes seconds, only if a job has a product for them."""

    def gemm(dtype: np.dtype[Any], ours: bool = True) -> Gemm:
        found = others(dtype)
        if not ours or dtype != np.float32:
            return found
        return found._replace(least=least, **{field: address() for field, address in own.items()})

    return gemm
