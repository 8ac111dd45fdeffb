"""Fits the kinds of columns: statistics of the training rows, and of no others, for they are all that is
given.

Sums go over fixed chunks of rows in float64, so they depend neither on the file's format nor on how it was
cut.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from distbp.core.arrays import Array
from distbp.data.columns import kinds
from distbp.data.columns.encoders import BooleanCode, CategoryCode, DateCode, NumberCode, transformed
from distbp.data.columns.store import Column

_RANKS = 257  # of scale: quantile
_DAY = 86_400


def reads(kind: Any) -> str | None:
    """How the cells of a kind are read (see `store.read_cells`); None: it is left out."""
    table: dict[type, str] = {
        kinds.Number: "number",
        kinds.Category: "level",
        kinds.Boolean: "boolean",
        kinds.Date: "date",
    }
    return table.get(type(kind))


def fit_column(name: str, kind: Any, column: Column, rows: Array, numeric: bool = False) -> Any:
    """The encoder of one column. `rows`: the numbers of the training rows, ascending."""
    if isinstance(kind, kinds.Category):
        return _category(name, kind, column, rows, numeric)
    holes = sum(int(np.isnan(part).sum()) for part in column.chunks(rows))
    indicator = kind.indicator if kind.indicator is not None else holes > 0
    if isinstance(kind, kinds.Boolean):
        return BooleanCode(name, indicator)
    if isinstance(kind, kinds.Date):
        return _date(name, kind, column, rows, indicator)
    return _number(name, kind, column, rows, indicator)


def moments(
    column: Column, rows: Array, log: bool = False, ranks: tuple[float, ...] = ()
) -> tuple[float, float]:
    """Mean and deviation of what is there; (0, 1) of nothing, and the deviation 1 of a constant."""
    there = [transformed(part[~np.isnan(part)], log, ranks) for part in _first(column, rows)]
    if not there or not len(there[0]):
        return 0.0, 1.0
    origin = float(there[0][0])  # exact for constants, and no cancellation for large values
    count, total = 0, 0.0
    for part in column.chunks(rows):
        x = transformed(part[~np.isnan(part)], log, ranks) - origin
        count, total = count + len(x), total + float(x.sum())
    mean = origin + total / count
    squares = residue = 0.0
    for part in column.chunks(rows):
        x = transformed(part[~np.isnan(part)], log, ranks) - mean
        squares, residue = squares + float((x * x).sum()), residue + float(x.sum())
    variance = squares / count - (residue / count) ** 2
    deviation = float(np.sqrt(max(variance, 0.0)))
    return mean, deviation if deviation > 0 else 1.0


def _first(column: Column, rows: Array) -> list[Array]:
    """The first piece that holds something, if there is one."""
    return next(([part] for part in column.chunks(rows) if not np.isnan(part).all()), [])


def _sorted(column: Column, rows: Array) -> Array:
    parts = [part[~np.isnan(part)] for part in column.chunks(rows)]
    return np.sort(np.concatenate(parts)) if parts else np.empty(0)


def _number(name: str, kind: Any, column: Column, rows: Array, indicator: bool) -> NumberCode:
    log = kind.scale == "log"
    ranks: tuple[float, ...] = ()
    edges: tuple[float, ...] = ()
    needs_order = kind.scale in ("min_max", "robust", "quantile") or kind.fill == "median" or kind.bins
    values = _sorted(column, rows) if needs_order else np.empty(0)
    if kind.scale == "quantile" and len(values):
        points = np.quantile(values, np.linspace(0, 1, min(_RANKS, len(values))))
        ranks = tuple(np.unique(points).tolist())
    center, spread = moments(column, rows, log, ranks)
    if kind.scale == "none":
        center, spread = 0.0, 1.0
    elif kind.scale in ("min_max", "robust") and len(values):
        low, middle, high = np.quantile(
            values, (0, 0, 1) if kind.scale == "min_max" else (0.25, 0.5, 0.75)
        ).tolist()
        center, spread = middle, high - low if high > low else 1.0
    if kind.bins and len(values):
        edges = _edges(values, kind.bins)
    if kind.fill == "value":
        fill = float(kind.value)
    elif kind.fill == "median" and len(values):
        fill = float(np.quantile(values, 0.5))
    else:
        fill = moments(column, rows)[0]
    return NumberCode(name, center, spread, fill, indicator, log, ranks, edges)


def _edges(values: Array, bins: int) -> tuple[float, ...]:
    """A value that more than 1/bins of the rows have is an edge of its own; the others are quantiles."""
    distinct, counts = np.unique(values, return_counts=True)
    heavy = distinct[counts * bins > len(values)]
    rest = values[~np.isin(values, heavy)]
    found = heavy
    if len(rest):
        found = np.union1d(heavy, np.quantile(rest, np.linspace(0, 1, max(2, bins - len(heavy) + 1))))
    found = np.union1d(found, distinct[[0, -1]])
    return tuple(found.tolist()) if len(found) > 1 else ()


def _category(name: str, kind: Any, column: Column, rows: Array, numeric: bool) -> CategoryCode:
    levels = column.levels or ()
    counts = np.zeros(len(levels) + 1, np.int64)
    for part in column.chunks(rows):
        counts += np.bincount(part + 1, minlength=len(counts))
    if kind.encode == "hash":
        other = kind.indicator if kind.indicator is not None else bool(counts[0])
        return CategoryCode(name, (), other, numeric, kind.buckets)
    # By (count, text); the levels are sorted by text already.
    order = np.argsort(-counts[1:], kind="stable")
    kept = [i for i in order[: kind.most].tolist() if counts[i + 1] >= kind.at_least]
    covered = sum(int(counts[i + 1]) for i in kept)
    other = kind.indicator if kind.indicator is not None else covered < len(rows)
    return CategoryCode(name, tuple(levels[i] for i in kept), other, numeric)


def _date(name: str, kind: Any, column: Column, rows: Array, indicator: bool) -> DateCode:
    center, spread = moments(column, rows)
    parts = kind.parts
    if parts is None:
        timed = any(bool((part[~np.isnan(part)] % _DAY != 0).any()) for part in column.chunks(rows))
        parts = ("time", "month", "weekday", *("hour",)[:timed])
    return DateCode(name, tuple(parts), center, spread, center, indicator)
