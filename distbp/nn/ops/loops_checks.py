"""The ops of `checks`, compiled (Numba, optional)."""

from __future__ import annotations

import numpy as np

from distbp.core.arrays import Array
from distbp.machine.jit import inner
from distbp.machine.scalars import as_float, index, larger, smaller
from distbp.machine.structures import floats, stack
from distbp.nn.ops.rows import bits, double, flat, real, single

MOST = 4096  # numbers that are counted at a time
ROOM = 4 * MOST


@inner
def largest(values: Array) -> float:
    """The largest absolute value of float32 numbers, given as int32; NaN or infinity where one is among them.

    Their order as whole numbers is that of the floats (IEEE 754), and above them the infinities and NaN:
    such a loop is turned into vector instructions."""
    most = np.int32(0)
    for i in range(values.size):
        most = larger(most, np.int32(values[i] & np.int32(0x7FFFFFFF)))
    return float(as_float(most))


def bound_product(row: int, spaces: int, rows: int) -> None:
    count, total = single(row, spaces, rows, 0).shape[0], double(row, spaces, rows, 2)
    total[0, 0] += count * largest(bits(row, spaces, rows, 0)) * largest(bits(row, spaces, rows, 1))


def bound(row: int, spaces: int, rows: int) -> None:
    total = double(row, spaces, rows, 1)
    total[0, 0] += largest(bits(row, spaces, rows, 0))


@inner
def _add_live(
    y: Array, kept: Array, first: int, a: float, b: float, c: float, d: float, live: Array, count: int
) -> None:
    """live[j] += 1 where y[first + j] is not flat, for `count` numbers."""
    few, one, zero = np.float32(0.1), np.float32(1), np.float32(0)
    for j in range(count):
        v = y[index(first + j)]
        flat = (v >= a and v <= b) or (v >= c and v <= d)
        live[j] += zero if flat else one
    if kept.size:
        for j in range(count):
            v = y[index(first + j)]
            live[j] += one if v >= a and v <= b and kept[index(first + j)] >= few else zero


def live_rows(row: int, spaces: int, rows: int) -> None:
    y, kept, total = flat(row, spaces, rows, 0), flat(row, spaces, rows, 1), double(row, spaces, rows, 2)
    a, b, c, d = (
        np.float32(real(row, 0)),
        np.float32(real(row, 1)),
        np.float32(real(row, 2)),
        np.float32(real(row, 3)),
    )
    columns = single(row, spaces, rows, 0).shape[1]
    wide = columns * larger(1, 128 // columns)  # rows may be shorter than a vector register
    for begin in range(0, wide, MOST):
        count = smaller(MOST, wide - begin)
        live = floats(stack(ROOM), count)
        for j in range(count):
            live[j] = np.float32(0)
        for first in range(begin, y.size, wide):
            _add_live(y, kept, first, a, b, c, d, live, smaller(count, y.size - first))
        for first in range(0, count, columns):  # `begin` is 0 where there are several
            for j in range(smaller(columns, count - first)):
                total[0, index(begin + j)] += live[index(first + j)]
