"""The table of epochs on a terminal and in a log: a head, and a row for each epoch, at most 80 wide."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

from distbp.core.metric_names import SPLITS, measured
from distbp.run import events

WIDTH = 80
_LEFT, _RIGHT = 5, 14  # the widths of the columns of the epoch, and of samples/s with the star


def in_order(names: Iterable[str]) -> list[str]:
    """The columns of a table in order: the training set's, then the validation set's, each with the most
    telling metrics first."""
    ranks = {name: rank for rank, name in enumerate(measured(sorted(names)))}
    return sorted(names, key=lambda name: (SPLITS.index(name.split("_")[0]), ranks[name.partition("_")[2]]))


def _shown(columns: Sequence[str]) -> list[tuple[str, str, int]]:
    """(split, metric, width) of the columns that fit. A split is "" if the column before has the same."""
    for least in (9, 7):
        shown, before, room = [], "", WIDTH - _LEFT - _RIGHT
        for column in columns:
            split, _, metric = column.partition("_")
            width = max(least, len(metric), len(split) if split != before else 0)
            room -= width + 2
            shown.append((split if split != before else "", metric.replace("_", " "), width))
            before = split
        if room >= 0:
            return shown
    while sum(width + 2 for _, _, width in shown) > WIDTH - _LEFT - _RIGHT:
        shown.pop()
    return shown


def table_head(columns: Sequence[str], watched: str | None, member: int | None = None) -> Iterator[str]:
    """The lines above the first epoch, at most WIDTH wide. watched: the metric that chooses the best epoch,
    or None. member: the number of a network, if the job trains several."""
    if member is not None:
        yield f"{member}:1 is the first epoch of network {member}, and so on"
    if watched is not None:
        yield f"* marks the best epoch so far, by its {watched.replace('_', ' ')}"
    shown = _shown(columns)
    hidden = [column.replace("_", " ") for column in columns[len(shown) :]]
    if hidden:
        yield f"in metrics.jsonl, and not shown here: {', '.join(hidden)}"
    yield (" " * _LEFT + "".join(f"  {split:>{width}}" for split, _, width in shown)).rstrip()
    yield "epoch" + "".join(f"  {metric:>{width}}" for _, metric, width in shown) + f"  {'samples/s':>9}"


def table_row(columns: Sequence[str], event: events.EpochEnded) -> str:
    cells = []
    for column, (_, _, width) in zip(columns, _shown(columns), strict=False):
        value = event.metrics.get(column)
        cells.append(f"  {number(value) if isinstance(value, float) else '':>{width}}")
    speed = f"{event.samples_per_second:,.0f}" if event.samples_per_second else ""
    epoch = event.epoch if event.member is None else f"{event.member}:{event.epoch}"
    return f"{epoch:>{_LEFT}}{''.join(cells)}  {speed:>9}{'  *' if event.improved else ''}".rstrip()


def number(value: float) -> str:
    """A value with about four significant digits, and without an exponent from 0.001 up to 1000."""
    if not math.isfinite(value):
        return str(value)
    return f"{value:.4f}" if 0.001 <= abs(value) < 1000 or value == 0 else f"{value:.4g}"
