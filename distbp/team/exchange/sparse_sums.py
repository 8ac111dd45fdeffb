"""Encodes gradient sums for another node: of an embedding's table, only the rows that are not zero are sent.

A step touches only the rows of a table that its samples name. The gradient of all other rows is zero. A row
is left out only if all its bits are 0, so the decoded vector has the same bits: a row with -0.0 is sent. A
table is sent whole if its rows and their numbers would take as many bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from distbp.core.arrays import Array
from distbp.nn import kernels as kernel_sets
from distbp.nn.network import Tensor

Scan = Callable[[Array], Array]  # a function like `live_rows`


class SparseTable(NamedTuple):
    """Whole rows of a table, at [start, stop) of a vector; each has `width` numbers."""

    start: int
    stop: int
    width: int

    @property
    def rows(self) -> int:
        return (self.stop - self.start) // self.width


class SparseSums(NamedTuple):
    """A vector (size,) without the rows of tables that are zero.

    tables: each with the number of rows that are sent. rows: their numbers in the table, sorted, table after
    table; unsigned. values: the numbers outside of the tables, then these rows."""

    size: int
    tables: tuple[tuple[SparseTable, int], ...]
    rows: Array
    values: Array

    @property
    def nbytes(self) -> int:
        return self.rows.nbytes + self.values.nbytes


def tables_within(tensors: Iterable[Tensor], start: int, stop: int) -> list[SparseTable]:
    """The whole rows of tables that lie in the stretch [start, stop) of the flat vector. Their places are
    counted from `start`."""
    tables = []
    for tensor in tensors:
        width = tensor.shape[-1]
        first = tensor.start + -(-max(0, start - tensor.start) // width) * width
        last = tensor.start + (min(stop, tensor.stop) - tensor.start) // width * width
        if first < last:
            tables.append(SparseTable(first - start, last - start, width))
    return tables


def live_rows(words: Array) -> Array:
    """The numbers of the rows with a bit that is not 0, ascending, int64. words: (rows, words of a row),
    uint32."""
    return np.flatnonzero(words.any(axis=1))


def scan_of(kernels: str) -> Scan:
    """`live_rows` for a kernel set: compiled if the set's ops are compiled."""
    if kernel_sets.load(kernels).gemm is None:
        return live_rows
    from distbp.team.exchange.compiled_rows import live_rows as compiled

    return compiled


def encode(vector: Array, tables: Sequence[SparseTable], scan: Scan = live_rows) -> Array | SparseSums:
    """Encodes a vector (size,) as `SparseSums` if that takes fewer bytes; else returns the vector itself.
    `decode` is the inverse. tables: in order."""
    number = np.min_scalar_type(max((table.rows for table in tables), default=0))
    sent: list[tuple[SparseTable, int]] = []
    rows, live, at = [], [], 0
    dense = []
    for table in tables:
        matrix = vector[table.start : table.stop].reshape(-1, table.width)
        found = scan(matrix.view(np.uint32))
        each = matrix.itemsize * table.width
        if len(found) * (each + number.itemsize) < matrix.nbytes:
            sent.append((table, len(found)))
            rows.append(found.astype(number))
            live.append(matrix[found].ravel())
            dense.append(vector[at : table.start])
            at = table.stop
    if not sent:
        return vector
    values = np.concatenate([*dense, vector[at:], *live])
    return SparseSums(len(vector), tuple(sent), np.concatenate(rows), values)


def decode(sums: Array | SparseSums) -> Array:
    """Decodes a vector (size,), with the same bits, into a new array."""
    if not isinstance(sums, SparseSums):
        return sums.copy()
    vector = np.empty(sums.size, sums.values.dtype)
    at = source = number = 0
    for table, _ in sums.tables:
        source = _fill(vector[at : table.start], sums.values, source)
        at = table.stop
    source = _fill(vector[at:], sums.values, source)
    for table, count in sums.tables:
        matrix = vector[table.start : table.stop].reshape(-1, table.width)
        matrix.fill(0)
        taken = source + count * table.width
        matrix[sums.rows[number : number + count]] = sums.values[source:taken].reshape(count, table.width)
        source, number = taken, number + count
    return vector


def _fill(place: Array, values: Array, source: int) -> int:
    """Fills `place` with values from the place `source` on; returns where the next values begin."""
    np.copyto(place, values[source : source + len(place)])
    return source + len(place)
