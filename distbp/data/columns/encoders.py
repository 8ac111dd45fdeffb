"""The kinds of columns, fitted: what turns one column into columns of the inputs.

An encoder is a frozen dataclass of plain numbers and text, so it is JSON, and the same in training and in
prediction. `reads`: how cells are read (see `store.read_cells`). `names`: of the input columns. `ready`
is told the values of a column, whose missing cells are NaN or level -1, and its levels; `encode` writes what
that gave for some rows, (n, width).
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from distbp.core.arrays import Array

_DAY = 86_400.0


@dataclass(frozen=True)
class NumberCode:
    """(f(x) - center) / spread, its piecewise-linear code between `edges`, whether it was missing. f: log,
    or the rank between `ranks`. `fill`: for missing cells."""

    name: str
    center: float
    spread: float
    fill: float
    indicator: bool
    log: bool = False
    ranks: tuple[float, ...] = ()
    edges: tuple[float, ...] = ()
    type: Literal["number"] = "number"

    reads = "number"
    numeric = False

    @property
    def names(self) -> list[str]:
        bins = [f"{self.name} bin {i}" for i in range(max(0, len(self.edges) - 1))]
        return [self.name, *bins, *[f"{self.name} missing"][: self.indicator]]

    def ready(self, values: Array, levels: Sequence[str] | None) -> Array:
        return values

    def encode(self, values: Array, out: Array) -> None:
        gone = np.isnan(values)
        x = np.where(gone, self.fill, values)
        out[:, 0] = (transformed(x, self.log, self.ranks) - self.center) / self.spread
        if len(self.edges) > 1:
            low, high = np.array(self.edges[:-1]), np.array(self.edges[1:])
            out[:, 1 : len(self.edges)] = np.clip((x[:, None] - low) / (high - low), 0, 1)
        if self.indicator:
            out[:, -1] = gone


@dataclass(frozen=True)
class CategoryCode:
    """A column for each of `levels`, or for each of `buckets`; the last one, if there is an `other`, for
    what is missing, rare or unseen. `numeric`: the levels are the texts of numbers."""

    name: str
    levels: tuple[str, ...]
    other: bool
    numeric: bool
    buckets: int = 0
    type: Literal["category"] = "category"

    reads = "level"

    @property
    def names(self) -> list[str]:
        own = [f"{self.name}={level}" for level in self.levels]
        if self.buckets:
            own = [f"{self.name} bucket {i}" for i in range(self.buckets)]
        return [*own, *[f"{self.name} other"][: self.other]]

    def ready(self, values: Array, levels: Sequence[str] | None) -> Array:
        """The number of the column of each cell; one past the last where it has none."""
        width = len(self.names)
        place = np.array([*map(self._place, levels or ()), -1], np.int64)
        place[place < 0] = width - 1 if self.other else width
        return np.asarray(place[values])

    def encode(self, values: Array, out: Array) -> None:
        width = out.shape[1]
        out[:] = 0
        there = np.flatnonzero(values < width)
        out[there, values[there]] = 1

    def unseen(self, values: Array, levels: Sequence[str]) -> int:
        """How many cells hold a level that no training row had a column for."""
        strange = np.array([*(self._place(level) < 0 for level in levels), False])
        return int(strange[values].sum())

    def _place(self, level: str) -> int:
        if self.buckets:
            return zlib.crc32(level.encode()) % self.buckets
        return self._places.get(level, -1)

    @cached_property
    def _places(self) -> dict[str, int]:
        return {level: number for number, level in enumerate(self.levels)}


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

    def ready(self, values: Array, levels: Sequence[str] | None) -> Array:
        return values

    def encode(self, values: Array, out: Array) -> None:
        gone = np.isnan(values)
        out[:, 0] = np.where(gone, 0, 2 * values - 1)
        if self.indicator:
            out[:, -1] = gone


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

    def ready(self, values: Array, levels: Sequence[str] | None) -> Array:
        return values

    def encode(self, values: Array, out: Array) -> None:
        gone = np.isnan(values)
        seconds = np.where(gone, self.fill, values)
        place = 0
        for part in self.parts:
            if part == "time":
                out[:, place] = (seconds - self.center) / self.spread
                place += 1
                continue
            turn = 2 * np.pi * turns(seconds, part)
            out[:, place], out[:, place + 1] = np.sin(turn), np.cos(turn)
            place += 2
        if self.indicator:
            out[:, -1] = gone


ENCODERS: dict[str, Any] = {
    "number": NumberCode,
    "category": CategoryCode,
    "boolean": BooleanCode,
    "date": DateCode,
}


def transformed(x: Array, log: bool, ranks: Sequence[float]) -> Array:
    """What is scaled: x, its logarithm, or its rank from 0 to 1 among the training rows."""
    if ranks:
        return np.interp(x, ranks, np.linspace(0, 1, len(ranks))) if len(ranks) > 1 else np.zeros(len(x))
    return np.sign(x) * np.log1p(np.abs(x)) if log else x


def turns(seconds: Array, part: str) -> Array:
    """How far round the year, the week or the day a time is, from 0 to 1."""
    days = np.floor(seconds / _DAY)
    if part == "month":
        months = days.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64)
        return np.asarray((months % 12) / 12)
    if part == "weekday":
        return np.asarray(((days + 3) % 7) / 7)  # 1970 began on a Thursday
    return np.asarray((seconds - days * _DAY) / _DAY)
