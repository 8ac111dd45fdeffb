"""Makes the splits of a job from its files: types, kinds, rows of each split, the plan, and inputs.

The rows are split first. The plan is fitted only to the training rows; functions that fit get no others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from distbp.core import settings
from distbp.core.arrays import Array
from distbp.core.errors import DataError
from distbp.data.columns import keeping
from distbp.data.columns.cells import truth
from distbp.data.columns.choosing import Wanted, check_columns, chosen_kinds, uses_of
from distbp.data.columns.fitting import fit_column, moments
from distbp.data.columns.keeping import Opened
from distbp.data.columns.loading import Loaded, load_columns
from distbp.data.columns.noticing import check_target, notices, unseen_levels, unused_columns
from distbp.data.columns.plan import Plan, TargetCode
from distbp.data.columns.reading import NamedTable, open_raw
from distbp.data.columns.series import SeriesCode, in_time
from distbp.data.columns.splitting import NOBODY, OWNERS, split_rows
from distbp.data.columns.store import CHUNK_ROWS, Column, MemoryRoom, WrittenRows
from distbp.data.columns.threads import Threads
from distbp.data.columns.types import ColumnFacts, survey
from distbp.data.formats.tables import TableFiles
from distbp.data.table import Table, build, release_pages
from distbp.data.windows import Windows
from distbp.nn.losses.several import without_names

_CELLS_BYTES = 128 * 2**20  # cells of all splits up to this size stay in memory
_NUMBERS_BYTES, _TARGET_BYTES = 2**20, 32 * 2**20


def open_table(
    wanted: Wanted, sources: Mapping[str, TableFiles | NamedTable], folder: Path, *, confined: bool = False
) -> Opened:
    """Opens and encodes the tables of a job. Tables that an earlier start of the same job has prepared are
    used again. Raises DataError, and JobError with every column that the table does not have."""
    place = keeping.place_of(wanted, sources, folder, confined)
    kept = None if place is None else keeping.load(place)
    if kept is not None:
        return kept
    with keeping.Pending(place) as pending:
        opened = _prepared(wanted, sources, folder, confined, pending)
        pending.finish(opened)
    return opened


def _prepared(
    wanted: Wanted,
    sources: Mapping[str, TableFiles | NamedTable],
    folder: Path,
    confined: bool,
    pending: keeping.Pending,
) -> Opened:
    skip, plan = wanted.bad_rows == "skip", wanted.plan
    raw = _raw(sources["train"], folder, confined, skip, None if plan is None else plan.header)
    check_columns(wanted, raw)
    room = MemoryRoom()
    facts = survey(raw, wanted.missing, room=room)
    if plan is None:
        chosen, notes = chosen_kinds(wanted, facts)
    else:
        roles = {wanted.weight, wanted.group, wanted.time}
        chosen, notes = {}, unused_columns(plan, raw.names, raw.name, roles)
    uses = uses_of(wanted, chosen, facts)
    read = {name: fact.read for name, fact in facts.items() if fact.read is not None}
    train = load_columns(raw, uses, wanted.missing, skip=skip, read=read, room=room)
    owner = _split(wanted, train, raw.name)
    if plan is None:
        in_files = isinstance(sources["train"], TableFiles)
        for target in wanted.targets.values():
            notes += check_target(train.columns[target.column], owner == 0, target, raw.name, in_files)
        plan = _fit(wanted, chosen, facts, train, owner == 0, raw)
    else:
        notes += unseen_levels(plan, train.columns)
        plan = replace(plan, weight=wanted.weight or "", reading=raw.reading)
    by_class = {target.column for target in wanted.targets.values() if target.by_class}
    notes += notices(plan, train.columns, owner, by_class)
    tables = _tables(wanted, plan, train, owner, raw, facts, pending)
    windows: dict[str, Windows] = {}
    for number, split in enumerate(OWNERS):
        if wanted.window is not None and split in tables:
            tables[split], windows[split] = _series(wanted, train, tables[split], owner == number)
    for split, source in sources.items():
        if split != "train":
            header = raw.dialect.header if raw.dialect else None
            other = _raw(source, folder, confined, skip, header)
            lost = [name for name in uses if name not in other.names]
            if lost:
                raise DataError(
                    f"{other.name}: has no column {', '.join(map(repr, lost))}, which training has"
                )
            loaded = load_columns(other, uses, wanted.missing, skip=skip)
            whole = np.zeros(len(loaded), np.int8)
            whole[[] if loaded.kept is None else ~loaded.kept] = NOBODY
            table = _tables(wanted, plan, loaded, whole, other, facts, keeping.Pending(None))["train"]
            if wanted.window is not None:
                table, windows[split] = _series(wanted, loaded, table, whole == 0)
            tables[split] = table
    return Opened(tables, plan, (*notes, *plan.units), windows)


def _series(wanted: Wanted, loaded: Loaded, table: Table, rows: Array) -> tuple[Table, Windows]:
    """The rows of a split in the order of time, and its windows. rows: (n,) bool, the rows of the split.
    Raises DataError."""
    assert wanted.time is not None and wanted.window is not None  # the job was checked
    groups = None if wanted.group is None else loaded.columns[wanted.group].classes()
    return in_time(table, np.flatnonzero(rows), wanted.window, loaded.columns[wanted.time].values, groups)


def _raw(
    source: TableFiles | NamedTable, folder: Path, confined: bool, skip: bool, header: bool | None = None
) -> NamedTable:
    if isinstance(source, TableFiles):
        return open_raw(source, folder, confined=confined, skip=skip, header=header)
    return source


def _split(wanted: Wanted, train: Loaded, name: str) -> Array:
    """The number of each row's split (see `split_rows`)."""
    shares = {split: share for split, share in wanted.shares.items() if share}
    # Rows are stratified by the first target that has classes.
    each = [(train.columns[one.column], one.by_class) for one in wanted.targets.values()]
    classed = [column for column, by_class in each if by_class or column.levels is not None]
    way = wanted.way
    if way == "auto":
        grouped = wanted.group and wanted.window is None
        way = "group" if grouped else "time" if wanted.time else "stratified" if classed else "random"
    target = classed[0] if classed else each[0][0]
    classes = target.classes() if way == "stratified" and shares else None
    groups = train.columns[wanted.group].classes() if wanted.group else None
    times = train.columns[wanted.time].values if wanted.time else None
    return split_rows(
        len(train), shares, way, wanted.seed,
        kept=train.kept, classes=classes, groups=groups, times=times, name=name,
    )  # fmt: skip


