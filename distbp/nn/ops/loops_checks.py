"""The ops of `checks`, compiled (Numba, optional)."""

from __future__ import annotations

import numpy as np

from distbp.core.arrays import Array
from distbp.machine.jit import inner
from distbp.nn.ops.rows import bits, double, real, single


@inner
def largest(values: Array) -> float:
    """The largest absolute value of float32 numbers, given as int32; NaN or infinity where one is among them.

    Their order as whole numbers is that of the floats (IEEE 754), and above them the infinities and NaN:
    such a loop is turned into vector instructions."""
    most = np.int32(0)
    for i in range(values.size):
        most = max(most, np.int32(values[i] & np.int32(0x7FFFFFFF)))
    return float(np.int32(most).view(np.float32))


def bound_product(row: int, spaces: int, rows: int) -> None:
    count, total = single(row, spaces, rows, 0).shape[0], double(row, spaces, rows, 2)
    total[0, 0] += count * largest(bits(row, spaces, rows, 0)) * largest(bits(row, spaces, rows, 1))


def bound(row: int, spaces: int, rows: int) -> None:
    total = double(row, spaces, rows, 1)
    total[0, 0] += largest(bits(row, spaces, rows, 0))


def live_rows(row: int, spaces: int, rows: int) -> None:
    y, kept, total = single(row, spaces, rows, 0), single(row, spaces, rows, 1), double(row, spaces, rows, 2)
    a, b, c, d = (
        np.float32(real(row, 0)),
        np.float32(real(row, 1)),
        np.float32(real(row, 2)),
        np.float32(real(row, 3)),
    )
    few, one, zero = np.float32(0.1), np.float32(1), np.float32(0)
    live = np.zeros(y.shape[1], np.float32)
    for i in range(y.shape[0]):
        for j in range(y.shape[1]):
            v = y[i, j]
            flat = (v >= a and v <= b) or (v >= c and v <= d)
            live[j] += zero if flat else one
        if kept.shape[0]:
            for j in range(y.shape[1]):
                v = y[i, j]
                live[j] += one if v >= a and v <= b and kept[i, j] >= few else zero
    for j in range(y.shape[1]):
        total[0, j] += live[j]
