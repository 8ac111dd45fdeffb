"""Gathering rows in compiled code (Numba, optional)."""

from __future__ import annotations

from distbp.core.arrays import Array
from distbp.machine.jit import inner
from distbp.machine.pointers import compact, prefetch
from distbp.machine.scalars import smaller
from distbp.machine.vectors import ask_to_write, copy

LINE_BYTES = 64
# In a shuffled table the next row is anywhere, and waiting for memory takes longer than copying a short row.
# So rows are prefetched some rows ahead; of long rows only the beginning, because the processor then
# prefetches the rest itself.
AHEAD = 8
BEGINNING_BYTES = 512


@inner
def take_rows(source: int, width: int, order: Array, first: int, count: int, to: int) -> None:
    """Copies the rows `order[first : first + count]` of a table to an address. source: address of the table,
    whose rows have `width` times 4 bytes, of any dtype. order: int64, valid row numbers; not checked."""
    compact()
    row_bytes, last = 4 * width, order.shape[0] - 1
    beginning = smaller(row_bytes, BEGINNING_BYTES)
    for r in range(count):
        address = source + order[smaller(first + r + AHEAD, last)] * row_bytes
        for line in range(0, beginning, LINE_BYTES):
            prefetch(address + line)
        prefetch(address + beginning - 1)  # a row seldom begins at a cache line, so it may end in one more
        if r + 1 < count:  # another thread may have these lines in its cache
            ask_to_write(to + (r + 1) * row_bytes, row_bytes)
        copy(source + order[first + r] * row_bytes, to + r * row_bytes, row_bytes)
