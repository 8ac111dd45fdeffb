"""Rows of a table by their numbers, and the gradient of the table."""

from __future__ import annotations

import numpy as np

from distbp.core.arrays import Array
from distbp.nn.ops.base import Op, Real, Whole, element_ops


def _gather_rows(ids: Array, table: Array, out: Array, whole: Whole, real: Real) -> None:
    """out (rows * k, columns) <- the rows of `table` (entries, columns) with the first k ids of each row, one
    after the other. ids: (rows, n), int64; clipped if they are outside of the table."""
    np.take(table, _taken(ids, out), axis=0, out=out, mode="clip")


def _scatter_add_rows(ids: Array, d: Array, out: Array, whole: Whole, real: Real) -> None:
    """out (entries, columns) <- 0; then each row of d (rows * k, columns) is added at its id in `out`."""
    out.fill(0)
    np.add.at(out, np.clip(_taken(ids, d), 0, len(out) - 1), d)


def _taken(ids: Array, of: Array) -> Array:
    return ids[:, : len(of) // max(1, len(ids))].reshape(-1)


_HERE = "distbp.nn.ops.loops_picks:"
PICKS = (
    Op("gather_rows", "ifF", _gather_rows, f"{_HERE}gather_rows", "", element_ops(0)),
    Op(
        "scatter_add_rows", "ifF", _scatter_add_rows, f"{_HERE}scatter_add_rows",
        "in the order of the ids", lambda shapes: shapes[1][0] * shapes[1][1],
    ),
)  # fmt: skip
