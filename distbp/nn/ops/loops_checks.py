"""The ops of `checks`, compiled (Numba, optional)."""

from __future__ import annotations

import numpy as np

from distbp.machine.scalars import index, larger, smaller
from distbp.machine.structures import address_of, floats, stack
from distbp.machine.vectors import largest
from distbp.nn.ops.rows import double, flat, real, single

MOST = 4096  # columns that are counted at a time
ROOM = 4 * MOST


def bound_product(row: int, spaces: int, rows: int) -> None:
    x, y, total = flat(row, spaces, rows, 0), flat(row, spaces, rows, 1), double(row, spaces, rows, 2)
    count = single(row, spaces, rows, 0).shape[0]
    total[0, 0] += count * largest(address_of(x), x.size) * largest(address_of(y), y.size)


def bound(row: int, spaces: int, rows: int) -> None:
    x, total = flat(row, spaces, rows, 0), double(row, spaces, rows, 1)
    total[0, 0] += largest(address_of(x), x.size)


def live_rows(row: int, spaces: int, rows: int) -> None:
    """Counts a stretch of at most MOST columns at a time. Short rows are joined into one longer row."""
    y, kept, total = flat(row, spaces, rows, 0), flat(row, spaces, rows, 1), double(row, spaces, rows, 2)
    a, b, c, d = (
        np.float32(real(row, 0)),
        np.float32(real(row, 1)),
        np.float32(real(row, 2)),
        np.float32(real(row, 3)),
    )
    columns = single(row, spaces, rows, 0).shape[1]
    wide = columns * larger(1, 128 // columns)  # rows may be shorter than a vector register
    few, one, zero = np.float32(0.1), np.float32(1), np.float32(0)
    for begin in range(0, wide, MOST):
        count = smaller(MOST, wide - begin)
        live = floats(stack(ROOM), count)
        for j in range(count):
            live[j] = zero
        for first in range(begin, y.size, wide):
            some = smaller(count, y.size - first)
            for j in range(some):
                v = y[index(first + j)]
                still = (v >= a and v <= b) or (v >= c and v <= d)
                live[j] += zero if still else one
            if kept.size:
                for j in range(some):
                    v = y[index(first + j)]
                    live[j] += one if v >= a and v <= b and kept[index(first + j)] >= few else zero
        for first in range(0, count, columns):  # `begin` is 0 if rows are joined
            for j in range(smaller(columns, count - first)):
                total[0, index(begin + j)] += live[index(first + j)]
