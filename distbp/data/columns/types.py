"""Finds the type of every column from all its cells: whole number, number, date, text, boolean.

A column is of whole numbers until a cell is not one, then of numbers, then of text; the last row counts as
much as the first. Text in typed files is examined in the same way, so a table has the same types in every
format.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from distbp.core.arrays import Array
from distbp.data.columns import cells as c
from distbp.data.columns.arrow import arrow, is_text
from distbp.data.columns.reading import NamedTable
from distbp.data.columns.store import Column, Growing, Levels, MemoryRoom
from distbp.data.columns.threads import Threads, ahead

COUNTED_LEVELS = 10_000  # the most levels of a column that are counted
WORDS = {
    "whole": "whole numbers",
    "number": "numbers",
    "date": "dates",
    "boolean": "yes or no",
    "text": "text",
    "other": "values of another kind",
    "empty": "empty",
}
_AFTER = {
    None: ("whole", "number", "date"),
    "whole": ("whole", "number"),
    "number": ("number",),
    "date": ("date",),
}
_GROUPED = r"[+-]?[0-9]{1,3}([,.' \u00a0\u202f][0-9]{3})*([.,][0-9]+)?"
_OTHER_DATE = r"[0-9]{1,4}([./-])[0-9]{1,2}\1[0-9]{1,4}( .*)?"


@dataclass
class ColumnFacts:
    """The facts about a column. `type`: a key of `WORDS`. `why`: the reason in words. `levels`: text -> rows;
    None if there are more than `COUNTED_LEVELS`. `low`, `high`: of numbers, and of dates in seconds. `typed`:
    stored with a type other than text. `read`: the cells as levels, if they were kept. `plain`: `why` only
    repeats the type."""

    name: str
    type: str
    why: str
    rows: int
    missing: int
    levels: dict[str, int] | None
    low: float | None = None
    high: float | None = None
    typed: bool = False
    read: Column | None = None
    plain: bool = False

    @property
    def numeric(self) -> bool:
        return self.type in ("whole", "number")


@dataclass
class _Finder:
    """The type of a column so far. For text with dictionaries, `coded` has the levels, `counts` the cells of
    each (that of -1, missing, first), and `kept` the level of every cell."""

    name: str
    deep: bool
    kept: Growing | None = None
    state: str | None = None
    stored: str = ""
    changed: str = ""
    rows: int = 0
    missing: int = 0
    levels: dict[str, int] | None = field(default_factory=dict)
    low: float = np.inf
    high: float = -np.inf
    coded: Levels = field(default_factory=Levels)
    counts: Array = field(default_factory=lambda: np.zeros(1, np.int64))

    def see(self, piece: Any, row: int, table: NamedTable) -> None:
        self.rows += len(piece)
        before, cells = self.state, piece
        coded = isinstance(piece, c.Coded)
        if not coded or self.levels is None:
            self.kept = None
        if coded:
            gone = self._see_levels(piece)
            if before != "text" and gone < len(piece):  # else the type does not change
                cells = piece.texts.filter(arrow().pa.array(piece.counts > 0))
            else:
                cells = piece.texts
        else:
            gone = int(c.missing_cells(piece).sum())
        self.missing += gone
        if gone == len(piece):
            return
        if is_text(cells.type):
            self.state = next((kind for kind in _AFTER.get(before, ()) if _fits(kind, cells)), "text")
            if before != self.state and not self.changed:
                self._note(piece.plain() if coded else piece, row, table, before)
            if not coded:
                self._count(cells)
        else:
            self.stored = str(piece.type)
            self.state = _wider(before, _stored_type(piece.type))
            if self.deep or self.state in ("boolean", "text"):
                self._count(c.as_levels(piece, numeric=self.state in ("whole", "number"))[0])
        if self.deep and self.state in ("whole", "number", "date"):
            values, _ = (c.as_dates if self.state == "date" else c.as_numbers)(cells)
            self.low = float(np.fmin.reduce(values, initial=self.low))
            self.high = float(np.fmax.reduce(values, initial=self.high))

    def _note(self, piece: Any, row: int, table: NamedTable, before: str | None) -> None:
        """Notes the first cell that changed the type."""
        if before is None:  # in the first piece, the type of the first cell counts
            one = piece.drop_null().slice(0, 1)
            before = next((kind for kind in _AFTER[None] if _fits(kind, one)), "text")
            if before == "text" and (hint := c.comma_hint(one[0].as_py())):
                self.changed = f"{one[0].as_py()!r} is not a number{hint}"
        if self.state in (before, "number") or before == "boolean":  # yes and no are found later
            return
        pattern = {"whole": c.WHOLE, "number": c.NUMBER, "date": c.DATE}[before]
        fits = arrow().compute.match_substring_regex(piece, pattern)
        strange = ~fits.fill_null(True).to_numpy(zero_copy_only=False)
        if before == "date" and not strange.any():
            strange = c.as_dates(piece)[1]
        index = int(strange.argmax())
        cell = piece[index].as_py()[:40]
        hint = c.comma_hint(cell)
        if not any(one.isdigit() for one in cell):
            hint = "; name it in data.missing if it means a missing cell"
        self.changed = f"{table.place(row + index)} is {cell!r}, after {WORDS[before]}{hint}"

    def _see_levels(self, piece: c.Coded) -> int:
        """Counts the levels of a piece. Returns the number of missing cells."""
        if self.levels is None:
            return len(piece) - int(piece.counts.sum())
        values = self.coded.of(piece)
        found = np.bincount(values + 1, minlength=len(self.coded) + 1)
        found[: len(self.counts)] += self.counts
        gone, self.counts = int(found[0] - self.counts[0]), found
        if self.kept is not None:
            self.kept.append(values)
        if np.count_nonzero(found[1:]) > COUNTED_LEVELS:
            self.levels = self.kept = None
        return gone

    def _count(self, text: Any) -> None:
        if self.levels is None:
            return
        found = arrow().compute.value_counts(text.drop_null())
        self._add(found.field(0).to_pylist(), found.field(1).to_numpy(zero_copy_only=False).tolist())

    def _add(self, text: Sequence[str], counts: Sequence[int]) -> None:
        if self.levels is None:
            return
        for level, count in zip(text, counts, strict=True):
            if count:
                self.levels[level] = self.levels.get(level, 0) + count
        if len(self.levels) > COUNTED_LEVELS:
            self.levels = None

    def found(self) -> ColumnFacts:
        texts = self.coded.whole()
        self._add(texts, self.counts[1 : len(texts) + 1].tolist())
        read = None if self.kept is None or not len(texts) else self.kept.column(texts)
        kind, why, plain = self.state or "empty", self.changed, False
        if kind == "text" and self.levels:
            words = {level.lower() for level in self.levels}
            if len(words) <= 2 and words <= {*c.TRUE, *c.FALSE}:
                kind, why, plain = "boolean", f"all cells are {' or '.join(sorted(self.levels))}", True
        if not why:
            if kind == "text":
                zeros = sorted(v for v in self.levels or () if v[:1] == "0" and v.isdecimal() and len(v) > 1)
                why = f"{zeros[0]!r} has zeros in front" if zeros else _unread(self.levels or ())
            elif kind == "empty":
                why = "every cell is missing"
        if not why:
            why = f"stored as {self.stored}" if self.stored else f"all cells are {WORDS[kind]}"
            plain = True
        known = self.deep and np.isfinite(self.low)
        low, high = (self.low, self.high) if known else (None, None)
        stored = bool(self.stored)
        return ColumnFacts(
            self.name, kind, why, self.rows, self.missing, self.levels, low, high, stored, read, plain
        )


def _unread(levels: Iterable[str]) -> str:
    """The reason that levels which look like numbers or dates are text; "" if they do not look so."""
    levels = list(levels)
    if levels and all(re.fullmatch(_GROUPED, level) for level in levels):
        return f"{levels[0]!r} is not a number; write it without signs between thousands"
    if levels and all(re.fullmatch(_OTHER_DATE, level) for level in levels):
        return f"{levels[0]!r} is not a date in a known format; write dates as 2024-02-29"
    return ""


def survey(
    table: NamedTable, missing: Sequence[str], *, deep: bool = False, room: MemoryRoom | None = None
) -> dict[str, ColumnFacts]:
    """The facts of every column. Reads the whole table once, in constant memory. deep: also find the ranges,
    missing cells and levels of columns stored as numbers. Without it, columns with a stored type are read
    only until a cell is not missing, unless `missing` has numbers or dates. room: if given, the cells of text
    with dictionaries are kept as levels, in memory within this room. Raises DataError."""
    finders = {
        name: _Finder(name, deep, None if room is None else Growing(np.int32, room)) for name in table.names
    }
    typed = set() if deep or c.means_values(missing) else set(table.typed)
    for cells in table.beginnings(sorted(typed)) if typed else ():
        for name, piece in cells.items():
            finders[name].see(c.cleaned(piece, missing), 0, table)
    if rest := [name for name in table.names if name not in typed]:
        before: dict[str, Any] = {}
        with Threads() as threads:
            for row, cells in ahead(table.pieces(rest)):

                def see(name: str, row: int = row, cells: Mapping[str, Any] = cells) -> None:
                    before[name] = c.cleaned(cells[name], missing, before.get(name))
                    finders[name].see(before[name], row, table)

                threads.map(see, cells)
    return {name: finder.found() for name, finder in finders.items()}


def _fits(kind: str, piece: Any) -> bool:
    if kind == "date":
        return c.matches(piece, c.DATE) and c.as_dates(piece)[1] is None
    return c.matches(piece, c.WHOLE) if kind == "whole" else c.numbers_of(piece) is not None


def _stored_type(kind: Any) -> str:
    types = arrow().pa.types
    if types.is_boolean(kind):
        return "boolean"
    if types.is_integer(kind):
        return "whole"
    if types.is_floating(kind) or types.is_decimal(kind):
        return "number"
    return "date" if types.is_timestamp(kind) or types.is_date(kind) else "other"


def _wider(before: str | None, now: str) -> str:
    """The narrowest type that includes both types."""
    if before in (None, now):
        return now
    return "number" if {before, now} == {"whole", "number"} else "text"
