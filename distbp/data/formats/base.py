"""The contract of a data format, before any format.

A format is a frozen dataclass that says where the data lies; its fields are those of a job. `open` returns
the table of the wanted rows. It maps files into memory if the format allows. It checks shapes, lengths and
the file's claims about sizes; `distbp.data.formats.load` then checks the content.

`rows` is [start, stop), counted from 0; None: all rows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from distbp.data.table import Table

RowRange = tuple[int, int] | None


class Source(Protocol):
    """The interface of a format's dataclass. `type`: its name in a job."""

    @property
    def type(self) -> str: ...

    def open(self, folder: Path, confined: bool = False) -> Table:
        """Opens the table. Paths are relative to `folder`; if confined, they may not leave it. Raises
        DataError or HostileFileError."""
        ...
