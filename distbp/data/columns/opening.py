"""From the files of a job to its splits: types, kinds, rows of each split, the plan, and inputs.

The rows are split first. The plan is fitted to the training rows: no function that fits is given others.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from distbp.core import settings
from distbp.core.arrays import Array
from distbp.core.errors import DataError
from distbp.data.columns.choosing import Wanted, check_columns, chosen_kinds, uses_of
from distbp.data.columns.fitting import fit_column, moments
from distbp.data.columns.loading import Loaded, load_columns
from distbp.data.columns.noticing import notices
from distbp.data.columns.plan import Plan, TargetCode
from distbp.data.columns.reading import NamedTable, open_raw
from distbp.data.columns.series import SeriesCode, in_order
from distbp.data.columns.splitting import split_rows
from distbp.data.columns.store import CHUNK_ROWS, Column
from distbp.data.columns.types import Facts, survey
from distbp.data.formats.tables import TableFiles
from distbp.data.table import Table, build, release_pages
from distbp.data.windows import Windows, windows_of


@dataclass(frozen=True)
class Opened:
    """The splits of a job, ready for the network, the plan that made them, and what to tell. `windows`: by
    split, where the samples are windows of the rows of the tables."""

    tables: Mapping[str, Table]
    plan: Plan
    notes: tuple[str, ...]
    windows: Mapping[str, Windows] = field(default_factory=dict)


def open_table(
    wanted: Wanted, sources: Mapping[str, TableFiles | NamedTable], folder: Path, *, confined: bool = False
) -> Opened:
    """Raises DataError; JobError with every column that the table does not have."""
    skip = wanted.bad_rows == "skip"
    raw = _raw(sources["train"], folder, confined, skip)
    check_columns(wanted, raw)
    facts = survey(raw, wanted.missing)
    chosen, notes = chosen_kinds(wanted, facts)
    uses = uses_of(wanted, chosen, facts)
    train = load_columns(raw, uses, wanted.missing, skip)
    parts = _split(wanted, train, raw.name)
    _check_target(train.columns[wanted.target], parts["train"], wanted.target, raw.name)
    plan = _fit(wanted, chosen, facts, train, parts["train"], raw)
    tables, windows = {}, {}
    for split, part in parts.items():
        rows, found = _series(wanted, train, part, f"{raw.name}, {split} rows")
        windows.update({} if found is None else {split: found})
        tables[split] = _table(wanted, plan, train, rows, raw, facts, split)
    for split, source in sources.items():
        if split != "train":
            header = raw.dialect.header if raw.dialect else None
            other = _raw(source, folder, confined, skip, header)
            lost = [name for name in uses if name not in other.names]
            if lost:
                raise DataError(
                    f"{other.name}: has no column {', '.join(map(repr, lost))}, which training has"
                )
            loaded = load_columns(other, uses, wanted.missing, skip)
            rows, found = _series(wanted, loaded, np.arange(len(loaded)), other.name)
            windows.update({} if found is None else {split: found})
            tables[split] = _table(wanted, plan, loaded, rows, other, facts, "")
    notes += notices(plan, train.columns, parts, wanted.by_class)
    if plan.target.scaled:
        notes.append(
            f"losses and metrics of values are in deviations of {wanted.target!r} ({plan.target.spread:.4g});"
            " predictions are in its own units"
        )
    return Opened(tables, plan, tuple(notes), windows)


def _series(wanted: Wanted, loaded: Loaded, rows: Array, name: str) -> tuple[Array, Windows | None]:
    """The rows of a split, in the order of time where the samples are windows, and those. Raises
    DataError."""
    window = wanted.window
    if window is None:
        return rows, None
    assert wanted.time is not None  # so the job says
    groups = None if wanted.group is None else loaded.columns[wanted.group]
    rows = in_order(rows, loaded.columns[wanted.time], groups, name)
    of_rows = None if groups is None else groups.values[rows]
    found = windows_of(of_rows, len(rows), window.length, window.stride, window.horizon)
    if not len(found):
        raise DataError(
            f"{name}: {len(rows):,} rows{' of several series' if groups else ''} make no window of"
            f" {window.length} rows and a target {window.horizon} after it; make data.windows.length"
            " shorter, or the set larger"
        )
    return rows, found


def _raw(
    source: TableFiles | NamedTable, folder: Path, confined: bool, skip: bool, header: bool | None = None
) -> NamedTable:
    if isinstance(source, TableFiles):
        return open_raw(source, folder, confined=confined, skip=skip, header=header)
    return source


def _split(wanted: Wanted, train: Loaded, name: str) -> dict[str, Array]:
    shares = {split: share for split, share in wanted.shares.items() if share}
    target = train.columns[wanted.target]
    way = wanted.way
    if way == "auto":
        by_class = wanted.by_class or target.levels is not None
        grouped = wanted.group and wanted.window is None
        way = "group" if grouped else "time" if wanted.time else "stratified" if by_class else "random"
    if not shares:
        return {"train": np.arange(len(train))}
    classes = None
    if way == "stratified":
        classes = target.values
        if target.levels is None:
            classes = np.unique(classes, return_inverse=True)[1]
    groups = train.columns[wanted.group].values if wanted.group else None
    times = train.columns[wanted.time].values if wanted.time else None
    return split_rows(
        len(train), shares, way, wanted.seed, classes=classes, groups=groups, times=times, name=name
    )


def _check_target(column: Column, rows: Array, name: str, table: str) -> None:
    first = column.values[rows[0]]
    if all((part == first).all() for part in column.chunks(rows)):
        shown = column.levels[int(first)] if column.levels is not None else f"{first:g}"
        raise DataError(
            f"{table}: the target {name!r} is {shown} in all training rows, so that there is nothing to"
            " learn;"
            " give rows with other values, or another target"
        )


def _fit(
    wanted: Wanted,
    chosen: Mapping[str, Any],
    facts: Mapping[str, Facts],
    train: Loaded,
    rows: Array,
    raw: NamedTable,
) -> Plan:
    columns = tuple(
        fit_column(name, kind, train.columns[name], rows, facts[name].numeric)
        for name, kind in chosen.items()
    )
    target = TargetCode(wanted.target)
    if wanted.scaled:
        target = TargetCode(wanted.target, *moments(train.columns[wanted.target], rows))
    series = None
    if wanted.window is not None:
        assert wanted.time is not None
        series = SeriesCode(
            wanted.window.length,
            wanted.window.horizon,
            wanted.time,
            wanted.group or "",
            wanted.window.difference,
        )
    return Plan(columns, target, wanted.missing, raw.dialect.header if raw.dialect else None, series)


def _table(
    wanted: Wanted,
    plan: Plan,
    loaded: Loaded,
    rows: Array,
    raw: NamedTable,
    facts: Mapping[str, Facts],
    split: str,
) -> Table:
    inputs = _encoded(plan, loaded.columns, rows, np.dtype(wanted.dtype))
    weights = None if wanted.weight is None else loaded.columns[wanted.weight].values[rows]
    whole = len(rows) == len(loaded)
    found = build(
        inputs,
        _targets(plan.target, loaded.columns[wanted.target], rows, facts[wanted.target].type),
        weights,
        row_numbers=loaded.numbers[rows],
        name=f"{raw.name}, {split} rows" if split and not whole else raw.name,
        targets_name=f"{raw.name}, column {wanted.target!r}",
        marks=raw.marks,
    )
    if loaded.skipped and split in ("", "train"):
        found = Table(**{**vars(found), "skipped": dict(loaded.skipped)})
    return found


def _targets(code: TargetCode, column: Column, rows: Array, kind: str) -> Array:
    if column.levels is not None:
        return np.array(column.levels or ("",), dtype=str)[column.values[rows]]
    values = column.values[rows]
    if code.scaled:
        return np.asarray(code.scale(values))[:, None]
    return values.astype(np.int64) if kind == "whole" else values


def _encoded(plan: Plan, columns: Mapping[str, Column], rows: Array, dtype: np.dtype[Any]) -> Array:
    """The inputs: in memory up to DISTBP_PREPARE_BYTES, else mapped from an unnamed temporary file."""
    shape = (len(rows), plan.width)
    pieces = [rows[start : start + CHUNK_ROWS] for start in range(0, len(rows), CHUNK_ROWS)]
    if len(rows) * plan.width * dtype.itemsize <= settings.get("DISTBP_PREPARE_BYTES"):
        out = np.empty(shape, dtype)
        for start, piece in zip(range(0, len(rows), CHUNK_ROWS), pieces, strict=True):
            plan.encode(columns, [piece], out[start : start + len(piece)])
            _release(columns)
        return out
    with tempfile.TemporaryFile() as file:  # the mapping keeps the space; it is freed with the array
        part = np.empty((CHUNK_ROWS, plan.width), dtype)
        for piece in pieces:
            plan.encode(columns, [piece], part[: len(piece)])
            file.write(part[: len(piece)].data)
            _release(columns)
        file.flush()
        return np.memmap(file, dtype=dtype, mode="r", shape=shape)


def _release(columns: Mapping[str, Column]) -> None:
    for column in columns.values():
        release_pages(column.values)
