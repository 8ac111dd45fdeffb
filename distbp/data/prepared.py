"""A split that is ready to be gathered into batches: preprocessed once where it fits in memory, else row by row.

Preprocessing is element-wise, so both ways give the same bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from distbp.data.preprocessing import Preprocessing
from distbp.data.table import Table, chunks, release_pages
from distbp.nn.layers.base import Array, Shape

# A memory-mapped file's resident pages are given back after so many bytes have been gathered from it.
RELEASE_BYTES = 64 * 2**20


class PreparedRows:
    """Rows of a table as the first layer sees them. `inputs` is shared, not copied, where it is ready."""

    def __init__(
        self, table: Table, preprocessing: Preprocessing, dtype: Any, targets: Array, limit: int
    ) -> None:
        self.input_shape: Shape = table.features
        self.targets = targets
        self.weights = table.weights
        self.dtype = np.dtype(dtype)
        self.inputs = table.inputs
        self._preprocessing: Preprocessing | None = preprocessing
        self._gathered = 0
        size = table.inputs.size * self.dtype.itemsize
        if preprocessing.is_identity(self.inputs.dtype) and self.inputs.dtype == self.dtype:
            self._preprocessing = None
        elif size <= limit:
            self.inputs = np.empty(table.inputs.shape, self.dtype)
            for start, rows in chunks(table.inputs):
                preprocessing.apply(rows, self.inputs[start : start + len(rows)])
            self._preprocessing = None
        self._raw = np.empty((0, *self.input_shape), self.inputs.dtype)

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def ready(self) -> bool:
        """True where `inputs` holds what `gather` gives, in memory or in a mapped file."""
        return self._preprocessing is None

    def gather(self, rows: Array, out: Array) -> None:
        """Writes the preprocessed inputs of `rows` (int64) to `out`, (len(rows), *input_shape)."""
        if self._preprocessing is None:
            np.take(self.inputs, rows, axis=0, out=out, mode="clip")
        else:
            if len(self._raw) < len(rows):
                self._raw = np.empty((len(rows), *self.input_shape), self.inputs.dtype)
            raw = self._raw[: len(rows)]
            np.take(self.inputs, rows, axis=0, out=raw, mode="clip")
            self._preprocessing.apply(raw, out)
        if isinstance(self.inputs, np.memmap):
            self._gathered += out.nbytes
            if self._gathered > RELEASE_BYTES:
                release_pages(self.inputs)
                self._gathered = 0
