"""The plan of a table: its encoders, fitted to the training rows. The model stores it as a JSON object.

Training, prediction and all other code that turns rows into inputs use the same plan.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from types import MappingProxyType
from typing import Any, get_type_hints

import numpy as np

from distbp.core.arrays import Array
from distbp.core.errors import DataError
from distbp.core.words import counted
from distbp.data.columns.encoders import ENCODERS, TURNS, CategoryCode, NumberCode
from distbp.data.columns.kinds import MOST_BUCKETS, MOST_DIMENSION, MOST_KEPT
from distbp.data.columns.series import SeriesCode
from distbp.data.formats.tables import READING, TableFiles
from distbp.data.windows import Windows
from distbp.nn.layers.columns import Columns

_VERSION = 1
_MOST_ROWS = 1 << 32  # of a window
_MOST_MISSING = 1000  # the most columns that a message names
_BLOCK = 2**21  # cells that are written at a time; with fewer, threads wait for each other


@dataclass(frozen=True)
class TargetCode:
    """The column of targets. Values are trained as (y - center) / spread, and predicted in their own units.
    `limits`: the smallest and the largest target of the training rows, to which predictions are cut; (): no
    limits."""

    name: str
    center: float = 0.0
    spread: float = 1.0
    limits: tuple[float, ...] = ()

    @property
    def scaled(self) -> bool:
        return (self.center, self.spread) != (0.0, 1.0)

    def scale(self, values: Array) -> Array:
        return (np.asarray(values, np.float64) - self.center) / self.spread

    def unscale(self, values: Array) -> Array:
        found = np.asarray(values, np.float64) * self.spread + self.center if self.scaled else values
        return np.asarray(np.clip(found, self.limits[0], self.limits[1])) if self.limits else found


_LATER: Mapping[type, Set[str]] = MappingProxyType(  # fields that older models lack
    {
        NumberCode: {"clip", "frequencies", "dimension", "std", "bin_height"},
        CategoryCode: {"signed", "std"},
        TargetCode: {"limits"},
    }
)


@dataclass(eq=False)
class Seen:
    """The findings of encoding. `unseen`: the number of cells with unseen or rare levels, by column. `extra`:
    columns that the plan does not use."""

    unseen: dict[str, int] = field(default_factory=dict)
    extra: tuple[str, ...] = ()

    @property
    def notes(self) -> list[str]:
        found = []
        if self.unseen:
            shown = ", ".join(f"{name!r} ({count:,})" for name, count in self.unseen.items())
            found.append(f"cells with levels that have no column of their own in the model: {shown}")
        if self.extra:
            found.append(f"columns that the model does not use: {_listed(self.extra)}")
        return found


@dataclass(frozen=True, eq=False)
class Plan:
    """`columns`: the encoders, in the order of the inputs. `targets`: by output; "" for the only output.
    `missing`: the texts of missing cells. `header`: whether the training CSV had one; None: it was not CSV.
    `series`: if samples are windows of rows. `weight`: the column of the rows' weights; "": none. `reading`:
    how text was read (see `TableFiles.reading`)."""

    columns: tuple[Any, ...]
    targets: Mapping[str, TargetCode]
    missing: tuple[str, ...]
    header: bool | None = None
    series: SeriesCode | None = None
    weight: str = ""
    reading: Mapping[str, Any] = field(default_factory=dict)

    @property
    def several(self) -> bool:
        """Whether the model has several outputs with targets."""
        return "" not in self.targets

    @property
    def target(self) -> TargetCode:
        """The only target."""
        return self.targets[""]

    @property
    def units(self) -> list[str]:
        """Notes on the scaled targets."""
        return [
            f"losses and metrics of values are in deviations of {code.name!r} ({code.spread:.4g});"
            " predictions are in its own units"
            for code in self.targets.values()
            if code.scaled
        ]

    @property
    def numbers(self) -> int:
        """The number of cells of a sample."""
        return self.width * (1 if self.series is None else self.series.length)

    @cached_property
    def entry(self) -> Columns:
        """The entry layer, which turns the cells of a row into inputs of the network."""
        cells = [(cell, column.name) for column in self.columns for cell in column.cells]
        return Columns(cells=tuple(cell for cell, _ in cells), names=tuple(name for _, name in cells))

    @property
    def width(self) -> int:
        """The number of cells of a row."""
        return len(self.entry.cells)

    @property
    def names(self) -> list[str]:
        """The names of the inputs that the entry layer makes from the cells."""
        return [name for column in self.columns for name in column.names]

    @property
    def needs(self) -> tuple[str, ...]:
        """The names of the columns that a row must have."""
        names = tuple(column.name for column in self.columns)
        group = "" if self.series is None else self.series.group
        return (*names, group) if group and group not in names else names

    def before(self, cells: Array, windows: Windows | None) -> Array | float:
        """The scaled target of each window's last row, (samples, 1), if targets are changes since that row;
        else 0. cells: (rows, width)."""
        if self.series is None or windows is None or not self.series.difference:
            return 0.0
        own = next(n for n, column in enumerate(self.columns) if column.name == self.target.name)
        at = sum(len(column.cells) for column in self.columns[:own])
        last: Array = cells[windows.last, at : at + 1].astype(np.float64)
        return last

    def encode_piece(
        self, values: Mapping[str, tuple[Array, Sequence[str] | None]], out: Array, seen: Seen | None = None
    ) -> None:
        """Encodes one piece into `out` (rows, width). values: the values and levels of every column. seen:
        receives the counts of unseen levels."""
        ready = []
        for column in self.columns:
            cells, levels = values[column.name]
            ready.append(column.ready(cells, levels))
            if seen is not None and isinstance(column, CategoryCode):
                count = column.unseen(cells, levels or ())
                if count:
                    seen.unseen[column.name] = seen.unseen.get(column.name, 0) + count
        widths = [len(column.cells) for column in self.columns]
        rows = max(16, _BLOCK // max(1, sum(widths)))
        block = np.empty((sum(widths), min(rows, len(out))), out.dtype)  # contiguous for each column
        with np.errstate(over="ignore"):  # later checks find numbers that are too large for float32
            for start in range(0, len(out), rows):
                part = block[:, : len(out[start : start + rows])].T
                place = 0
                for column, cells, width in zip(self.columns, ready, widths, strict=True):
                    column.encode(cells[start : start + rows], part[:, place : place + width])
                    place += width
                out[start : start + rows] = part

    def check_names(self, names: Sequence[str], where: str) -> tuple[str, ...]:
        """Returns the names that the plan does not use. Raises DataError with all missing columns."""
        there = set(names)
        missing = [name for name in self.needs if name not in there]
        if missing:
            raise DataError(
                f"{where} has no column {_listed(missing, _MOST_MISSING)}; the model needs"
                f" {_listed(self.needs)}, in any order"
            )
        targets = [code.name for code in self.targets.values()]
        used = {*self.needs, *targets, *([self.series.time] if self.series else []), self.weight}
        return tuple(name for name in names if name not in used)

    def to_json(self) -> dict[str, Any]:
        """The plan as plain values for JSON. Floats keep every bit."""
        return {
            "version": _VERSION,
            "columns": [_plain(column) for column in self.columns],
            **(
                {"targets": {name: _plain(code) for name, code in self.targets.items()}}
                if self.several
                else {"target": _plain(self.target)}
            ),
            "missing": list(self.missing),
            "header": self.header,
            **({} if self.series is None else {"series": dataclasses.asdict(self.series)}),
            **({"weight": self.weight} if self.weight else {}),
            **({"reading": dict(self.reading)} if self.reading else {}),
        }

    @staticmethod
    def from_json(data: Any) -> Plan:
        """The inverse of `to_json`. Raises DataError if `data` is damaged."""
        try:
            if data["version"] != _VERSION:
                raise ValueError(f"version {data['version']!r}")
            columns = tuple(_made(ENCODERS[one["type"]], one) for one in data["columns"])
            names = [column.name for column in columns]
            if not names or len(set(names)) < len(names):
                raise ValueError("columns without names of their own")
            header = data["header"]
            if not isinstance(header, bool | None):
                raise ValueError("header")
            missing = tuple(_checked(str, text) for text in data["missing"])
            series = None if data.get("series") is None else _made(SeriesCode, data["series"])
            if series is not None and not (0 < series.length < _MOST_ROWS and series.horizon > 0):
                raise ValueError("series")
            named = data["targets"] if "targets" in data else {"": data["target"]}
            if not named or ("targets" in data and ("" in named or series is not None)):
                raise ValueError("targets")
            targets = {_checked(str, name): _made(TargetCode, one) for name, one in named.items()}
            weight, reading = _checked(str, data.get("weight", "")), data.get("reading", {})
            reading = {name: _checked(READING[name], value) for name, value in reading.items()}
            TableFiles(path="rows", **reading)  # checks the values
            if not all(isinstance(text, str) for text in reading.get("replace", {}).values()):
                raise ValueError("replace")
            return Plan(columns, targets, missing, header, series, weight, reading)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"the model's table is damaged ({error}); save the model again") from None


def _listed(names: Sequence[str], most: int = 20) -> str:
    more = f" and {counted(len(names) - most, 'more')}".removesuffix("s") if len(names) > most else ""
    return ", ".join(map(repr, names[:most])) + more


def _plain(column: Any) -> dict[str, Any]:
    fields = dataclasses.asdict(column)
    return {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}


def _made(kind: Any, data: Mapping[str, Any]) -> Any:
    """A dataclass from plain values. Raises ValueError if a value does not have its field's type."""
    hints = get_type_hints(kind)
    wanted = {f.name for f in dataclasses.fields(kind)}
    if strange := (set(data) - wanted) | (wanted - set(data) - _LATER.get(kind, set())):
        raise ValueError(f"fields {', '.join(sorted(strange))}")
    found = {}
    for name in wanted & set(data) - {"type"}:
        value, hint = data[name], hints[name]
        if hint in (str, bool, int, float):
            found[name] = _checked(hint, value)
        else:
            found[name] = tuple(_checked(hint.__args__[0], one) for one in value)
    if not found.get("spread", 1.0) > 0:
        raise ValueError("a spread that is not above 0")
    if not 0 <= found.get("buckets", 0) <= MOST_BUCKETS:
        raise ValueError("buckets")
    if not 0 <= found.get("dimension", 0) <= MOST_DIMENSION:
        raise ValueError("dimension")
    if not 0 <= found.get("frequencies", 0) <= MOST_DIMENSION or (
        found.get("frequencies") and not (found["dimension"] > 1 and found["std"] > 0)
    ):
        raise ValueError("frequencies")
    if found.get("bin_height", 0) < 0:
        raise ValueError("bin_height")
    if found.get("signed") and len(found.get("levels", ())) != 2:
        raise ValueError("signed")
    if found.get("limits") and not (len(found["limits"]) == 2 and found["limits"][0] <= found["limits"][1]):
        raise ValueError("limits")
    if len(found.get("levels", ())) > MOST_KEPT:
        raise ValueError("levels")
    edges = found.get("edges", ())
    if any(low >= high for low, high in pairwise(edges)):
        raise ValueError("edges that do not ascend")
    if not {"time", *TURNS}.issuperset(found.get("parts", ())) or found.get("parts") == ():
        raise ValueError("parts")
    return kind(**found)


def _checked(kind: type, value: Any) -> Any:
    if kind is float and type(value) in (int, float) and math.isfinite(value):
        return float(value)
    if type(value) is not kind or kind is float:
        raise ValueError(f"{value!r} for {kind.__name__}")
    return value
