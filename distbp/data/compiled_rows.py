"""Gathering rows in compiled code (Numba, optional)."""

from __future__ import annotations

from distbp.core.arrays import Array
from distbp.machine.jit import inner
from distbp.machine.pointers import compact, prefetch
from distbp.machine.scalars import smaller
from distbp.machine.vectors import ask_to_write, copy

LINE_BYTES = 64
# In a shuffled table the next row is anywhere, and to wait for memory takes longer than to copy a short row.
# So rows are asked for that many rows ahead; of long ones the beginning, the processor then guesses the rest.
AHEAD = 8
BEGINNING_BYTES = 512


@inner
def take_rows(source: int, width: int, order: Array, first: int, count: int, to: int) -> None:
    """Copies the rows `order[first : first + count]` to an address. source: address of a table whose rows
    are `width` times 4 bytes long, of any dtype; order: int64, row numbers that are all there."""
    compact()
    row_bytes, last = 4 * width, order.shape[0] - 1
    beginning = smaller(row_bytes, BEGINNING_BYTES)
    for r in range(count):
        address = source + order[smaller(first + r + AHEAD, last)] * row_bytes
        for line in range(0, beginning, LINE_BYTES):
            prefetch(address + line)
        prefetch(address + beginning - 1)  # a row seldom begins where a line does
        if r + 1 < count:  # another thread may have read what was there
            ask_to_write(to + (r + 1) * row_bytes, row_bytes)
        copy(source + order[first + r] * row_bytes, to + r * row_bytes, row_bytes)
