"""Windows of a series: each sample is some consecutive rows. The rows are stored only once."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from distbp.core.arrays import Array, Shape


@dataclass(frozen=True, eq=False)
class Windows:
    """starts: (n,) int64, the first row of each window. length: rows of a window. flat: a window is one row
    of numbers, not (length, ...)."""

    starts: Array
    length: int
    flat: bool = False

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def last(self) -> Array:
        """The last row of each window."""
        return self.starts + (self.length - 1)

    def shape(self, features: Shape) -> Shape:
        """The shape of a sample; features: the shape of a row."""
        return (self.length * math.prod(features),) if self.flat else (self.length, *features)

    def take(self, series: Array, windows: Array | slice) -> Array:
        """A copy of some windows of a series (rows, ...)."""
        rows = self.starts[windows][:, None] + np.arange(self.length)
        return series[rows].reshape(-1, *self.shape(series.shape[1:]))


def windows_of(groups: Array | None, rows: int, length: int, stride: int, ahead: int) -> Windows:
    """The windows of `rows` rows in the order of time; they begin every `stride` rows. The row `ahead` rows
    after a window must exist, too. groups: (rows,), the group of each row, or None; a window and its row
    ahead are within one group."""
    borders = np.zeros(0, np.int64) if groups is None else np.flatnonzero(groups[1:] != groups[:-1]) + 1
    ends = np.r_[0, borders, rows]
    starts = [
        np.arange(first, stop - length - ahead + 1, stride, dtype=np.int64)
        for first, stop in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True)
    ]
    return Windows(np.concatenate(starts), length)
