"""Reads the columns that a job uses as numbers, and finds the rows that cannot be used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from distbp.core.arrays import Array
from distbp.core.errors import DataError
from distbp.data.columns.reading import NamedTable
from distbp.data.columns.store import Column, GrowingColumn, MemoryRoom
from distbp.data.columns.threads import Threads, ahead

_READ_AS = {"number": "a number", "date": "a date", "boolean": "yes or no", "level": "text"}


class Use(NamedTuple):
    """How a column is read. `reads`: number, date, boolean or level. `numeric`: its levels are texts of
    numbers. `role`: "target", "weight", "group" or "time", whose cells may not be missing; "": an input."""

    reads: str
    numeric: bool = False
    role: str = ""


@dataclass
class Loaded:
    """`columns`: by name, with all rows. `kept`: (n,) bool, False for rows that are left out; None: all are
    kept. `skipped`: the number of rows left out, by reason."""

    columns: dict[str, Column]
    kept: Array | None
    skipped: dict[str, int]

    def __len__(self) -> int:
        """The rows of the table, including those left out."""
        return len(next(iter(self.columns.values())))


@dataclass
class UnusableRows:
    """The unusable rows. `counts`: their number by reason. `first`: the first one, in words."""

    counts: dict[str, int] = field(default_factory=dict)
    first: str = ""

    def mark(self, bad: Array, found: Array, reason: str, said: str) -> None:
        """Adds the rows in `found` to those in `bad`, both (n,) bool. said: about the first, in words."""
        self.first = self.first or said
        new = found & ~bad
        if new.any():
            self.counts[reason] = self.counts.get(reason, 0) + int(new.sum())
        bad |= found


def load_columns(
    table: NamedTable,
    uses: Mapping[str, Use],
    missing: Sequence[str],
    *,
    skip: bool | None,
    read: Mapping[str, Column] = MappingProxyType({}),
    room: MemoryRoom | None = None,
) -> Loaded:
    """Reads columns. A bad cell raises DataError with its place; with `skip`, its row is left out and
    counted. skip: None: an error does not mention that choice. read: columns that were read before as
    levels. room: for columns in memory."""
    ready = {n: read[n] for n, use in uses.items() if n in read and use.reads == "level" and not use.numeric}
    if len(ready) == len(uses):  # at least one column is read, to count the rows
        ready.popitem()
    room = MemoryRoom() if room is None else room
    grown = {n: GrowingColumn(use.reads, room, use.numeric) for n, use in uses.items() if n not in ready}
    looked_at = [n for n, use in uses.items() if n in grown or use.role]
    bad_rows, kept = UnusableRows(), []
    with Threads() as threads:
        for row, cells in ahead(table.pieces(list(grown))):
            bad = np.zeros(len(next(iter(cells.values()))), bool)

            def look(
                name: str, row: int = row, cells: Mapping[str, Any] = cells, count: int = len(bad)
            ) -> list[_Problem]:
                if name in ready:
                    values, strange = ready[name].values[row : row + count], None
                else:
                    values, strange = grown[name].append(cells[name], missing)
                return [*_problems(table, row, name, uses[name], values, strange, cells.get(name))]

            for found in threads.map(look, looked_at):
                for problem in found:
                    bad_rows.mark(bad, *problem)
            if bad_rows.first and not skip:
                raise DataError(_refusal(bad_rows.first, skip is not None))
            kept.append(~bad)
    keep = np.concatenate(kept)
    if not keep.any():
        raise DataError(f"{bad_rows.first}. All {len(keep):,} rows are bad, so none is left; mend the data")
    columns = {n: ready[n] if n in ready else grown[n].column() for n in uses}
    return Loaded(columns, None if keep.all() else keep, {**table.skipped, **bad_rows.counts})


def weights_of(table: NamedTable, column: str, missing: Sequence[str]) -> Array | None:
    """The weights of the rows, (n,); None if the table has no such column. Raises DataError."""
    if not column or column not in table.names:
        return None
    loaded = load_columns(table, {column: Use("number", role="weight")}, missing, skip=None)
    return np.asarray(loaded.columns[column].values)


class _Problem(NamedTuple):
    """`found`: (n,) bool, the unusable cells of a piece. `reason`: for all of them. `said`: about the first,
    in words."""

    found: Array
    reason: str
    said: str


def _problems(
    table: NamedTable, row: int, name: str, use: Use, values: Array, strange: Array | None, raw: Any
) -> Iterator[_Problem]:
    if strange is not None:
        what = _READ_AS[use.reads]
        said = _said(table, row, strange, name, raw, f"is not {what}")
        yield _Problem(strange, f"no {what.removeprefix('a ')} in {name!r}", said)
    if use.reads == "number":
        infinite = np.isinf(values)
        if infinite.any():
            said = _said(table, row, infinite, name, raw, "is not a finite number")
            yield _Problem(infinite, f"Inf in {name!r}", said)
        if use.role == "weight" and (values < 0).any():
            said = _said(table, row, values < 0, name, raw, "is a weight below 0")
            yield _Problem(values < 0, "weight below 0", said)
    if use.role:
        gone = values < 0 if use.reads == "level" else np.isnan(values)
        if gone.any():
            where = f"{table.place(row + int(gone.argmax()))}, column {name!r}"
            yield _Problem(gone, f"missing {use.role}", f"{where}: the {use.role} is missing")


def _said(table: NamedTable, row: int, found: Array, name: str, raw: Any, what: str) -> str:
    index = int(found.argmax())
    shown = raw[index].as_py()
    shown = repr(shown[:40]) if isinstance(shown, str) else str(shown)
    return f"{table.place(row + index)}, column {name!r}: {shown} {what}"


def _refusal(first: str, choice: bool) -> str:
    ways = ["Mend it"]
    if "is no" in first and choice:
        ways.append("name the text in data.missing if it means a missing cell")
    ways.append("set bad_rows: skip" if choice else "leave such rows out")
    return f"{first}. {', '.join(ways[:-1])}, or {ways[-1]}"
