"""Gathering rows in compiled code (Numba, optional)."""

from __future__ import annotations

from distbp.nn.arrays import Array
from distbp.nn.jit import jit
from distbp.nn.pointers import ask_to_write, prefetch

LINE_BYTES = 64
# In a shuffled table the next row is anywhere, and to wait for memory takes longer than to copy a short row.
# So rows are asked for that many rows ahead; of long ones the beginning, the processor then guesses the rest.
AHEAD = 8
BEGINNING_BYTES = 512


@jit
def take_rows(inputs: Array, targets: Array, order: Array, first: int, x: Array, labels: Array) -> None:
    """Copies the rows `order[first : first + len(x)]`.

    inputs: (n, features) and targets: (n,), C-contiguous, x: (rows, features) and labels: (rows,), of the
    same dtypes; order: int64, row numbers that are all there."""
    width = inputs.shape[1] * inputs.itemsize
    beginning, last = min(width, BEGINNING_BYTES), order.shape[0] - 1
    for r in range(x.shape[0]):
        soon = order[min(first + r + AHEAD, last)]
        address = inputs.ctypes.data + soon * width
        for line in range(0, beginning, LINE_BYTES):
            prefetch(address + line)
        prefetch(address + beginning - 1)  # a row seldom begins where a line does
        prefetch(targets.ctypes.data + soon * targets.itemsize)
        if r + 1 < x.shape[0]:  # another thread may have read what was there
            ask_to_write(x.ctypes.data + (r + 1) * width, width)
        row = order[first + r]
        labels[r] = targets[row]
        for j in range(x.shape[1]):
            x[r, j] = inputs[row, j]
