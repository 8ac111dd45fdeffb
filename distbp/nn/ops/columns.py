"""Turns the cells of a table, one number each, into columns. Each op writes the columns of one cell."""

from __future__ import annotations

import numpy as np

from distbp.core.arrays import Array
from distbp.nn.ops.base import Op, Real, Whole, element_ops

MISSING = float(np.finfo(np.float32).min)  # stands for a missing number; unlike NaN it does not spoil sums


def _enter_number(cells: Array, bins: Array, out: Array, whole: Whole, real: Real) -> None:
    """Writes columns of `out` from whole[1] on, for column whole[0] of the cells: the number x, or real[0] if
    it is missing; its piecewise-linear code, n columns min(max((x - start) / width, real[1]), real[2]);
    if whole[2] is 1, 1 if it was missing, else 0. bins: (2, n), starts and widths."""
    column, first, indicator = whole[:3]
    count = bins.shape[1]
    gone = cells[:, column] <= MISSING
    x = np.where(gone, cells.dtype.type(real[0]), cells[:, column])
    out[:, first] = x
    code = (x[:, None] - bins[0]) / bins[1]
    np.clip(code, real[1], real[2], out=out[:, first + 1 : first + 1 + count])
    if indicator:
        out[:, first + 1 + count] = gone


def _enter_row(cells: Array, table: Array, out: Array, whole: Whole, real: Real) -> None:
    """Columns of `out` from whole[1] on <- the rows of `table` (entries, n) whose numbers stand in column
    whole[0] of the cells. Numbers outside of the table are clipped."""
    column, first = whole[:2]
    np.take(table, _numbers(cells, column), axis=0, out=out[:, first : first + table.shape[1]], mode="clip")


def _enter_one_hot(cells: Array, out: Array, whole: Whole, real: Real) -> None:
    """Writes whole[2] columns of `out` from whole[1] on, for column whole[0] of the cells: 1 in column
    number - 1, else 0. If whole[3] is 1, writes one more column: 1 if the number is 0, else 0."""
    column, first, levels, other = whole[:4]
    numbers = _numbers(cells, column)
    out[:, first : first + levels] = numbers[:, None] == np.arange(1, levels + 1)
    if other:
        out[:, first + levels] = numbers <= 0


def _scatter_add_cells(cells: Array, d: Array, out: Array, whole: Whole, real: Real) -> None:
    """The gradient of the table of `enter_row`: out (entries, n) <- 0; then the columns of d from whole[1] on
    are added to the row of `out` whose number stands in column whole[0] of the cells."""
    column, first = whole[:2]
    out.fill(0)
    numbers = np.clip(_numbers(cells, column), 0, len(out) - 1)
    np.add.at(out, numbers, d[:, first : first + out.shape[1]])


def _numbers(cells: Array, column: int) -> Array:
    return cells[:, column].astype(np.int64)


_HERE = "distbp.nn.ops.loops_columns:"
COLUMN_OPS = (
    Op(
        "enter_number", "ffF", _enter_number, f"{_HERE}enter_number", "",
        lambda shapes: shapes[0][0] * (1 + 4 * shapes[1][1]),
    ),
    Op("enter_row", "ffF", _enter_row, f"{_HERE}enter_row", "", element_ops(0)),
    Op("enter_one_hot", "fF", _enter_one_hot, f"{_HERE}enter_one_hot", "", element_ops(0)),
    Op(
        "scatter_add_cells", "ffF", _scatter_add_cells, f"{_HERE}scatter_add_cells",
        "in the order of the rows", lambda shapes: shapes[0][0] * shapes[2][1],
    ),
)  # fmt: skip
