"""A table as series of rows in time, and windows of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from distbp.core.arrays import Array
from distbp.core.errors import DataError
from distbp.data.columns.store import Column
from distbp.data.table import Table
from distbp.data.windows import Windows, windows_of


@dataclass(frozen=True)
class SeriesCode:
    """What a model keeps of them: `length` rows make a sample, whose target lies `horizon` rows after the
    last. `time`, `group`: columns; "": no groups. `difference`: targets are changes since the last row."""

    length: int
    horizon: int
    time: str
    group: str = ""
    difference: bool = False

    def windows(self, groups: Sequence[str] | None, rows: int, ahead: int, where: str) -> Windows:
        """Every window of rows in the order of time. Raises DataError where there is none."""
        codes = None if groups is None else np.unique(np.array(groups, dtype=str), return_inverse=True)[1]
        found = windows_of(codes, rows, self.length, 1, ahead)
        if not len(found):
            raise DataError(
                f"{where}: {rows:,} rows, but one prediction takes {self.length + ahead} in the order of time"
                f"{' of one ' + repr(self.group) if self.group else ''}; give more"
            )
        return found


def in_order(rows: Array, times: Column, groups: Column | None, name: str) -> Array:
    """Row numbers by group, and in it by time. Raises DataError where two rows of a group have one time."""
    time = times.values[rows]
    group = np.zeros(len(rows), np.int64) if groups is None else groups.values[rows]
    order = np.lexsort((time, group))
    same = (np.diff(time[order]) == 0) & (np.diff(group[order]) == 0)
    if same.any():
        first = int(same.argmax())
        one, other = sorted((int(rows[order[first]]), int(rows[order[first + 1]])))
        raise DataError(
            f"{name}: rows {one} and {other} have one time; give each series a value of its own in the column"
            " data.group, or each row a time of its own"
        )
    return np.asarray(rows[order])


def windowed(table: Table, windows: Windows, series: SeriesCode) -> Table:
    """The windows of a table of rows in order as samples; the target, weight and number of each are those of
    the row `horizon` rows after its last."""
    at, targets = windows.last + series.horizon, table.targets
    if targets is not None:
        targets = targets[at] - targets[windows.last] if series.difference else targets[at]
    numbers = table.first_row + np.arange(len(table)) if table.row_numbers is None else table.row_numbers
    return replace(
        table,
        targets=targets,
        weights=None if table.weights is None else table.weights[at],
        row_numbers=numbers[at],
        windows=windows,
    )
