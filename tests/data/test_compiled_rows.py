"""Rows that compiled code gathers are those that NumPy gathers."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("numba")

from distbp.data.compiled_rows import AHEAD, BEGINNING_BYTES, take_rows


@pytest.mark.parametrize("rows", [1, 3, AHEAD, 40])
@pytest.mark.parametrize("features", [1, 16, 54, BEGINNING_BYTES // 4, BEGINNING_BYTES // 4 + 3])
@pytest.mark.parametrize("labels", [np.int64, np.int32])
def test_rows_are_those_of_the_order(rows: int, features: int, labels: type[np.integer]) -> None:
    rng = np.random.default_rng(rows * features)
    inputs = rng.standard_normal((101, features), np.float32)
    targets = rng.integers(0, 9, 101).astype(labels)
    order = rng.permutation(101)
    x, y = np.empty((rows, features), np.float32), np.empty(rows, labels)
    for first in (0, 7, 101 - rows):
        take_rows(inputs, targets, order, first, x, y)
        picked = order[first : first + rows]
        np.testing.assert_array_equal(x, inputs[picked])
        np.testing.assert_array_equal(y, targets[picked])
