"""Turns a table into series of rows in time, and cuts these into windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from distbp.core.arrays import Array
from distbp.core.errors import DataError
from distbp.data.columns.choosing import Window
from distbp.data.table import Table
from distbp.data.windows import Windows, windows_of


@dataclass(frozen=True)
class SeriesCode:
    """A model's description of its series. `length` rows are a sample, and the target is `horizon` rows after
    the last of them. `time`, `group`: names of columns; group "": one series. `difference`: targets are
    changes since the last row."""

    length: int
    horizon: int
    time: str
    group: str = ""
    difference: bool = False

    def windows(
        self, groups: Sequence[str] | None, times: Array | None, rows: int, ahead: int, where: str
    ) -> Windows:
        """All windows of rows, which must be in the order of time. groups, times: (rows,), NaN for cells
        without a time; None: not known. ahead: how many rows must follow a window. where: the name of the
        table. Raises DataError if the rows are in another order, or if there is no window."""
        codes = None if groups is None else np.unique(np.array(groups, dtype=str), return_inverse=True)[1]
        if codes is not None and np.count_nonzero(np.diff(codes)) > codes.max(initial=0):
            raise DataError(
                f"{where}: rows of one {self.group!r} stand apart; give those of each one after the other, in"
                " the order of time"
            )
        if times is not None:
            back = np.diff(times) <= 0
            back &= True if codes is None else codes[1:] == codes[:-1]
            if back.any():
                raise DataError(
                    f"{where}: row {int(back.argmax()) + 1:,} is not later than the row before it, by"
                    f" {self.time!r}; give rows in the order of time"
                )
        found = windows_of(codes, rows, self.length, 1, ahead)
        if not len(found):
            raise DataError(
                f"{where}: {rows:,} rows, but one prediction takes {self.length + ahead} in the order of time"
                f"{' of one ' + repr(self.group) if self.group else ''}; give more"
            )
        return found


def in_time(
    table: Table, rows: Array, window: Window, times: Array, groups: Array | None
) -> tuple[Table, Windows]:
    """Sorts a split by group and time. Returns it with its windows. rows: (n,), the numbers of its rows in
    `times` and `groups`. Raises DataError if two rows of a group have the same time, or if there is no
    window."""
    time = times[rows]
    group = np.zeros(len(rows), np.int64) if groups is None else groups[rows]
    order = np.lexsort((time, group))
    same = (np.diff(time[order]) == 0) & (np.diff(group[order]) == 0)
    if same.any():
        first = int(same.argmax())
        one, other = sorted(table.row_number(int(order[first + k])) for k in range(2))
        raise DataError(
            f"{table.name}: rows {one} and {other} have one time; give each series a value of its own in the"
            " column data.group, or each row a time of its own"
        )
    of_rows = None if groups is None else group[order]
    found = windows_of(of_rows, len(rows), window.length, window.stride, window.horizon)
    if not len(found):
        raise DataError(
            f"{table.name}: {len(rows):,} rows{'' if groups is None else ' of several series'} make no window"
            f" of {window.length} rows and a target {window.horizon} after it; make data.windows.length"
            " shorter, or the set larger"
        )
    return (table if (np.diff(order) == 1).all() else table.some(order)), found


def windowed(table: Table, windows: Windows, series: SeriesCode) -> Table:
    """The windows of a sorted table as samples. The target, weight and row number of a sample are those of
    the row `horizon` rows after its last one."""
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
