"""Products from compiled code: what the library is handed, and that it stays there while it works."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

pytest.importorskip("numba")

from distbp.nn.blas import Gemm
from distbp.nn.gemm import NARROW, PLAIN, TRANSPOSED, products_by

_WHOLE, _SINGLE = ctypes.c_int64, ctypes.c_float
_GEMM = ctypes.CFUNCTYPE(
    None, *(_WHOLE,) * 6, _SINGLE, *(_WHOLE,) * 4, _SINGLE, *(_WHOLE,) * 2
)  # layout, ops, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc


def values(address: int, rows: int, columns: int, apart: int) -> np.ndarray:
    whole = np.ctypeslib.as_array(ctypes.cast(address, ctypes.POINTER(_SINGLE)), (rows, apart))
    return whole[:, :columns].copy()


@pytest.mark.parametrize("units", [1, 3, 7, NARROW - 1, NARROW, 40])
@pytest.mark.parametrize("features", [5, 64, 300])
def test_what_a_product_is_made_of_stays_until_it_is_made(units: int, features: int) -> None:
    """The library here takes memory as real ones may, and writes to it, before it reads its operands."""
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, (ctypes.c_size_t,)
    libc.free.argtypes = (ctypes.c_void_p,)
    found = []

    def call(layout, left, right, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc):
        sizes = range(4 * units * features, 4 * units * features + 512, 16)  # and what is kept with it
        taken = [libc.malloc(size) for size in sizes]
        for place, size in zip(taken, sizes, strict=True):
            ctypes.memset(place, 255, size)
        weight = values(b, n, k, ldb).T if right == TRANSPOSED else values(b, k, n, ldb)
        found.append((left, values(a, m, k, lda), weight, b % 64 if right == PLAIN else 0))
        for place in taken:
            libc.free(place)

    function = _GEMM(call)
    address = ctypes.cast(function, ctypes.c_void_p).value
    assert address is not None
    rng = np.random.default_rng(units * features)
    x = rng.normal(size=(NARROW, features)).astype(np.float32)
    weight = rng.normal(size=(units, features)).astype(np.float32)
    products_by(Gemm(address, address)).nt(x, weight, np.empty((NARROW, units), np.float32))
    [(left, given, transposed, beyond)] = found
    assert left == PLAIN and beyond == 0
    np.testing.assert_array_equal(given, x)
    np.testing.assert_array_equal(transposed, weight.T)
