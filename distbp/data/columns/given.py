"""Tables given from Python instead of files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from distbp.core.errors import DataError
from distbp.data.columns.csv_text import Dialect
from distbp.data.columns.rows import as_arrow

_ROWS = 65_536


class GivenTable:
    """A frame of pandas or Polars, or a table of Arrow, with the interface of
    `distbp.data.columns.reading.NamedTable`."""

    marks: tuple[tuple[int, ...], ...] = ()
    dialect: Dialect | None = None
    reading: Mapping[str, Any] = MappingProxyType({})
    typed: frozenset[str] = frozenset()  # all cells are in memory, so skipping typed columns saves nothing

    def __init__(self, values: Any, name: str) -> None:
        self.table = as_arrow(values)
        self.name = name
        self.names = tuple(self.table.column_names)
        self.skipped: dict[str, int] = {}
        if not self.table.num_rows or not self.names:
            raise DataError(f"{name}: the table has no rows or no columns")

    def place(self, row: int) -> str:
        return f"{self.name}: row {row:,}"

    def beginnings(self, names: Sequence[str]) -> Iterator[Mapping[str, Any]]:
        return iter(())

    def pieces(self, columns: Sequence[str] | None = None) -> Iterator[tuple[int, Mapping[str, Any]]]:
        row = 0
        wanted = list(self.names if columns is None else columns)
        for batch in self.table.select(wanted).to_batches(max_chunksize=_ROWS):
            yield row, {name: batch.column(name) for name in wanted}
            row += batch.num_rows
