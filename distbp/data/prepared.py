"""A split that is ready to be gathered into batches: preprocessed once if it fits in memory, else batch by
batch.

Ids are not preprocessed. Preprocessing is element-wise, so both ways give the same bits.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from distbp.core.arrays import Array, Shape
from distbp.data.preprocessing import Preprocessing
from distbp.data.sequences import Samples, room
from distbp.data.table import Table, chunks, release_pages
from distbp.data.windows import Windows

# The resident pages of a memory-mapped file are released after about this many bytes have become resident.
RELEASE_BYTES = 64 * 2**20
FAULT_BYTES = 2 * 2**20  # Linux may map a huge page of its cache when a row is touched


class PreparedRows:
    """Rows as the first layer takes them. preprocessing: applied to every batch; None: the inputs are
    prepared. inputs: (n, *features), as stored, or prepared in the network's dtype. targets: (n,) or (n,
    outputs), as the loss takes them. weights: (n,) or None. windows: if given, the rows are windows of the
    inputs. The arrays are shared, not copied."""

    def __init__(
        self,
        inputs: Array,
        targets: Array,
        weights: Array | None,
        preprocessing: Preprocessing | None = None,
        windows: Windows | None = None,
    ) -> None:
        self.windows = windows
        self.inputs = inputs
        self.targets = targets
        self.weights = weights
        self.preprocessing = preprocessing
        self._gathered = 0

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def input_shape(self) -> Shape:
        features = self.inputs.shape[1:]
        return features if self.windows is None else self.windows.shape(features)

    def ready(self, dtype: np.dtype[Any]) -> bool:
        """Whether `inputs` are what `gather` would give, in this dtype and in plain memory."""
        plain = not isinstance(self.inputs, np.memmap)  # a mapped file's pages must be released
        return (
            self.preprocessing is None
            and self.windows is None
            and plain
            and self.inputs.dtype == dtype
            and self.inputs.flags.c_contiguous
        )

    def gather(self, rows: Array, out: Array) -> None:
        """Writes the preprocessed inputs of `rows` (int64) to `out`, (len(rows), *input_shape)."""
        if self.windows is not None:
            out[:] = self.windows.take(self.inputs, rows)
        elif self.preprocessing is None:
            np.take(self.inputs, rows, axis=0, out=out, mode="clip")
        else:
            # Threads gather at the same time, so each call has its own memory for the stored rows.
            self.preprocessing.apply(np.take(self.inputs, rows, axis=0, mode="clip"), out)
        if isinstance(self.inputs, np.memmap):
            self._gathered += len(rows) * FAULT_BYTES + out.nbytes
            if self._gathered > RELEASE_BYTES:
                release_pages(self.inputs)
                self._gathered = 0


def pack(rows: Samples, preprocessing: Preprocessing, out: Array) -> None:
    """Writes rows with lengths as a network takes them: preprocessed numbers, then the values of `tail`. out:
    (rows, numbers + 1), or for windows of series (rows, numbers + 2)."""
    numbers = tail(rows, out)
    preprocessing.apply(rows.inputs, numbers.reshape(rows.inputs.shape))  # a view: an axis is split


def tail(rows: Samples, out: Array) -> Array:
    """Writes the values after the numbers of each row: its length, and for windows of series whether a series
    begins. Returns the view of the numbers."""
    assert rows.lengths is not None
    if rows.begins is None:
        out[:, -1] = rows.lengths
        return out[:, :-1]
    out[:, -2], out[:, -1] = rows.lengths, rows.begins
    return out[:, :-2]


def prepare(
    table: Table, targets: Array, preprocessing: Preprocessing, dtype: np.dtype[Any], limit_bytes: int
) -> PreparedRows:
    """Prepares the rows of a table. Rows with lengths are packed (see `pack`). Inputs that need no
    preprocessing are not copied. Others are preprocessed in memory if that takes at most `limit_bytes`, else
    batch by batch."""
    inputs = table.inputs
    if table.lengths is not None:
        more = 1 if table.begins is None else 2
        packed = room((len(table), math.prod(table.features) + more), dtype)
        for start, rows in chunks(inputs):
            stop = start + len(rows)
            begins = None if table.begins is None else table.begins[start:stop]
            given = Samples(rows, table.lengths[start:stop], begins=begins)
            pack(given, preprocessing, packed[start:stop])
        return PreparedRows(packed, targets, table.weights)
    if inputs.dtype == dtype and preprocessing.is_identity(inputs.dtype):
        return PreparedRows(inputs, targets, table.weights, windows=table.windows)
    if inputs.size * dtype.itemsize > limit_bytes:
        return PreparedRows(inputs, targets, table.weights, preprocessing)
    ready = np.empty(inputs.shape, dtype)
    for start, rows in chunks(inputs):
        preprocessing.apply(rows, ready[start : start + len(rows)])
    return PreparedRows(ready, targets, table.weights)
