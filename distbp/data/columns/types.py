"""The type of every column, from every cell: whole number, number, date, text, boolean.

A column is a whole number until a cell is none, then a number, then text: the last row counts as much as the
first. Text in typed files is looked at in the same way, so that a table has the same types in every format.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from distbp.core.arrays import Array
from distbp.data.columns import cells as c
from distbp.data.columns.arrow import arrow, is_text
from distbp.data.columns.reading import NamedTable
from distbp.data.columns.threads import ahead

COUNTED_LEVELS = 10_000  # of a column; more are "many"
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
class Facts:
    """What is known of a column. `type`: a key of `WORDS`. `why`: in words. `levels`: text -> rows, or None
    where they are more than are counted. `low`, `high`: of numbers, and of dates in seconds. `typed`: it is
    stored with a type other than text."""

    name: str
    type: str
    why: str
    rows: int
    missing: int
    levels: dict[str, int] | None
    low: float | None = None
    high: float | None = None
    typed: bool = False

    @property
    def numeric(self) -> bool:
        return self.type in ("whole", "number")


@dataclass
class _Finder:
    """The type of a column so far."""

    name: str
    deep: bool
    state: str | None = None
    stored: str = ""
    changed: str = ""
    rows: int = 0
    missing: int = 0
    levels: dict[str, int] | None = field(default_factory=dict)
    low: float = np.inf
    high: float = -np.inf
    tally: tuple[Any, Array] | None = None

    def see(self, piece: Any, row: int, table: NamedTable) -> None:
        self.rows += len(piece)
        coded = isinstance(piece, c.Coded)
        counts = piece.counts if coded else None
        gone = int(c.missing_cells(piece).sum()) if counts is None else len(piece) - int(counts.sum())
        self.missing += gone
        if gone == len(piece):
            return
        before, cells = self.state, piece
        if counts is not None and before != "text":  # else it is known what it is
            cells = piece.texts.filter(arrow().pa.array(counts > 0))
        elif counts is not None:
            cells = piece.texts
        if is_text(cells.type):
            self.state = next((kind for kind in _AFTER.get(before, ()) if _fits(kind, cells)), "text")
            if before != self.state and not self.changed:
                self._note(piece.plain() if coded else piece, row, table, before)
            self._count(piece.texts if coded else cells, counts)
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
        """Remembers the first cell that changed the type."""
        if before is None:  # the first piece: what its first cell looked like
            one = piece.drop_null().slice(0, 1)
            before = next((kind for kind in _AFTER[None] if _fits(kind, one)), "text")
            if before == "text" and (hint := c.comma_hint(one[0].as_py())):
                self.changed = f"{one[0].as_py()!r} is no number{hint}"
        if self.state in (before, "number") or before == "boolean":  # text of yes and no is found later
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

    def _count(self, text: Any, counts: Array | None = None) -> None:
        """counts: where the entries of a dictionary are given, how often each is there."""
        if self.levels is None:
            return
        if counts is None:
            found = arrow().compute.value_counts(text.drop_null())
            self._add(found.field(0), found.field(1).to_numpy(zero_copy_only=False))
            return
        if self.tally is not None and self.tally[0] is text:
            self.tally[1][:] += counts
        else:
            self._settle()
            self.tally = (text, counts)

    def _settle(self) -> None:
        """Adds what was counted by the entries of a dictionary."""
        if self.tally is not None:
            text, counts = self.tally
            self.tally = None
            used = np.flatnonzero(counts)
            self._add(text.take(arrow().pa.array(used)), counts[used])

    def _add(self, text: Any, counts: Array) -> None:
        if self.levels is None:
            return
        for level, count in zip(text.to_pylist(), counts.tolist(), strict=True):
            self.levels[level] = self.levels.get(level, 0) + count
        if len(self.levels) > COUNTED_LEVELS:
            self.levels = None

    def found(self) -> Facts:
        self._settle()
        kind, why = self.state or "empty", self.changed
        if kind == "text" and self.levels:
            words = {level.lower() for level in self.levels}
            if len(words) <= 2 and words <= {*c.TRUE, *c.FALSE}:
                kind, why = "boolean", f"all cells are {' or '.join(sorted(self.levels))}"
        if not why:
            why = f"stored as {self.stored}" if self.stored else f"all cells are {WORDS[kind]}"
            if kind == "text":
                zeros = sorted(v for v in self.levels or () if v[:1] == "0" and v.isdecimal() and len(v) > 1)
                why = f"{zeros[0]!r} has zeros in front" if zeros else _unread(self.levels or ()) or why
            elif kind == "empty":
                why = "every cell is missing"
        known = self.deep and np.isfinite(self.low)
        low, high = (self.low, self.high) if known else (None, None)
        return Facts(self.name, kind, why, self.rows, self.missing, self.levels, low, high, bool(self.stored))


def _unread(levels: Iterable[str]) -> str:
    """Why text is neither numbers nor dates, where all of it looks like them."""
    levels = list(levels)
    if levels and all(re.fullmatch(_GROUPED, level) for level in levels):
        return f"{levels[0]!r} is no number; write it without signs between thousands"
    if levels and all(re.fullmatch(_OTHER_DATE, level) for level in levels):
        return f"{levels[0]!r} is no date that is known; write dates as 2024-02-29"
    return ""


def survey(table: NamedTable, missing: Sequence[str], *, deep: bool = False) -> dict[str, Facts]:
    """The facts of every column, from one reading of the whole table in flat memory. `deep`: with ranges,
    missing cells, and the levels of numbers that are stored as such; else of columns that are stored with a
    type no more is read than shows that they are not empty, unless `missing` has numbers or dates. Raises
    DataError."""
    finders = {name: _Finder(name, deep) for name in table.names}
    typed = set() if deep or c.means_values(missing) else set(table.typed)
    for cells in table.beginnings(sorted(typed)) if typed else ():
        for name, piece in cells.items():
            finders[name].see(piece, 0, table)
    if rest := [name for name in table.names if name not in typed]:
        before: dict[str, Any] = {}
        for row, cells in ahead(table.pieces(rest)):
            for name, piece in cells.items():
                before[name] = c.cleaned(piece, missing, before.get(name))
                finders[name].see(before[name], row, table)
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
    """The type that holds both."""
    if before in (None, now):
        return now
    return "number" if {before, now} == {"whole", "number"} else "text"
