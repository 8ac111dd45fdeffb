"""Sums of gradients on their way to another node: of the tables of embeddings the rows that are not zero.

A step touches the rows of a table that its samples name. All others are zero, and need not travel. A row is
left out only where all its bits are 0, so what comes out has the bits of what went in: -0.0 travels, too.
A table is sent whole where its rows, with their numbers, would not be fewer bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from distbp.core.arrays import Array
from distbp.nn import kernels as kernel_sets
from distbp.nn.network import Tensor

Scan = Callable[[Array], Array]  # as `live_rows`


class SparseTable(NamedTuple):
    """Whole rows of a table in a vector: [start, stop), `width` numbers each."""

    start: int
    stop: int
    width: int

    @property
    def rows(self) -> int:
        return (self.stop - self.start) // self.width


class SparseSums(NamedTuple):
    """A vector (size,) in which rows of tables are zero.

    tables: each with the number of its rows that are sent. rows: their numbers within the table, sorted and
    unique, table after table; unsigned. values: what lies outside of the tables, then these rows."""

    size: int
    tables: tuple[tuple[SparseTable, int], ...]
    rows: Array
    values: Array

    @property
    def nbytes(self) -> int:
        return self.rows.nbytes + self.values.nbytes


def tables_within(tensors: Iterable[Tensor], start: int, stop: int) -> list[SparseTable]:
    """The whole rows of tables that lie in the stretch [start, stop) of the flat vector, counted from its
    beginning."""
    found = []
    for tensor in tensors:
        width = tensor.shape[-1]
        first = tensor.start + -(-max(0, start - tensor.start) // width) * width
        last = tensor.start + (min(stop, tensor.stop) - tensor.start) // width * width
        if first < last:
            found.append(SparseTable(first - start, last - start, width))
    return found


def live_rows(words: Array) -> Array:
    """The numbers of the rows with a bit that is not 0, ascending, int64. words: (rows, words of a row),
    uint32."""
    return np.flatnonzero(words.any(axis=1))


def scan_of(kernels: str) -> Scan:
    """`live_rows` for a kernel set, compiled where its ops are."""
    if kernel_sets.load(kernels).gemm is None:
        return live_rows
    from distbp.team.exchange.compiled_rows import live_rows as compiled

    return compiled


def encode(vector: Array, tables: Sequence[SparseTable], scan: Scan = live_rows) -> Array | SparseSums:
    """What travels for a vector (size,): `SparseSums` where that is fewer bytes, else the vector itself.
    `decode` gives the vector back. tables: in order."""
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
    """The vector (size,) that was encoded, with the same bits: a new one, to which the caller may write."""
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
    """Copies as many values as the place holds; returns where the next ones are."""
    np.copyto(place, values[source : source + len(place)])
    return source + len(place)
