"""The message for an unknown name of a column, with the name that was probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Sequence


def unknown_column(name: str, known: Sequence[str]) -> str:
    """The text of a fault about a column that the table does not have."""
    low = {one.lower(): one for one in known}
    near = difflib.get_close_matches(name.lower(), low, n=1)
    hint = f"; did you mean {low[near[0]]!r}?" if near else ";"
    shown = ", ".join(known[:20]) + (", ..." if len(known) > 20 else "")
    numbered = list(known) == list(map(str, range(len(known))))
    header = "; no header was found: say header: true if the first line holds the names" if numbered else ""
    return f"{name!r} is not a column of the table{hint} columns: {shown}{header}"
