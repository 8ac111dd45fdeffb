"""The header of CSV: tells whether the first line names the columns, and makes names unique."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from distbp.data.columns.arrow import arrow
from distbp.data.columns.cells import DATE, MISSING, NUMBER, matches


def has_header(first: Sequence[str], table: Any) -> tuple[bool, str]:
    """Returns whether the first line is a header, and why. A header has no cell that is a number, a date or a
    missing marker, and not all of its cells appear again in their columns. The first or last cell may be
    empty: pandas and R write an index without a name, and some lines end in a delimiter."""
    pa = arrow().pa
    names = first[not first[0] : len(first) - (not first[-1])]
    for name in names or first:
        cell = pa.array([name])
        if name in MISSING or matches(cell, NUMBER) or matches(cell, DATE):
            what = "empty" if not name else f"{name!r}, which is not a name"
            return False, f"no header: a cell of the first line is {what}"
    if _stands_below(table):
        return False, "no header: the cells of the first line stand in the rows below, too"
    if len(set(first)) < len(first):
        return True, "a header: the first line holds neither numbers nor dates"
    return True, "a header: the cells of the first line are names"


def _stands_below(table: Any) -> bool:
    """Whether each cell of the first line is in its column again, in a line that differs from the first."""
    compute = arrow().compute
    again = [compute.equal(column, column[0]) for column in table.columns]
    same = again[0]
    for one in again[1:]:
        same = compute.and_(same, one)
    others = compute.invert(same)
    return all(compute.any(compute.and_(one, others)).as_py() for one in again)


def apart(names: Sequence[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Makes names unique as pandas does: a, a.1. Returns all names, and the changed ones as (old, new)."""
    found: list[str] = []
    again: list[tuple[str, str]] = []
    for name in names:
        new, number = name, 0
        while new in found or (number and new in names):
            number += 1
            new = f"{name}.{number}"
        found.append(new)
        if new != name:
            again.append((name, new))
    return found, again
