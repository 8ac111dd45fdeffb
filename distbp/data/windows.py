"""Windows of a series: samples that are some consecutive rows each. The rows are kept once."""

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
        """Of a sample, where a row has the shape `features`."""
        return (self.length * math.prod(features),) if self.flat else (self.length, *features)

    def take(self, series: Array, windows: Array | slice) -> Array:
        """A copy of some windows of a series (rows, ...)."""
        rows = self.starts[windows][:, None] + np.arange(self.length)
        return series[rows].reshape(-1, *self.shape(series.shape[1:]))


def windows_of(groups: Array | None, rows: int, length: int, stride: int, ahead: int) -> Windows:
    """All windows of `rows` rows in the order of time, every `stride` rows one, so that the row `ahead` rows
    after the last is there, too. groups: (rows,), of each row; none crosses from one to the next."""
    borders = np.zeros(0, np.int64) if groups is None else np.flatnonzero(groups[1:] != groups[:-1]) + 1
    ends = np.r_[0, borders, rows]
    starts = [
        np.arange(first, stop - length - ahead + 1, stride, dtype=np.int64)
        for first, stop in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True)
    ]
    return Windows(np.concatenate(starts), length)
