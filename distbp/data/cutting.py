"""Cuts tables of series into tables of windows with a target for each step (see `distbp.data.series`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from distbp.core.arrays import Array
from distbp.core.errors import DataError
from distbp.data.given import as_array
from distbp.data.sequences import with_lengths
from distbp.data.series import take_windows, windows_of
from distbp.data.table import Table
from distbp.data.targets import Classes, Known, Meaning, as_taken, understand
from distbp.nn.losses.base import Loss


def in_a_row(given: tuple[Any, ...], name: str) -> tuple[Any, ...]:
    """(inputs, targets, ...) of a user, with the targets of each series in one row: (rows, steps * outputs).
    `targets` is an array (rows, steps) or (rows, steps, outputs), or a list of arrays, which may have
    different lengths. Raises DataError."""
    x, y, *rest = given
    if y is None:
        return given
    what = f"the targets of {name}"
    for part in y if isinstance(y, list | tuple) else [y]:
        if as_array(part, what, labels=True).dtype.kind == "U":
            raise DataError(f"{what} are text; give each step the number of its class, from 0 on")
    targets, own = with_lengths(y, what)
    if own is None:
        whole = as_array(y, what, labels=True)
        return x, whole.reshape(len(whole), -1) if whole.ndim == 3 else whole, *rest
    inputs, lengths = with_lengths(x, name)
    if lengths is None or not np.array_equal(lengths, own):
        raise DataError(f"{name}: the targets of a series must have as many steps as its inputs")
    steps = np.shape(inputs)[1]
    wide = np.zeros((len(targets), steps, *targets.shape[2:]), targets.dtype)
    wide[:, : targets.shape[1]] = targets[:, :steps]
    return {"inputs": inputs, "lengths": lengths}, wide.reshape(len(wide), -1), *rest


def cut(table: Table, steps: int) -> Table:
    """Cuts a table of series into windows of `steps` steps. The table's inputs are (rows, all steps, ...),
    and its targets (rows, all steps * outputs). The last window of a series is padded; padding weighs 0.
    Raises DataError for other targets, and if all series have length 0."""
    count = table.inputs.shape[1]
    lengths = np.full(len(table), count) if table.lengths is None else table.lengths
    series, first = windows_of(lengths, steps)
    if not len(series):
        raise DataError(f"{table.name}: all series have length 0; give one that has a step")
    own = np.minimum(lengths[series] - first, steps)
    real = np.arange(steps) < own[:, None]
    weights = None if table.weights is None else table.weights[series][:, None] * real
    if weights is None and not real.all():
        weights = real.astype(np.float64)
    targets = None
    if table.targets is not None:
        each = _of_steps(table, count)
        targets = np.ascontiguousarray(take_windows(each, series, first, steps).reshape(len(series), -1))
    numbers = np.arange(len(table)) if table.row_numbers is None else table.row_numbers - table.first_row
    return replace(
        table,
        inputs=take_windows(table.inputs, series, first, steps),
        targets=targets,
        weights=weights,
        row_numbers=table.first_row + numbers[series],
        lengths=own,
        begins=first == 0,
    )


def _of_steps(table: Table, count: int) -> Array:
    """The targets as (series, steps, outputs)."""
    targets = table.targets
    assert targets is not None
    if targets.ndim == 1 or targets.shape[1] % count:
        shape = "one for each row" if targets.ndim == 1 else f"of shape {targets.shape}"
        raise DataError(
            f"{table.targets_name or table.name}: windows of series need a target for each step, an array"
            f" (rows, steps) or (rows, steps, outputs) with {count} steps, but the targets are {shape}"
        )
    return targets.reshape(len(targets), count, -1)


def real_steps(table: Table) -> Array:
    """Which steps are not padding, (windows, steps) bool."""
    assert table.lengths is not None
    return np.asarray(np.arange(table.inputs.shape[1]) < table.lengths[:, None])


def understand_steps(
    tables: Mapping[str, Table],
    loss: Loss,
    outputs: int | None,
    dtype: np.dtype[Any],
    known: Known | None = None,
) -> Meaning:
    """`understand` for windows. The targets become labels (windows, steps) or values (windows, steps *
    outputs); padding has the label 0 or the value 0. Raises DataError."""
    steps = {name: _steps(table) for name, table in tables.items()}
    meaning = understand(steps, loss, outputs, dtype, known=known)
    placed = {name: _placed(tables[name], targets) for name, targets in meaning.targets.items()}
    return replace(meaning, targets=placed)


def steps_as_taken(
    table: Table, loss: Loss, outputs: int, dtype: np.dtype[Any], classes: Classes | None
) -> Array:
    """`as_taken` for windows; see `understand_steps`. Raises DataError."""
    return _placed(table, as_taken(_steps(table), loss, outputs, dtype, classes))


def _steps(table: Table) -> Table:
    """A table of targets only, with a row for each step that is not padding, and the number of its series."""
    real = real_steps(table)
    targets = None if table.targets is None else table.targets.reshape(*real.shape, -1)[real]
    numbers = np.repeat([table.row_number(row) for row in range(len(table))], real.sum(axis=1))
    nothing = np.zeros((len(numbers), 1), np.uint8)
    return Table(nothing, targets, row_numbers=numbers, name=table.name, targets_name=table.targets_name)


def _placed(table: Table, targets: Array) -> Array:
    """Puts the targets of the rows of `_steps` back at the places of their steps: (windows, steps *
    outputs)."""
    real = real_steps(table)
    windows = np.zeros((*real.shape, *targets.shape[1:]), targets.dtype)
    windows[real] = targets
    return windows.reshape(len(windows), -1)
