"""Products from compiled code: what the library is handed."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
from operands import GEMM, PLAIN, TRANSPOSED
from tapes import Rig

pytest.importorskip("numba")

from distbp.machine.blas import Gemm
from distbp.nn.kernels import Kernels
from distbp.nn.layers import Dense
from distbp.nn.layers.lowering import NARROW

ROWS = NARROW


def values(address: int, rows: int, columns: int, apart: int) -> np.ndarray:
    whole = np.ctypeslib.as_array(ctypes.cast(address, ctypes.POINTER(ctypes.c_float)), (rows, apart))
    return whole[:, :columns].copy()


@pytest.mark.parametrize("units", [1, 3, 7, NARROW - 1, NARROW, 40])
@pytest.mark.parametrize("features", [5, 64, 300])
def test_the_library_is_handed_the_inputs_and_the_weights(units: int, features: int) -> None:
    """A narrow weight matrix the other way round, and that begins at a multiple of 64 bytes: the last bits
    of a product may depend on it. What the library is told to write is what the layer gives."""
    found = []

    def call(layout, left, right, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc):
        weight = values(b, n, k, ldb).T if right == TRANSPOSED else values(b, k, n, ldb)
        found.append((left, values(a, m, k, lda), weight, b % 64 if right == PLAIN else 0, alpha, beta))
        np.ctypeslib.as_array(ctypes.cast(c, ctypes.POINTER(ctypes.c_float)), (m, ldc))[:, :n] = 7

    function = GEMM(call)
    address = ctypes.cast(function, ctypes.c_void_p).value
    assert address is not None
    kernels = Kernels("of the test", lambda dtype, large: Gemm(address, address))
    rig = Rig(Dense(units=units), (features,), rows=ROWS, dtype=np.float32, training=False, kernels=kernels)
    x = np.random.default_rng(units * features).normal(size=(ROWS, features)).astype(np.float32)
    y = rig.forward(x)
    [(left, given, weight, beyond, alpha, beta)] = found
    assert (left, beyond, alpha, beta) == (PLAIN, 0, 1, 0)
    np.testing.assert_array_equal(given, x)
    np.testing.assert_array_equal(weight, rig.parameters["weight"].T)
    np.testing.assert_array_equal(y, np.float32(7) + np.broadcast_to(rig.parameters["bias"], y.shape))
