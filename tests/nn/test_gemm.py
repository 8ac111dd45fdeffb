"""Products from compiled code: what the library is handed."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
from operands import GEMM, PLAIN, TRANSPOSED, operands
from tapes import Rig, tape_product

pytest.importorskip("numba")

from distbp.machine.blas import SMALL, Gemm
from distbp.machine.gemm import strips_of
from distbp.nn.kernels import Kernels
from distbp.nn.layers import Dense
from distbp.nn.layers.lowering import NARROW, SMALL_MATRIX, SOME_ROWS

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


@pytest.mark.parametrize("rows", [SOME_ROWS - 1, SOME_ROWS])
@pytest.mark.parametrize("weights", [SMALL_MATRIX, SMALL_MATRIX + 100])
def test_small_weight_matrices_are_turned_for_some_rows(rows: int, weights: int) -> None:
    lowered = Rig(Dense(units=100), (weights // 100,), rows=rows, training=False)
    turned = rows >= SOME_ROWS and weights <= SMALL_MATRIX
    products = [row.op.form for row in lowered.rows if row.op.form]
    assert products == ["nn" if turned else "nt"]


SHAPES = [(1024, 64, 64), (1023, 128, 54), (64, 64, 1024), (20, 900, 3001), (2048, 10, 3000), (289, 128, 54)]


@pytest.mark.parametrize("terms", [False, True])
@pytest.mark.parametrize("fast", [0, 1])
@pytest.mark.parametrize("shape", SHAPES)
def test_strips_are_small_products(shape: tuple[int, int, int], fast: int, terms: bool) -> None:
    m, n, k = shape
    strips = strips_of.py_func(fast, terms, m, n, k)
    rows = k if terms else m
    assert 1 <= strips <= rows
    if strips > 1:
        largest = -(-rows // strips)
        assert largest == 1 or m * n * k // rows * largest <= SMALL
    if not fast:
        assert strips == 1 or (terms and min(m, n) < 32)


@pytest.mark.parametrize("kept", [0, 1])
@pytest.mark.parametrize("form", ["nn", "tn"])
def test_strips_are_all_of_a_product_once(form: str, kept: int) -> None:
    """1003 rows with a matrix of 64 x 65: five strips."""
    found = []

    def call(layout, left, right, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc):
        found.append((m, n, k, a, b, c, beta))

    function = GEMM(call)
    address = ctypes.cast(function, ctypes.c_void_p).value
    assert address is not None
    m, n, k = (64, 65, 1003) if form == "tn" else (1003, 65, 64)
    a, b = operands(form, m, n, k)
    added = np.zeros((m, n), np.float32) if kept else None
    tape_product(
        Kernels("of the test", lambda dtype, ours=True: Gemm(0, address, strips=1)), form, a, b, added
    )
    rows = [one[2 if form == "tn" else 0] for one in found]
    assert len(found) == 5
    assert sum(rows) == 1003
    assert all(m * n * k <= SMALL for m, n, k, *_ in found)
    began = [(one[3] - found[0][3]) // (4 * a.shape[1]) for one in found]
    assert began == [0, *np.cumsum(rows[:-1])]
    moved = [one[4 if form == "tn" else 5] for one in found]
    assert [(at - moved[0]) // (4 * 65) for at in moved] == began
    betas = [one[-1] for one in found]
    assert betas == ([kept, 1, 1, 1, 1] if form == "tn" else [kept] * 5)
