"""Reads the raw table in files piece by piece, with the same interface for every format."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from distbp.core.errors import DataError
from distbp.data.addresses import is_address
from distbp.data.columns import file_rows
from distbp.data.columns.arrow import arrow
from distbp.data.columns.cells import missing_cells
from distbp.data.columns.csv_text import Dialect, Ragged, find_dialect, first_undecodable
from distbp.data.columns.files import check_unpacked, file_kind, find_files
from distbp.data.columns.partitions import Folders, check_folders, folder_cells, folders_of
from distbp.data.formats.tables import TableFiles
from distbp.data.safety import DataFile

_SHOWN = 1000  # the most columns that a message names
_FEW = 1024  # rows of a piece that only shows whether cells are missing


class NamedTable(Protocol):
    """A raw table: the names of its columns, and their cells, piece by piece."""

    name: str
    names: tuple[str, ...]
    skipped: dict[str, int]

    @property
    def marks(self) -> tuple[tuple[int, ...], ...]: ...

    @property
    def dialect(self) -> Dialect | None: ...

    @property
    def reading(self) -> Mapping[str, Any]:
        """The source's options for reading text (see `TableFiles.reading`)."""
        ...

    @property
    def typed(self) -> frozenset[str]:
        """The columns that all files store with a type other than text. Their types are known without
        reading."""
        ...

    def beginnings(self, names: Sequence[str]) -> Iterator[Mapping[str, Any]]:
        """Yields pieces of typed columns of each file, until each column has had a cell that is not
        missing."""
        ...

    def place(self, row: int) -> str:
        """The place of a row, for messages."""
        ...

    def pieces(self, columns: Sequence[str] | None = None) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """Yields (number of the first row, cells by name) in order. columns: None: all."""
        ...


