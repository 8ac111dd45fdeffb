"""A table as it lies in its files, read piece by piece: every format through one door."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from distbp.core.errors import DataError
from distbp.data.columns.arrow import arrow, is_text
from distbp.data.columns.cells import missing_cells
from distbp.data.columns.csv_text import Dialect, Ragged, find_dialect, first_undecodable, read_csv
from distbp.data.columns.files import check_unpacked, file_kind, find_files
from distbp.data.formats.tables import TableFiles
from distbp.data.safety import DataFile, check_claim

_ROWS = 32_768  # of a piece, where a file does not say itself
_FEW = 1024  # of one that only shows what there is


class NamedTable(Protocol):
    """A table as it lies somewhere: names of columns, and their cells, piece by piece."""

    name: str
    names: tuple[str, ...]
    skipped: dict[str, int]

    @property
    def marks(self) -> tuple[tuple[int, ...], ...]: ...

    @property
    def dialect(self) -> Dialect | None: ...

    @property
    def typed(self) -> frozenset[str]:
        """Columns that are stored with a type other than text everywhere, and need not be read for it."""
        ...

    def beginnings(self, names: Sequence[str]) -> Iterator[Mapping[str, Any]]:
        """Of each file, pieces of some typed columns, until each has shown a cell that is not missing."""
        ...

    def place(self, row: int) -> str:
        """Where a row lies, for messages."""
        ...

    def pieces(self, columns: Sequence[str] | None = None) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """(number of the first row, cells by name), in order."""
        ...


@dataclass
class RawTable:
    """The files of a table. `names`: of its columns, in the order of the first file. `skipped`: rows that
    could not be cut into cells or repeat the header, in the last reading, by reason. `starts`: the first
    row of each file that was read."""

    source: TableFiles
    files: list[DataFile]
    kinds: list[str]
    dialects: list[Dialect | None]
    names: tuple[str, ...]
    skip: bool = False
    skipped: dict[str, int] = field(default_factory=dict)
    starts: list[int] = field(default_factory=list)
    name: str = ""

    @property
    def marks(self) -> tuple[tuple[int, ...], ...]:
        return tuple(file.mark for file in self.files)

    @property
    def dialect(self) -> Dialect | None:
        return self.dialects[0]

    @functools.cached_property
    def typed(self) -> frozenset[str]:
        found = set(self.names)
        for file, kind in zip(self.files, self.kinds, strict=True):
            with _told(self.source, file, kind, None):
                found -= _text_columns(file, kind) if kind in ("parquet", "arrow") else found
        return frozenset(found)

    def beginnings(self, names: Sequence[str]) -> Iterator[Mapping[str, Any]]:
        for file, kind in zip(self.files, self.kinds, strict=True):
            left = list(names)
            with _told(self.source, file, kind, None):
                for batch in _batches(self.source, file, kind, None, left, Ragged(self.skip), _FEW):
                    cells = {name: batch.column(name) for name in left}
                    yield cells
                    left = [name for name in left if missing_cells(cells[name]).all()]
                    if not left:
                        break

    def place(self, row: int) -> str:
        """Where a row of the whole table lies: "part-2.csv: row 17", counted from 0."""
        number = int(np.searchsorted(self.starts, row, side="right")) - 1
        return f"{self.files[number].name}: row {row - self.starts[number]:,}"

    def pieces(self, columns: Sequence[str] | None = None) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """(number of the first row, cells by name), file after file. Raises DataError."""
        wanted = list(self.names if columns is None else columns)
        row, self.starts, self.skipped, ragged = 0, [], {}, Ragged(self.skip)
        for file, kind, dialect in zip(self.files, self.kinds, self.dialects, strict=True):
            self.starts.append(row)
            seen = 0
            with _told(self.source, file, kind, dialect):
                for batch in _batches(self.source, file, kind, dialect, wanted, ragged):
                    seen += batch.nbytes
                    check_unpacked(file, seen)
                    cells = {name: batch.column(name) for name in wanted}
                    if kind == "csv" and dialect is not None and dialect.header and wanted:
                        cells = self._without_headers(cells, row)
                    count = len(cells[wanted[0]]) if wanted else batch.num_rows
                    if count:
                        yield row, cells
                    row += count
        if ragged.count:
            self.skipped["a wrong number of cells"] = ragged.count
        if not row:
            raise DataError(f"{self.name}: the table has columns, but no rows")

    def _without_headers(self, cells: dict[str, Any], row: int) -> dict[str, Any]:
        """Files put together by hand have their header in the middle, too."""
        compute, names = arrow().compute, list(cells)
        if len(names) < 2 or not compute.any(compute.equal(cells[names[0]], names[0])).as_py():
            return cells
        same = compute.equal(cells[names[0]], names[0])
        for name in names[1:]:
            same = compute.and_(same, compute.equal(compute.utf8_trim_whitespace(cells[name]), name))
        found = np.flatnonzero(same.to_numpy(zero_copy_only=False))
        if not len(found):
            return cells
        if not self.skip:
            raise DataError(
                f"{self.place(row + int(found[0]))} repeats the header; remove that line, or set"
                " bad_rows: skip"
            )
        self.skipped["the header again"] = self.skipped.get("the header again", 0) + len(found)
        keep = compute.invert(same)
        return {name: column.filter(keep) for name, column in cells.items()}


def open_raw(
    source: TableFiles,
    folder: Path,
    *,
    confined: bool = False,
    skip: bool = False,
    header: bool | None = None,
) -> RawTable:
    """Finds the files of a table and the names of its columns; reads no more than their beginnings. `header`:
    whether CSV has one, where it was found before. Raises DataError."""
    arrow()
    files = find_files(source, folder, confined)
    kinds = [file_kind(source, file) for file in files]
    dialects: list[Dialect | None] = []
    first: tuple[str, ...] = ()
    for file, kind in zip(files, kinds, strict=True):
        with _told(source, file, kind, None):
            dialect = find_dialect(source, file, header=header) if kind == "csv" else None
            names = dialect.names if dialect is not None else _names(file, kind)
        dialects.append(dialect)
        if not first:
            first, header = names, dialect.header if dialect is not None else header
            _check_names(file, names)
        missing = [name for name in first if name not in names]
        if missing:
            shown = ", ".join(map(repr, missing[:5]))
            raise DataError(
                f"{file.name}: has no column {shown}, which {files[0].name} has; a table's files need the"
                " same columns"
            )
    return RawTable(source, files, kinds, dialects, first, skip, name=source.path)


def _check_names(file: DataFile, names: Sequence[str]) -> None:
    if not names:
        raise DataError(f"{file.name}: the table has no columns")
    twice = (
        sorted({name for name in names if list(names).count(name) > 1})
        if len(set(names)) < len(names)
        else []
    )
    if twice:
        raise DataError(f"{file.name}: two columns are named {twice[0]!r}; give each a name of its own")


def _names(file: DataFile, kind: str) -> tuple[str, ...]:
    if kind == "parquet":
        with arrow().parquet.ParquetFile(str(file.path)) as parquet:
            claimed = sum(
                parquet.metadata.row_group(i).total_byte_size for i in range(parquet.num_row_groups)
            )
            check_claim(file.name, claimed, file.size)
            return _own(parquet.schema_arrow.names)
    if kind == "arrow":
        with _ipc(file) as reader:
            return _own(reader.schema.names)
    return tuple(_json(file).column_names)


def _own(names: Sequence[str]) -> tuple[str, ...]:
    """Without the index that pandas adds."""
    return tuple(name for name in names if not name.startswith("__index_level_"))


def _batches(
    source: TableFiles,
    file: DataFile,
    kind: str,
    dialect: Dialect | None,
    columns: list[str],
    ragged: Ragged,
    rows: int = _ROWS,
) -> Iterator[Any]:
    if dialect is not None:
        yield from read_csv(source, file, dialect, columns, ragged)
    elif kind == "parquet":
        text = sorted(_text_columns(file, kind).intersection(columns))
        with arrow().parquet.ParquetFile(str(file.path), read_dictionary=text) as parquet:
            for groups in _groups(parquet):
                yield from parquet.iter_batches(batch_size=rows, row_groups=groups, columns=columns)
    elif kind == "arrow":
        with _ipc(file) as reader:
            count = getattr(reader, "num_record_batches", None)
            batches = reader if count is None else (reader.get_batch(i) for i in range(count))
            yield from (batch.select(columns) for batch in batches)
    else:
        yield from _json(file).select(columns).to_batches(max_chunksize=rows)


def _groups(parquet: Any) -> Iterator[list[int]]:
    """Row groups that are read together: more of them would be in memory at the same time."""
    group: list[int] = []
    rows = 0
    for number in range(parquet.num_row_groups):
        group.append(number)
        rows += parquet.metadata.row_group(number).num_rows
        if rows >= _ROWS or number + 1 == parquet.num_row_groups:
            yield group
            group, rows = [], 0


def _text_columns(file: DataFile, kind: str) -> set[str]:
    """Of a file of Parquet or Arrow: with or without a dictionary."""
    if kind == "parquet":
        schema = arrow().parquet.read_schema(str(file.path))
    else:
        with _ipc(file) as reader:
            schema = reader.schema

    def text(kind: Any) -> bool:
        return is_text(kind.value_type if arrow().pa.types.is_dictionary(kind) else kind)

    return {field.name for field in schema if text(field.type)}


def _ipc(file: DataFile) -> Any:
    """A reader of Arrow's file format (Feather), or of its streams."""
    with file.path.open("rb") as handle:
        stream = handle.read(6) != b"ARROW1"
    handle = arrow().pa.memory_map(str(file.path))
    return arrow().ipc.open_stream(handle) if stream else arrow().ipc.open_file(handle)


def _json(file: DataFile) -> Any:
    with arrow().pa.input_stream(str(file.path)) as stream:
        return arrow().json.read_json(stream)


@contextmanager
def _told(source: TableFiles, file: DataFile, kind: str, dialect: Dialect | None) -> Iterator[None]:
    """pyarrow's errors as DataError, with the file, and what to do."""
    try:
        yield
    except arrow().errors as error:
        text = str(error).split("\n")[0].strip().rstrip(".")
        if kind == "csv" and ("UTF8" in text or isinstance(error, UnicodeError)):
            place = first_undecodable(source, file, dialect) if dialect is not None else None
            raise DataError(
                f"{file.name}: {place or 'a cell'} is not {source.encoding} text; say the encoding of the"
                " file"
                " (encoding: latin-1), or save it as UTF-8"
            ) from None
        raise DataError(
            f"{file.name}: cannot be read as {_WORDS[kind]} ({text}); copy it again, or mend it"
        ) from None


_WORDS = {"csv": "CSV", "parquet": "Parquet", "arrow": "an Arrow or Feather file", "jsonl": "JSON lines"}
