"""Text around the cells of CSV: lines above the table, and runs of blanks between cells."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

_LOOKED_AT = 200  # lines
_ABOVE = 50  # the most lines of a title or a comment above the table
_ALIKE = 0.9  # the least share of the lines below that have the most common number of cells


class SingleBlanks:
    """A stream that reads another stream of bytes, turns each run of blanks and tabs into one blank, and
    removes blanks at the ends of lines. Blanks between quotes stay."""

    closed = False

    def __init__(self, stream: Any, quote: str) -> None:
        self._stream, self._rest, self._quote = stream, b"", quote.encode()

    def read(self, count: int = -1) -> bytes:
        while True:
            piece = self._stream.read(count if count < 0 else max(1, count - len(self._rest)))
            found = self._rest + piece
            cut = len(found) if not piece else found.rfind(b"\n") + 1
            self._rest = found[cut:]
            if cut or not piece:
                return single_blanks(found[:cut], self._quote)


def single_blanks(text: bytes, quote: bytes) -> bytes:
    """Whole lines, with runs of blanks outside quotes as in `SingleBlanks`."""
    if quote and quote in text:
        mark = re.escape(quote)
        quoted = mark + b"[^" + mark + b"\n]*" + mark + rb"|[ \t]+"
        text = re.sub(quoted, lambda found: found[0] if found[0][:1] == quote else b" ", text)
    else:
        text = re.sub(rb"[ \t]+", b" ", text)
    return re.sub(rb"^ | (?=\r?$)", b"", text, flags=re.MULTILINE)


def lines_above(sample: str, delimiters: Sequence[str], quote: str) -> str:
    """Advice if the first line has another number of cells than the lines below it, else ""."""
    lines = sample.splitlines()[:_LOOKED_AT]
    quoting: dict[str, Any] = {"quotechar": quote} if quote else {"quoting": csv.QUOTE_NONE}
    for delimiter in delimiters:
        counts = [len(row) for row in csv.reader(lines, delimiter=delimiter, **quoting)]
        there = [count for count in counts if count]
        if len(there) < 3:
            continue
        cells = Counter(there).most_common(1)[0][0]
        # Two cells beside a comma may be one number with a decimal comma.
        if cells < 2 + (delimiter == ",") or cells == there[0]:
            continue
        if delimiter == " " and not any(re.fullmatch(r"[+-]?[0-9.]+", one) for one in lines[-1].split()):
            continue  # words of a sentence, not cells
        above = counts.index(cells)
        below = [count for count in counts[above:] if count]
        if above > _ABOVE or below.count(cells) < max(2, _ALIKE * len(below)):
            continue
        first = next(line for line in lines if line.strip())
        said = f"{_cells(there[0])} ({first[:40]!r}), and the lines below have {cells}"
        if there[0] == cells - 1 and above == 1:
            return (
                f"the first line has {said}, as where R writes the names of rows without a name; write a name"
                " and a delimiter in front of it (in R: col.names = NA)"
            )
        told = "it is" if above == 1 else f"the first {above} are"
        return f"the first line has {said}; if {told} not part of the table, set skip_lines: {above}"
    return ""


def _cells(count: int) -> str:
    return f"{count} cell{'s' if count != 1 else ''}"
