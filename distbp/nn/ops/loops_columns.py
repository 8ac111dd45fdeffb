"""The ops of `columns`, compiled (Numba, optional)."""

from __future__ import annotations

import numpy as np

from distbp.machine.scalars import index, larger, smaller
from distbp.nn.ops.columns import MISSING
from distbp.nn.ops.rows import flat, real, single, whole

_ZERO, _ONE, _MISSING = np.float32(0), np.float32(1), np.float32(MISSING)


def enter_number(row: int, spaces: int, rows: int) -> None:
    cells, bins = single(row, spaces, rows, 0), single(row, spaces, rows, 1)
    out = single(row, spaces, rows, 2)
    column, first, indicator = whole(row, 0), whole(row, 1), whole(row, 2)
    fill, count = np.float32(real(row, 0)), bins.shape[1]
    least, most = np.float32(real(row, 1)), np.float32(real(row, 2))
    for i in range(cells.shape[0]):
        x = cells[i, column]
        gone = x <= _MISSING
        if gone:
            x = fill
        out[i, first] = x
        for j in range(count):
            code = (x - bins[0, j]) / bins[1, j]
            code = least if code < least else code  # NaN stays
            out[i, index(first + 1 + j)] = most if code > most else code
        if indicator:
            out[i, first + 1 + count] = _ONE if gone else _ZERO


def enter_row(row: int, spaces: int, rows: int) -> None:
    cells, table = single(row, spaces, rows, 0), single(row, spaces, rows, 1)
    out = single(row, spaces, rows, 2)
    column, first = whole(row, 0), whole(row, 1)
    for i in range(cells.shape[0]):
        number = smaller(
            larger(int(cells[i, column]), 0), table.shape[0] - 1
        )  # inside the table for any number
        for j in range(table.shape[1]):
            out[i, index(first + j)] = table[number, j]


def enter_one_hot(row: int, spaces: int, rows: int) -> None:
    cells, out = single(row, spaces, rows, 0), single(row, spaces, rows, 1)
    column, first, levels, other = whole(row, 0), whole(row, 1), whole(row, 2), whole(row, 3)
    for i in range(cells.shape[0]):
        number = int(cells[i, column])
        for j in range(levels):
            out[i, index(first + j)] = _ONE if number == j + 1 else _ZERO
        if other:
            out[i, first + levels] = _ONE if number <= 0 else _ZERO


def scatter_add_cells(row: int, spaces: int, rows: int) -> None:
    cells, d = single(row, spaces, rows, 0), single(row, spaces, rows, 1)
    out, everything = single(row, spaces, rows, 2), flat(row, spaces, rows, 2)
    column, first = whole(row, 0), whole(row, 1)
    for k in range(everything.size):
        everything[k] = _ZERO
    for i in range(cells.shape[0]):
        number = smaller(larger(int(cells[i, column]), 0), out.shape[0] - 1)
        for j in range(out.shape[1]):
            out[number, j] += d[i, index(first + j)]
