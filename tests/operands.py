"""Operands for tests of matrix products, what these should be, and products by a function at an address."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import numpy as np

Array = np.ndarray
KINDS = ["nt", "nn", "tn"]
PLAIN, TRANSPOSED = 111, 112  # CBLAS_TRANSPOSE

_WHOLE, _SINGLE = ctypes.c_int64, ctypes.c_float
# layout, ops, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc
GEMM = ctypes.CFUNCTYPE(None, *(_WHOLE,) * 6, _SINGLE, *(_WHOLE,) * 4, _SINGLE, *(_WHOLE,) * 2)

_NOTHING = ctypes.CFUNCTYPE(None)(lambda: None)  # whatever it is called with

Products = Callable[[str, Array, Array, Array], None]  # (kind, a, b, out)


def operands(kind: str, m: int, n: int, k: int, seed: int = 0) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(k, m) if kind == "tn" else (m, k)).astype(np.float32)
    b = rng.normal(size=(n, k) if kind == "nt" else (k, n)).astype(np.float32)
    return a, b


def numpy_products(kind: str, a: Array, b: Array, out: Array) -> None:
    np.matmul(a.T if kind == "tn" else a, b.T if kind == "nt" else b, out=out)


def products_at(address: int) -> Products:
    """Products of float32 matrices by a function with the arguments of cblas_sgemm, all 64 bits wide. Rows
    may be further apart than they are long."""
    function = GEMM(address)

    def multiply(kind: str, a: Array, b: Array, out: Array) -> None:
        left, right = TRANSPOSED if kind == "tn" else PLAIN, TRANSPOSED if kind == "nt" else PLAIN
        m, n = out.shape
        k = a.shape[0] if kind == "tn" else a.shape[1]
        apart = [one.strides[0] // one.itemsize for one in (a, b, out)]
        at, bt, to = (one.ctypes.data for one in (a, b, out))
        function(101, left, right, m, n, k, 1.0, at, apart[0], bt, apart[1], 0.0, to, apart[2])

    return multiply


def product(products: Products, kind: str, a: Array, b: Array) -> Array:
    m = a.shape[1] if kind == "tn" else a.shape[0]
    out = np.full((m, b.shape[0] if kind == "nt" else b.shape[1]), np.nan, np.float32)
    products(kind, a, b, out)
    return out


def exact(kind: str, a: Array, b: Array) -> Array:
    a, b = a.astype(np.float64), b.astype(np.float64)
    return (a.T if kind == "tn" else a) @ (b.T if kind == "nt" else b)


def nothing() -> int:
    """The address of a function that does nothing."""
    return ctypes.cast(_NOTHING, ctypes.c_void_p).value or 0