def _fit(
    wanted: Wanted,
    chosen: Mapping[str, Any],
    facts: Mapping[str, ColumnFacts],
    train: Loaded,
    rows: Array,
    raw: NamedTable,
) -> Plan:
    with Threads() as threads:
        given = [(n, kind, train.columns[n], rows, facts[n].numeric) for n, kind in chosen.items()]
        columns = tuple(threads.map(lambda one: fit_column(*one), given))
    targets = {}
    for output, said in wanted.targets.items():
        targets[output] = TargetCode(said.column)
        if said.scaled or said.clipped:
            found = moments(train.columns[said.column], rows)
            center, spread = (found.mean, found.deviation) if said.scaled else (0.0, 1.0)
            limits = (found.low, found.high) if said.clipped else ()
            targets[output] = TargetCode(said.column, center, spread, limits)
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
    header = raw.dialect.header if raw.dialect else None
    return Plan(columns, targets, wanted.missing, header, series, wanted.weight or "", raw.reading)


def _tables(
    wanted: Wanted,
    plan: Plan,
    loaded: Loaded,
    owner: Array,
    raw: NamedTable,
    facts: Mapping[str, ColumnFacts],
    pending: keeping.Pending,
) -> dict[str, Table]:
    """The table of each split that has rows, in the order of the whole table. Columns that are only inputs
    are taken out of `loaded`, for their space is freed."""
    counts = [int((owner == number).sum()) for number in range(len(OWNERS))]
    cells = _cells(wanted, plan, loaded, owner, counts, pending)
    found, rows = {}, np.empty(len(owner), bool)
    for number, split in enumerate(OWNERS):
        if not counts[number]:
            continue
        np.equal(owner, number, out=rows)
        numbers = WrittenRows((counts[number],), np.int32 if len(owner) < 2**31 else np.int64, _NUMBERS_BYTES)
        place = 0
        for start in range(0, len(owner), CHUNK_ROWS):
            part = np.flatnonzero(rows[start : start + CHUNK_ROWS]) + start
            numbers.put(place, part)
            place += len(part)
        weights = None
        if wanted.weight is not None:
            weights = np.concatenate(list(loaded.columns[wanted.weight].chunks(rows)))
        targets = {
            output: _targets(code, loaded.columns[code.name], rows, facts[code.name])
            for output, code in plan.targets.items()
        }
        found[split] = build(
            cells[number],
            without_names(targets),
            weights,
            row_numbers=numbers.whole(),
            name=raw.name if counts[number] == sum(counts) else f"{raw.name}, {split} rows",
            targets_name=raw.name if plan.several else f"{raw.name}, column {plan.target.name!r}",
            marks=raw.marks,
        )
    if loaded.skipped:
        found["train"] = replace(found["train"], skipped=dict(loaded.skipped))
    return found


