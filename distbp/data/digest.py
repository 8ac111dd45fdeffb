"""Digests of all values of arrays.

A digest is the SHA-256 over dtype, shape, and the SHA-256 of every part of some megabytes. Threads hash the
parts in parallel, because hashlib releases Python's lock. Measured on two cores of a server with SHA
instructions: 2.5 GB/s.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from distbp.core.arrays import Array
from distbp.data.table import Table, release_pages

PART_BYTES = 1 << 22  # a change changes all digests
PARTS = ("inputs", "targets", "weights")
_THREADS = 4
_SETTLED_NS = 2_000_000_000


def array_digest(array: Array) -> str:
    """The digest of an array, 64 hexadecimal digits. It is the same for plain, mapped, big-endian and
    column-major storage. Memory stays flat."""
    little = array.dtype.newbyteorder("<")
    row_bytes = max(1, array[:1].nbytes)
    rows = max(1, PART_BYTES // row_bytes)

    def part(start: int) -> bytes:
        values = np.ascontiguousarray(array[start : start + rows], dtype=little)
        digest = hashlib.sha256(values.data).digest()
        release_pages(array)
        return digest

    starts = range(0, len(array), rows)
    kind = little.str if little.names is None else str(little.descr)
    total = hashlib.sha256(f"{kind} {array.shape};".encode())
    if len(starts) < 2:
        total.update(b"".join(map(part, starts)))
    else:
        with ThreadPoolExecutor(_THREADS, "distbp-digest") as pool:
            total.update(b"".join(pool.map(part, starts)))
    return total.hexdigest()


def table_digests(table: Table) -> dict[str, str | None]:
    """The digest of each of `PARTS` (None if it is absent), and of lengths, begins and windows if present.
    Names and row numbers do not count."""
    arrays = {name: getattr(table, name) for name in PARTS}
    if table.lengths is not None:
        arrays["lengths"] = table.lengths
    if table.begins is not None:
        arrays["begins"] = table.begins
    if table.windows is not None:
        arrays["windows"] = table.windows.starts
    return {name: None if array is None else array_digest(array) for name, array in arrays.items()}


def table_record(table: Table, known: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """`table_digests`, and the `marks` of the files that hold the table ([] if a file changed just now).

    known: an earlier record, returned if the files still have its marks.
    """
    marks = [list(mark) for mark in table.marks]
    if known is not None and marks and known["marks"] == marks:
        return dict(known)
    return {**table_digests(table), "marks": marks if settled(marks) else []}


def settled(marks: Iterable[Sequence[int]]) -> bool:
    """Whether the files with these marks changed long ago enough: a file that changed just now may change
    again within the same clock tick, and keep its mark."""
    latest = max((time_ns for mark in marks for time_ns in mark[-2:]), default=0)
    return time.time_ns() - latest > _SETTLED_NS
