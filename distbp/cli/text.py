"""Formats tables, ages and sizes for the command line."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from distbp.run.epoch_table import number
from distbp.run.live import duration


def table(heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table as text. Columns of numbers are aligned to the right. None is an empty cell."""
    texts = [[cell_text(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(heads, *texts, strict=True)]
    right = [
        bool(rows) and all(isinstance(row[i], int | float | None) for row in rows) for i in range(len(heads))
    ]

    def line(cells: Sequence[str]) -> str:
        placed = [
            cell.rjust(width) if to_the_right else cell.ljust(width)
            for cell, width, to_the_right in zip(cells, widths, right, strict=True)
        ]
        return "  ".join(placed).rstrip()

    return "\n".join([line(heads), *(line(row) for row in texts)])


def cell_text(cell: Any) -> str:
    if cell is None:
        return ""
    if isinstance(cell, float):
        return number(cell)
    return f"{cell:,}" if isinstance(cell, int) and not isinstance(cell, bool) else str(cell)


def ago(moment: float | None) -> str:
    """The age of a moment in words, such as "5 s ago". `moment`: seconds since 1970; None: never."""
    if moment is None:
        return "never"
    seconds = max(0.0, time.time() - moment)
    if seconds >= 2 * 86400:
        return f"{int(seconds // 86400)} days ago"
    return f"{duration(float(round(seconds))).replace('.0 s', ' s')} ago"


def flat(value: Any, path: str = "") -> dict[str, Any]:
    """The leaves of nested mappings and lists, by their dotted paths."""
    if isinstance(value, Mapping):
        items: Any = value.items()
    elif isinstance(value, list | tuple):
        items = enumerate(value)
    else:
        return {path: value}
    found: dict[str, Any] = {}
    for name, inner in items:
        found |= flat(inner, f"{path}.{name}" if path else str(name))
    return found
