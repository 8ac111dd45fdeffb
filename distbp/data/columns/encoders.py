"""The kinds of columns, fitted: what turns one column into cells, and cells into columns of the inputs.

An encoder is a frozen dataclass of plain numbers and text, so it is JSON, and the same in training and in
prediction. `reads`: how cells are read (see `store.read_cells`). `names`: of the input columns. `ready`
is told the values of a column, whose missing cells are NaN or level -1, and its levels; `encode` writes what
that gave for some rows, (n, cells), one number a cell. `cells`: how the network makes input columns of them
(`distbp.nn.layers.columns`). In cells 0 is what is missing, but MISSING in those of numbers.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from distbp.core.arrays import Array
from distbp.data.columns.cells import truth, truths
from distbp.nn.layers.columns import Cell, EmbeddingCell, NumberCell, OneHotCell, TableCell
from distbp.nn.layers.periodic import Periodic
from distbp.nn.ops.activations import SMOOTH_LIMIT
from distbp.nn.ops.columns import MISSING

_DAY, _MINUTE = 86_400.0, 60.0
TURNS = {"month": 12, "weekday": 7, "hour": 1440}  # places on the circle; a day has its minutes


@dataclass(frozen=True)
class NumberCode:
    """(f(x) - center) / spread, its piecewise-linear code between `edges` (of these numbers), whether it was
    missing, and its periodic embedding where there are `frequencies`. f: log, or the rank between `ranks`.
    `fill`: for missing cells, as x. `clip`: smoothly to -3 to 3."""

    name: str
    center: float
    spread: float
    fill: float
    indicator: bool
    log: bool = False
    ranks: tuple[float, ...] = ()
    edges: tuple[float, ...] = ()
    clip: bool = False
    frequencies: int = 0
    dimension: int = 0
    std: float = 0.0
    type: Literal["number"] = "number"

    reads = "number"
    numeric = False

    @property
    def names(self) -> list[str]:
        bins = [f"{self.name} bin {i}" for i in range(max(0, len(self.edges) - 1))]
        beside = [f"{self.name} embedding {i}" for i in range(max(0, self.dimension - 1))]
        return [self.name, *bins, *[f"{self.name} missing"][: self.indicator], *beside]

    @property
    def cells(self) -> tuple[Cell, ...]:
        fill = float(self.scaled(np.array([self.fill]))[0])
        periodic = Periodic(self.frequencies, self.dimension, self.std) if self.frequencies else None
        return (NumberCell(self.edges, fill, self.indicator, self.name if periodic else "", periodic),)

    def ready(self, values: Array, levels: Sequence[str] | None) -> Array:
        return values

    def scaled(self, values: Array) -> Array:
        """NaN stays NaN."""
        x = transformed(values, self.log, self.ranks) - self.center
        x /= self.spread
        return smoothly_clipped(x) if self.clip else x

    def encode(self, values: Array, out: Array) -> None:
        x = self.scaled(values)
        np.copyto(x, MISSING, where=np.isnan(x))
        out[:, 0] = x


@dataclass(frozen=True)
class CategoryCode:
    """A number for each of `levels`, or for each of `buckets`; 0 for what is missing, rare or unseen. It
    enters as a vector of `dimension` numbers, or where that is 0 by a column for each number, and one for 0
    where there is an `other`; where `signed`, by one column of 1 and -1 for two levels. `std`: of the first
    vectors. `numeric`: the levels are the texts of numbers."""

    name: str
    levels: tuple[str, ...]
    other: bool
    numeric: bool
    buckets: int = 0
    dimension: int = 0
    signed: bool = False
    std: float = EmbeddingCell.std
    type: Literal["category"] = "category"

    reads = "level"

    @property
    def names(self) -> list[str]:
        if self.dimension:
            return [f"{self.name} embedding {i}" for i in range(self.dimension)]
        if self.signed:
            return [self.name, *[f"{self.name} other"][: self.other]]
        own = [f"{self.name}={level}" for level in self.levels]
        if self.buckets:
            own = [f"{self.name} bucket {i}" for i in range(self.buckets)]
        return [*own, *[f"{self.name} other"][: self.other]]

    @property
    def cells(self) -> tuple[Cell, ...]:
        count = self.buckets or len(self.levels)
        if self.dimension:
            return (EmbeddingCell(self.name, count + 1, self.dimension, self.std),)
        if self.signed:
            return (TableCell(_marked([(0.0,), (1.0,), (-1.0,)], self.other)),)
        return (OneHotCell(count, self.other),)

    def ready(self, values: Array, levels: Sequence[str] | None) -> Array:
        """The code of each cell. They are whole numbers below 2^24, which float32 holds exactly."""
        return np.array([*map(self._code, levels or ()), 0], np.float32)[values]

    def encode(self, values: Array, out: Array) -> None:
        out[:, 0] = values

    def unseen(self, values: Array, levels: Sequence[str]) -> int:
        """How many cells hold a level that has no code of its own."""
        strange = np.array([*(self._code(level) == 0 for level in levels), False])
        return int(strange[values].sum()) if strange.any() else 0

    def _code(self, level: str) -> int:
        if self.buckets:
            return zlib.crc32(level.encode()) % self.buckets + 1
        code = self._codes.get(level, 0)
        return code or (self._truths.get(truth(level), 0) if self._truths else 0)

    @cached_property
    def _truths(self) -> dict[bool | None, int]:
        """The codes of yes and no, which any word for them has."""
        return {says: self._codes[level] for says, level in truths(self.levels).items()}

    @cached_property
    def _codes(self) -> dict[str, int]:
        return {level: number for number, level in enumerate(self.levels, 1)}


@dataclass(frozen=True)
class BooleanCode:
    """1 and -1; 0 where it is missing, and whether it was."""

    name: str
    indicator: bool
    type: Literal["boolean"] = "boolean"

    reads = "boolean"
    numeric = False

    @property
    def names(self) -> list[str]:
        return [self.name, *[f"{self.name} missing"][: self.indicator]]

    @property
    def cells(self) -> tuple[Cell, ...]:
        return (TableCell(_marked([(0.0,), (-1.0,), (1.0,)], self.indicator)),)

    def ready(self, values: Array, levels: Sequence[str] | None) -> Array:
        return values

    def encode(self, values: Array, out: Array) -> None:
        out[:, 0] = np.where(np.isnan(values), 0, values + 1)


@dataclass(frozen=True)
class DateCode:
    """The parts of a date. Missing ones are `fill`, in seconds since 1970, in every part."""

    name: str
    parts: tuple[str, ...]
    center: float
    spread: float
    fill: float
    indicator: bool
    type: Literal["date"] = "date"

    reads = "date"
    numeric = False

    @property
    def names(self) -> list[str]:
        own = []
        for part in self.parts:
            own += (
                [f"{self.name} time"]
                if part == "time"
                else [f"{self.name} {part} {f}" for f in ("sin", "cos")]
            )
        return [*own, *[f"{self.name} missing"][: self.indicator]]

    @property
    def cells(self) -> tuple[Cell, ...]:
        """The last part says whether the date was missing."""
        return tuple(self._cell(part, self.indicator and part == self.parts[-1]) for part in self.parts)

    def _cell(self, part: str, indicator: bool) -> Cell:
        if part == "time":
            return NumberCell((), (self.fill - self.center) / self.spread, indicator)
        count = TURNS[part]
        missing = int(places(np.array([self.fill]), part)[0])
        angles = 2 * np.pi * np.array([missing, *range(count)]) / count
        return TableCell(
            _marked(zip(np.sin(angles).tolist(), np.cos(angles).tolist(), strict=True), indicator)
        )

    def ready(self, values: Array, levels: Sequence[str] | None) -> Array:
        return values

    def encode(self, values: Array, out: Array) -> None:
        gone = np.isnan(values)
        seconds = np.where(gone, self.fill, values)
        for place, part in enumerate(self.parts):
            if part == "time":
                out[:, place] = np.where(gone, MISSING, (seconds - self.center) / self.spread)
            else:
                out[:, place] = np.where(gone, 0, places(seconds, part) + 1)


ENCODERS: dict[str, Any] = {
    "number": NumberCode,
    "category": CategoryCode,
    "boolean": BooleanCode,
    "date": DateCode,
}


def transformed(x: Array, log: bool, ranks: Sequence[float]) -> Array:
    """What is scaled: x, its logarithm, or its rank from 0 to 1 among the training rows."""
    if ranks:
        return (
            np.interp(x, ranks, np.linspace(0, 1, len(ranks))) if len(ranks) > 1 else np.where(x == x, 0.0, x)
        )
    return np.sign(x) * np.log1p(np.abs(x)) if log else x


def smoothly_clipped(x: Array) -> Array:
    """x / sqrt(1 + (x / 3)^2), of any size; NaN stays."""
    u = np.clip(x / SMOOTH_LIMIT, -1e150, 1e150)
    return np.asarray(SMOOTH_LIMIT * u / np.sqrt(1 + u * u))


def places(seconds: Array, part: str) -> Array:
    """Where on the circle of the year, the week or the day a time is: whole numbers below `TURNS`."""
    days = np.floor(seconds / _DAY)
    if part == "month":
        return days.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64) % 12
    if part == "weekday":
        return (days + 3) % 7  # 1970 began on a Thursday
    return np.floor((seconds - days * _DAY) / _MINUTE)


def _marked(rows: Any, indicator: bool) -> tuple[tuple[float, ...], ...]:
    """The rows of a table; with a last column, where it is asked for, that is 1 in row 0."""
    return tuple((*row, float(not number)) if indicator else tuple(row) for number, row in enumerate(rows))
