"""The contract of a data format, before any format.

A format is a frozen dataclass that says where the data lies; its fields are what a job writes. `open`
gives the table of the rows asked for, reading lazily where the file allows it (memory maps). It checks what
the file claims, shapes and lengths; `distbp.data.formats.load` then checks the content.

`rows` is [start, stop), counted from 0; None: all of them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from distbp.data.table import Table

RowRange = tuple[int, int] | None


class Source(Protocol):
    """What every format dataclass offers. `type` is its name in a job."""

    @property
    def type(self) -> str: ...

    def open(self, folder: Path, confined: bool = False) -> Table:
        """Paths are relative to `folder`; confined, they may not leave it. Raises DataError."""
        ...
