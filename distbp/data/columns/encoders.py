"""Encoders: the kinds of columns after fitting. An encoder turns one column of a table into cells, numbers
from which the first layer of the network makes input columns (`distbp.nn.layers.columns`).

An encoder is a frozen dataclass of plain numbers and text: it fits into JSON, and is the same in training and
prediction. `reads`: how the column is read (see `store.read_cells`). `names`: the names of the input columns.
`ready` takes the values of a column, NaN or level -1 if missing, and its levels. `encode` takes rows of the
result and writes them, (n, cells). `cells`: the layer's description of each cell. A missing value is 0 in a
cell, but MISSING in a cell of numbers.
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
TURNS = {"month": 12, "weekday": 7, "hour": 1440}  # places on the circle: months, weekdays, minutes of a day


@dataclass(frozen=True)
class NumberCode:
    """One number x, scaled: (f(x) - center) / spread, where f is the identity, log, or the rank in `ranks`.
    `clip`: smoothly to -3 to 3. `edges`: bin edges of a piecewise-linear code, in scaled numbers; (): no
    code. `bin_height`: as in NumberCell. `indicator`: a column for missing cells. `frequencies`: those of a
    periodic embedding; 0: none. `fill`: the x of missing cells."""

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
    bin_height: float = 0.0
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
        name = self.name if periodic else ""
        return (NumberCell(self.edges, fill, self.indicator, name, periodic, self.bin_height),)

    def ready(self, values: Array, levels: Sequence[str] | None) -> Array:
        return values

    def scaled(self, values: Array) -> Array:
        """The scaled values, (n,) float64; NaN stays NaN."""
        x = transformed(values, self.log, self.ranks) - self.center
        x /= self.spread
        return smoothly_clipped(x) if self.clip else x

    def encode(self, values: Array, out: Array) -> None:
        x = self.scaled(values)
        np.copyto(x, MISSING, where=np.isnan(x))
        out[:, 0] = x


@dataclass(frozen=True)
class CategoryCode:
    """A code for each of `levels`, or for each of `buckets`, from 1; 0 for missing, rare and unseen levels.
    The network embeds codes as vectors of `dimension` numbers. If that is 0, each code has a column, and code
    0 has one if `other`; if `signed`, two levels share one column of 1 and -1. `std`: the deviation of the
    initial vectors. `numeric`: levels are the texts of numbers."""

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
        """The code of each cell, (n,) float32. Codes are below 2^24, so float32 holds them exactly."""
        return np.array([*map(self._code, levels or ()), 0], np.float32)[values]

    def encode(self, values: Array, out: Array) -> None:
        out[:, 0] = values

    def unseen(self, values: Array, levels: Sequence[str]) -> int:
        """The number of cells whose level has no code of its own."""
        strange = np.array([*(self._code(level) == 0 for level in levels), False])
        return int(strange[values].sum()) if strange.any() else 0

    def _code(self, level: str) -> int:
        if self.buckets:
            return zlib.crc32(level.encode()) % self.buckets + 1
        code = self._codes.get(level, 0)
        return code or (self._truths.get(truth(level), 0) if self._truths else 0)

    @cached_property
    def _truths(self) -> dict[bool | None, int]:
        """The codes of yes and no, if these are the levels: every spelling of yes has the code of yes."""
        return {says: self._codes[level] for says, level in truths(self.levels).items()}

    @cached_property
    def _codes(self) -> dict[str, int]:
        return {level: number for number, level in enumerate(self.levels, 1)}


@dataclass(frozen=True)
class BooleanCode:
    """1 for yes, -1 for no, 0 if missing. `indicator`: a column for missing cells."""

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
    """The parts of a date. `center`, `fill`: seconds since 1970; `spread`: seconds. A missing
    date counts as `fill`."""

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
        """The cell of the last part has the indicator of missing dates."""
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
    """f of `NumberCode`: x, sign(x) log(1 + |x|), or the rank of x among the training rows, from 0 to 1."""
    if ranks:
        return (
            np.interp(x, ranks, np.linspace(0, 1, len(ranks))) if len(ranks) > 1 else np.where(x == x, 0.0, x)
        )
    return np.sign(x) * np.log1p(np.abs(x)) if log else x


def smoothly_clipped(x: Array) -> Array:
    """x / sqrt(1 + (x / 3)^2), without overflow for any x; NaN stays NaN."""
    u = np.clip(x / SMOOTH_LIMIT, -1e150, 1e150)
    return np.asarray(SMOOTH_LIMIT * u / np.sqrt(1 + u * u))


def places(seconds: Array, part: str) -> Array:
    """Places of times on the circle of the year, week or day: whole numbers from 0, below `TURNS[part]`."""
    days = np.floor(seconds / _DAY)
    if part == "month":
        return days.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64) % 12
    if part == "weekday":
        return (days + 3) % 7  # 1970 began on a Thursday
    return np.floor((seconds - days * _DAY) / _MINUTE)


def _marked(rows: Any, indicator: bool) -> tuple[tuple[float, ...], ...]:
    """The rows of a table. `indicator`: with one more column, 1 in row 0 and 0 in the others."""
    return tuple((*row, float(not number)) if indicator else tuple(row) for number, row in enumerate(rows))