def _targets(code: TargetCode, column: Column, rows: Array, facts: ColumnFacts) -> Array:
    """The targets of the selected rows, in memory or mapped from an unnamed file. Booleans of typed files
    stay booleans."""
    numbers = code.scaled or bool(code.limits)  # values, not classes
    if column.levels is not None:
        names = np.array(column.levels or ("",), dtype=str)
        said = [truth(level) for level in column.levels]
        if facts.typed and facts.type == "boolean" and None not in said:
            names = np.array(said, dtype=bool)
        dtype, parts = names.dtype, (names[part] for part in column.chunks(rows))
    else:
        dtype = np.dtype(np.int64 if facts.type == "whole" and not numbers else np.float64)
        parts = (code.scale(part) if code.scaled else part for part in column.chunks(rows))
    store, start = WrittenRows((int(rows.sum()),), dtype, _TARGET_BYTES), 0
    for part in parts:
        store.put(start, part)
        start += len(part)
    values = store.whole()
    return values[:, None] if numbers and column.levels is None else values


def _cells(
    wanted: Wanted,
    plan: Plan,
    loaded: Loaded,
    owner: Array,
    counts: list[int],
    pending: keeping.Pending,
) -> list[Array]:
    """The cells of each split, (rows, cells). Small ones are in memory. Others are mapped from files, which
    are kept for the next start or have no name. Up to DISTBP_PREPARE_BYTES their pages stay resident.

    Columns that are only inputs are taken out of `loaded`, and freed piece by piece as the cells are written.
    """
    dtype = np.dtype(wanted.dtype)
    size, limit = sum(counts) * plan.width * dtype.itemsize, settings.get("DISTBP_PREPARE_BYTES")
    small = size <= min(_CELLS_BYTES, limit)
    files = [None if small else pending.cells(split, size) for split in OWNERS]
    stores = [
        WrittenRows((count, plan.width), dtype, size if small else 0, file)
        for count, file in zip(counts, files, strict=True)
    ]
    starts = range(0, len(owner), CHUNK_ROWS)
    pieces = [np.bincount(owner[s : s + CHUNK_ROWS] + 1, minlength=len(counts) + 1)[1:] for s in starts]
    firsts = np.cumsum([[0] * len(counts), *pieces], axis=0)

    columns = {code.name: loaded.columns[code.name] for code in plan.columns}
    later = {wanted.weight, wanted.group, wanted.time, *(code.name for code in plan.targets.values())}
    spent = [loaded.columns.pop(name) for name in columns if name not in later]

    def write(number: int) -> None:
        part = slice(starts[number], starts[number] + CHUNK_ROWS)
        values = {c.name: (columns[c.name].values[part], columns[c.name].levels) for c in plan.columns}
        cells = np.empty((len(owner[part]), plan.width), dtype)
        plan.encode_piece(values, cells)
        for split, store in enumerate(stores):
            store.put(int(firsts[number, split]), np.compress(owner[part] == split, cells, axis=0))
        for name in values:
            release_pages(columns[name].values)
        for column in spent:
            column.free_rows(part)

    with Threads() as threads:
        threads.map(write, range(len(starts)))
    found = [store.whole() if count else np.empty(0) for store, count in zip(stores, counts, strict=True)]
    return (
        [np.asarray(cells) for cells in found] if size <= limit else found
    )  # plain arrays, whose pages are not released, in place of memmaps