@dataclass
class RawTable:
    """The files of a table. `names`: of its columns, in the order of the first file. `skipped`: the number of
    rows left out in the last reading, by reason, because they cannot be split into cells or repeat the
    header. `starts`: the number of the first row of each file that was read. `folders`: for each file the
    cells in the names of its folders."""

    source: TableFiles
    files: list[DataFile]
    kinds: list[str]
    dialects: list[Dialect | None]
    names: tuple[str, ...]
    skip: bool = False
    skipped: dict[str, int] = field(default_factory=dict)
    starts: list[int] = field(default_factory=list)
    folders: list[Folders] = field(default_factory=list)
    name: str = ""

    @property
    def marks(self) -> tuple[tuple[int, ...], ...]:
        return tuple(file.mark for file in self.files)

    @property
    def dialect(self) -> Dialect | None:
        return self.dialects[0]

    @property
    def reading(self) -> Mapping[str, Any]:
        return self.source.reading

    @property
    def keys(self) -> tuple[str, ...]:
        """The columns from the names of folders."""
        return tuple(self.folders[0]) if self.folders else ()

    @functools.cached_property
    def typed(self) -> frozenset[str]:
        found = set(self.names) - set(self.keys)
        for file, kind in zip(self.files, self.kinds, strict=True):
            with _told(self.source, file, kind, None):
                found -= file_rows.text_columns(file, kind) if kind in ("parquet", "arrow") else found
        return frozenset(found)

    def beginnings(self, names: Sequence[str]) -> Iterator[Mapping[str, Any]]:
        seen = 0
        for file, kind in zip(self.files, self.kinds, strict=True):
            left = list(names)
            with _told(self.source, file, kind, None):
                for batch in file_rows.batches(self.source, file, kind, None, left, Ragged(self.skip), _FEW):
                    cells = {name: batch.column(name) for name in left}
                    seen += batch.num_rows
                    yield cells
                    left = [name for name in left if missing_cells(cells[name]).all()]
                    if not left:
                        break
        if not seen:
            raise self._without_rows()

    def place(self, row: int) -> str:
        """The place of a row of the whole table, such as "part-2.csv: row 17", counted from 0."""
        number = int(np.searchsorted(self.starts, row, side="right")) - 1
        return f"{self.files[number].name}: row {row - self.starts[number]:,}"

    def pieces(self, columns: Sequence[str] | None = None) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """Yields (number of the first row, cells by name), file after file. Raises DataError."""
        wanted = list(self.names if columns is None else columns)
        row, self.starts, self.skipped, ragged = 0, [], {}, Ragged(self.skip)
        read = [name for name in wanted if name not in self.keys] or [self.names[0]]
        for number, (file, kind, dialect) in enumerate(
            zip(self.files, self.kinds, self.dialects, strict=True)
        ):
            self.starts.append(row)
            seen = 0
            with _told(self.source, file, kind, dialect):
                for batch in file_rows.batches(self.source, file, kind, dialect, read, ragged):
                    seen += batch.nbytes
                    check_unpacked(file, seen)
                    cells = {name: batch.column(name) for name in read}
                    if kind == "csv" and dialect is not None and dialect.header:
                        cells = self._without_headers(cells, row)
                    elif kind != "csv":  # reading CSV has checked every cell
                        self._check_text(cells, row)
                    if self.source.replace:
                        cells = {
                            name: file_rows.replaced(of, self.source.replace) for name, of in cells.items()
                        }
                    count = len(cells[read[0]])
                    if count:
                        cells |= {key: folder_cells(of, count) for key, of in self.folders[number].items()}
                        yield row, {name: cells[name] for name in wanted}
                    row += count
        if ragged.count:
            self.skipped["a wrong number of cells"] = ragged.count
        if not row:
            raise self._without_rows()

    def _without_rows(self) -> DataError:
        return DataError(f"{self.name}: the table has columns, but no rows")

    def _check_text(self, cells: Mapping[str, Any], row: int) -> None:
        """Raises DataError if text in a typed file is not UTF-8. pyarrow does not check that."""
        for name, column in cells.items():
            if (index := file_rows.first_no_text(column)) is not None:
                raise DataError(
                    f"{self.place(row + index)}, column {name!r} is not UTF-8 text; write the file again"
                )

    def _without_headers(self, cells: dict[str, Any], row: int) -> dict[str, Any]:
        """Removes rows that repeat the header, as in concatenated files."""
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
    """Finds the files of a table and the names of its columns. Reads only the beginnings of the files. skip:
    leave out rows that cannot be split into cells. header: whether CSV has one; None: find out. Raises
    DataError."""
    arrow()
    files = find_files(source, folder, confined)
    kinds = [file_kind(source, file) for file in files]
    folders = folders_of(source, files)
    dialects: list[Dialect | None] = []
    every: list[tuple[str, ...]] = []
    first: tuple[str, ...] = ()
    for file, kind in zip(files, kinds, strict=True):
        with _told(source, file, kind, None):
            dialect = find_dialect(source, file, header=header) if kind == "csv" else None
            names = dialect.names if dialect is not None else file_rows.names(file, kind)
        dialects.append(dialect)
        every.append(names)
        if not first:
            first, header = names, dialect.header if dialect is not None else header
            _check_names(file, names)
        missing = [name for name in first if name not in names]
        if missing:
            shown = ", ".join(map(repr, missing[:_SHOWN]))
            more = f" and {len(missing) - _SHOWN:,} more" if len(missing) > _SHOWN else ""
            raise DataError(
                f"{file.name}: has no column {shown}{more}, which {files[0].name} has; a table's files need"
                " the same columns"
            )
    check_folders(files, every, folders)
    names = (*first, *folders[0])
    # The query of an address may hold a secret, so the file's name does not contain it.
    name = files[0].name if is_address(source.path) and len(files) == 1 else source.path
    return RawTable(source, files, kinds, dialects, names, skip, name=name, folders=folders)


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


@contextmanager
def _told(source: TableFiles, file: DataFile, kind: str, dialect: Dialect | None) -> Iterator[None]:
    """Turns pyarrow's errors into DataError with the file's name and advice."""
    try:
        yield
    except arrow().errors as error:
        text = str(error).split("\n")[0].strip().rstrip(".")
        if kind == "csv" and ("UTF8" in text or isinstance(error, UnicodeError)):
            place = first_undecodable(source, file, dialect) if dialect is not None else None
            raise DataError(
                f"{file.name}: {place or 'a cell'} is not {source.encoding} text; say the encoding of the"
                " file (encoding: latin-1), or save it as UTF-8"
            ) from None
        raise DataError(
            f"{file.name}: cannot be read as {_WORDS[kind]} ({text}); copy it again, or mend it"
        ) from None


_WORDS = {"csv": "CSV", "parquet": "Parquet", "arrow": "an Arrow or Feather file", "jsonl": "JSON lines"}
