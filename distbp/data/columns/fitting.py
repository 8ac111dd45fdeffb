"""Fits encoders to columns. All statistics are those of the training rows alone.

Sums are taken in float64 over fixed chunks of rows, so they depend neither on the format of a file nor on
its batches. Quantiles are exact (`distbp.data.columns.orders`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from distbp.core.arrays import Array
from distbp.data.columns import kinds
from distbp.data.columns.encoders import BooleanCode, CategoryCode, DateCode, NumberCode, transformed
from distbp.data.columns.orders import Counted
from distbp.data.columns.store import CHUNK_ROWS, Column
from distbp.nn.layers.columns import EmbeddingCell
from distbp.nn.layers.periodic import PeriodicEmbedding

_RANKS = 257  # the most quantiles kept for scale: quantile
_DAY = 86_400  # seconds
_LEAST = 1e-140  # the square of a larger deviation is a normal float64
_COUNTED_ROWS = 4 * CHUNK_ROWS  # smaller pieces make threads wait; counts are exact anyhow


class Moments(NamedTuple):
    """Statistics of the numbers of a column that are not missing. Without numbers, mean and deviation are 0
    and 1. The deviation of a constant is 1. `numbers`: their count."""

    mean: float = 0.0
    deviation: float = 1.0
    low: float = np.inf
    high: float = -np.inf
    numbers: int = 0


def reads(kind: Any) -> str | None:
    """How the cells of a kind are read (see `store.read_cells`); None: the kind is left out of the inputs."""
    table: dict[type, str] = {
        kinds.Number: "number",
        kinds.Category: "level",
        kinds.Boolean: "boolean",
        kinds.Date: "date",
    }
    return table.get(type(kind))


def fit_column(name: str, kind: Any, column: Column, rows: Array | None, numeric: bool = False) -> Any:
    """Fits the encoder of one column. `rows`: (n,) bool, True for training rows; None: all. `numeric`: levels
    of a category are texts of numbers."""
    if isinstance(kind, kinds.Category):
        return _category(name, kind, column, rows, numeric)
    if isinstance(kind, kinds.Boolean):
        holes = any(np.isnan(part).any() for part in column.chunks(rows))
        return BooleanCode(name, kind.indicator if kind.indicator is not None else holes)
    found = moments(column, rows)
    count = len(column) if rows is None else int(rows.sum())
    indicator = kind.indicator if kind.indicator is not None else found.numbers < count
    if isinstance(kind, kinds.Date):
        return _date(name, kind, column, rows, indicator, found)
    return _number(name, kind, column, rows, indicator, found)


def moments(column: Column, rows: Array | None, change: Callable[[Array], Array] | None = None) -> Moments:
    """The moments of the numbers in some rows, or of `change` of them. If squares over- or underflow,
    the numbers are first scaled to about 1 by a power of two, which rounds nothing."""
    with np.errstate(over="ignore", invalid="ignore"):
        found = _moments(column, rows, change)
    if not found.numbers or found.low == found.high or _LEAST < found.deviation < np.inf:
        return found
    exponent = int(np.frexp(max(abs(found.low), abs(found.high)))[1])
    near = _moments(column, rows, lambda x: np.ldexp(x if change is None else change(x), -exponent))
    mean, deviation = np.ldexp([near.mean, near.deviation], exponent).tolist()
    return found._replace(mean=mean, deviation=deviation or 1.0)


def _moments(column: Column, rows: Array | None, change: Callable[[Array], Array] | None) -> Moments:
    """The moments of chunks, joined in order by the update of Chan, Golub and LeVeque (1983). Each chunk
    is taken relative to its first number, so that constants are exact and large values do not cancel."""
    count, mean, squares, low, high = 0, 0.0, 0.0, np.inf, -np.inf
    for part in _there(column, rows):
        if not len(part):
            continue
        x = part if change is None else change(part)
        origin, more = float(x[0]), len(x)
        from_origin = x - origin
        shift = float(from_origin.sum()) / more
        from_origin -= shift
        own = float((from_origin * from_origin).sum())
        apart = origin + shift - mean if count else 0.0
        mean = mean + apart * (more / (count + more)) if count else origin + shift
        squares += own + apart * apart * (count * more / (count + more))
        count += more
        low, high = min(low, float(x.min())), max(high, float(x.max()))
    if not count:
        return Moments()
    deviation = float(np.sqrt(squares / count))
    return Moments(mean, deviation if low < high else 1.0, low, high, count)


def _there(column: Column, rows: Array | None, step: int = CHUNK_ROWS) -> Iterator[Array]:
    start = 0
    for part in column.chunks(step=step):
        there = part == part
        if rows is not None:
            there &= rows[start : start + len(part)]
        start += len(part)
        yield np.compress(there, part)


def _number(
    name: str, kind: Any, column: Column, rows: Array | None, indicator: bool, found: Moments
) -> NumberCode:
    log = kind.scale == "log"
    ranks: tuple[float, ...] = ()
    fill, center, spread = found.mean, found.mean, found.deviation
    if found.numbers and (kind.scale in ("robust", "quantile") or kind.fill == "median"):
        counted = Counted(lambda: _there(column, rows), np.float64)
        quarters = counted.quantiles(np.array([0.25, 0.5, 0.75])).tolist()
        fill = quarters[1] if kind.fill == "median" else fill
        if kind.scale == "robust":
            center, spread = quarters[1], quarters[2] - quarters[0]
            if spread == 0:
                spread = (found.high - found.low) / 2
        elif kind.scale == "quantile":
            points = counted.quantiles(np.linspace(0, 1, min(_RANKS, found.numbers)))
            ranks = tuple(np.unique(points).tolist())
    if log or ranks:
        center, spread, *_ = moments(column, rows, lambda x: transformed(x, log, ranks))
    elif kind.scale == "min_max" and found.numbers:
        center, spread = found.low, found.high - found.low
    elif kind.scale == "none":
        center, spread = 0.0, 1.0
    spread = min(spread, float(np.finfo(np.float64).max)) if spread > 0 else 1.0
    fill = float(kind.value) if kind.fill == "value" else fill
    code = NumberCode(name, center, spread, fill, indicator, log=log, ranks=ranks, clip=kind.clip is not None)
    if kind.frequencies is not None:
        usual = PeriodicEmbedding
        code = replace(
            code,
            frequencies=kind.frequencies,
            dimension=kind.dimension or usual.dimension,
            std=kind.std or usual.std,
        )
    if not kind.bins or not found.numbers:
        return code
    edges = _edges(code, column, rows, found, kind.bins)
    return replace(code, edges=edges, bin_height=kind.bin_height or 0.0)


def _edges(
    code: NumberCode, column: Column, rows: Array | None, found: Moments, bins: int
) -> tuple[float, ...]:
    """The bin edges of the scaled numbers, as float32; (): fewer than two. A value in more than 1/bins of the
    rows is an edge, and so are the least and the largest value; the other edges are quantiles."""

    def parts() -> Iterator[Array]:
        return (code.scaled(part).astype(np.float32) for part in _there(column, rows, _COUNTED_ROWS))

    counted = Counted(parts, np.float32)
    heavy = counted.heavy(bins)
    ends = code.scaled(np.array([found.low, found.high]))
    edges = np.append(heavy[0], ends.astype(np.float32))
    if int(heavy[1].sum()) < counted.total:
        shares = np.linspace(0, 1, max(2, bins - len(heavy[0]) + 1))
        edges = np.append(edges, counted.quantiles(shares, heavy).astype(np.float32))
    edges = np.unique(edges)
    return tuple(edges.tolist()) if len(edges) > 1 else ()


def _category(name: str, kind: Any, column: Column, rows: Array | None, numeric: bool) -> CategoryCode:
    levels = column.levels or ()
    counts = np.zeros(len(levels) + 1, np.int64)
    for part in column.chunks(rows):
        counts += np.bincount(part + 1, minlength=len(counts))
    std = EmbeddingCell.std if kind.std is None else kind.std
    if kind.encode == "hash":
        other = kind.indicator if kind.indicator is not None else bool(counts[0])
        dimension = _dimension(kind, kind.buckets)
        return CategoryCode(name, (), other, numeric, buckets=kind.buckets, dimension=dimension, std=std)
    order = sorted(
        np.flatnonzero(counts[1:] >= kind.at_least).tolist(), key=lambda i: (-counts[i + 1], levels[i])
    )
    kept = order[: kind.most]
    covered = sum(int(counts[i + 1]) for i in kept)
    other = kind.indicator if kind.indicator is not None else covered < int(counts.sum())
    dimension = 0 if kind.encode == "one_hot" else _dimension(kind, len(kept))
    signed = bool(kind.signed) and not dimension and len(kept) == 2
    other = bool(kind.indicator) if signed else other  # 0 in the one column already means other levels
    names = tuple(levels[i] for i in kept)
    return CategoryCode(name, names, other, numeric, dimension=dimension, signed=signed, std=std)


def _dimension(kind: Any, count: int) -> int:
    """The dimension of the embedding of `count` codes; 0: one-hot columns."""
    if kind.one_hot is not None and count <= kind.one_hot:
        return 0
    if kind.dimension is not None:
        return int(kind.dimension)
    if kind.one_hot is None and count <= kinds.ONE_HOT_LEVELS and kind.encode != "embedding":
        return 0
    return max(1, min(kinds.USUAL_DIMENSION, (count + 1) // 2))


def _date(
    name: str, kind: Any, column: Column, rows: Array | None, indicator: bool, found: Moments
) -> DateCode:
    parts = kind.parts
    if parts is None:
        timed = any(bool((part % _DAY != 0).any()) for part in _there(column, rows))
        parts = ("time", "month", "weekday", *("hour",)[:timed])
    return DateCode(name, tuple(parts), found.mean, found.deviation, found.mean, indicator)
