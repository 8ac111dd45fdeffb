"""Rows that compiled code gathers are those that NumPy gathers."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("numba")

from distbp.data.compiled_rows import AHEAD, BEGINNING_BYTES, take_rows
from distbp.machine.jit import jit


@pytest.fixture(scope="module")
def take():
    """`take_rows` for Python."""

    @jit
    def call(source, width, order, first, count, to):
        take_rows(source, width, order, first, count, to)

    return call


@pytest.mark.parametrize("rows", [1, 3, AHEAD, 40])
@pytest.mark.parametrize("features", [1, 16, 54, BEGINNING_BYTES // 4, BEGINNING_BYTES // 4 + 3])
@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.float32])
def test_rows_are_those_of_the_order(take, rows: int, features: int, dtype: type[np.generic]) -> None:
    rng = np.random.default_rng(rows * features)
    table = rng.integers(-9, 9, (101, features)).astype(dtype)
    order = rng.permutation(101)
    out = np.full((rows + 1, features), 77, dtype)
    for first in (0, 7, 101 - rows):
        width = table[0].nbytes // 4
        take(table.ctypes.data, width, order, first, rows, out.ctypes.data)
        np.testing.assert_array_equal(out[:rows], table[order[first : first + rows]])
        np.testing.assert_array_equal(out[rows], 77)  # nothing is written behind the last row
