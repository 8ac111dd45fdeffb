"""CSV by pyarrow: delimiter and header are found in the first lines, every cell is read as text.

pyarrow guesses types from the first block of a file, and then fails or lies about the rest; so it is asked
for text alone, and `distbp.data.columns.types` looks at all of it.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from distbp.core.errors import DataError
from distbp.data.columns.arrow import arrow
from distbp.data.columns.cells import DATE, MISSING, NUMBER, cleaned, matches
from distbp.data.columns.files import packing
from distbp.data.formats.tables import TableFiles
from distbp.data.safety import DataFile

_DELIMITERS = (",", "\t", ";", "|")
_SAMPLE = 2**18  # bytes, of which the delimiter and the header are found
_BLOCK = 2**22  # a row must fit into it
_THOUSANDS = r"^\s*[+-]?[0-9]{1,3}(\.[0-9]{3})+(,[0-9]+)?\s*$"
_DECIMAL_COMMA = r"^(\s*[+-]?[0-9]*),([0-9]+([eE][+-]?[0-9]+)?\s*)$"


class Dialect(NamedTuple):
    """How the text of a table is cut. `names`: of its columns. `why`: how the header was found. `empty`:
    lines without text before the first that has some."""

    delimiter: str
    header: bool
    names: tuple[str, ...]
    why: str
    empty: int = 0


@dataclass
class Ragged:
    """Rows with more or fewer cells than the table has columns. `skip`: they are left out and counted."""

    skip: bool = False
    count: int = 0
    first: str = ""
    found: list[Any] = field(default_factory=list)

    def __call__(self, row: Any) -> str:
        self.count += 1
        if not self.first:
            cells = f"{row.actual_columns} cells where the table has {row.expected_columns} columns"
            self.first = f"{cells}: {row.text[:60]!r}"
        return "skip"


def find_dialect(source: TableFiles, file: DataFile, *, header: bool | None = None) -> Dialect:
    """Delimiter, header and names of a file. `header`: known from elsewhere. Raises DataError."""
    sample, whole = _sample(source, file)
    if not sample.strip():
        raise DataError(f"{file.name}: there is no text in the file; check that it was copied completely")
    empty_lines = sum(1 for _ in itertools.takewhile(lambda line: not line, sample.splitlines()))
    choices = [source.delimiter] if source.delimiter else [d for d in _DELIMITERS if d != source.decimal]
    if not source.delimiter and ".tsv" in file.name.lower():
        choices.insert(0, choices.pop(choices.index("\t")))
    tried = [(_table(source, sample, delimiter, whole), delimiter) for delimiter in choices]
    best = max(tried, key=lambda one: _score(*one[0]))
    (table, _), delimiter = best
    if table is None or not table.num_rows:
        raise DataError(f"{file.name}: cannot be read as CSV; say its delimiter, quote and encoding")
    first = [cell or "" for cell in _first_cells(source, table)]
    if source.header is not None:
        header = source.header
        why = "as the job says"
    elif header is not None:
        why = "as in training"
    else:
        header, why = _has_header(first)
    if not header:
        return Dialect(delimiter, False, tuple(map(str, range(len(first)))), why, empty_lines)
    if any("\ufffd" in name for name in first):
        raise DataError(
            f"{file.name}: the header is not {source.encoding} text; say the encoding of the file (encoding:"
            " latin-1), or save it as UTF-8"
        )
    empty = [i for i, name in enumerate(first) if not name]
    names = [name or f"unnamed_{i}" for i, name in enumerate(first)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        places = [i for i, name in enumerate(names) if name == twice[0]][:2]
        raise DataError(
            f"{file.name}: columns {' and '.join(map(str, places))} (counted from 0) are both named"
            f" {twice[0]!r}; give each a name of its own, or set header: false if the first line is a row"
        )
    note = f"{why}; the name of column {', '.join(map(str, empty))} is empty" if empty else why
    return Dialect(delimiter, True, tuple(names), note, empty_lines)


def read_csv(
    source: TableFiles, file: DataFile, dialect: Dialect, columns: Sequence[str], ragged: Ragged
) -> Iterator[Any]:
    """Record batches of text. Raises pyarrow's errors; DataError for a ragged row that may not be skipped."""
    csv = arrow().csv
    before = ragged.count
    with _opened(source, file) as stream:
        reader = csv.open_csv(
            stream,
            read_options=_read_options(source, dialect, use_threads=True),
            parse_options=_parse_options(source, dialect.delimiter, ragged),
            convert_options=_as_text(dialect.names, columns),
        )
        for batch in reader:
            if ragged.count > before and not ragged.skip:
                break
            yield batch if source.decimal is None else _pointed(batch)
    if ragged.count > before and not ragged.skip:
        raise DataError(
            f"{file.name}: line {_line(source, file, dialect)}: {ragged.first}. {ragged.count:,} or more rows"
            " are so; mend them (a delimiter in a cell needs quotes around the cell), or set bad_rows: skip"
        )


def first_undecodable(source: TableFiles, file: DataFile, dialect: Dialect) -> str | None:
    """The place of the first cell that is not text in the encoding: "row 3, column 'name'"."""
    pa, csv = arrow().pa, arrow().csv
    types = dict.fromkeys(dialect.names, pa.binary())
    row = 0
    with _opened(source, file) as stream:
        reader = csv.open_csv(
            stream,
            read_options=_read_options(source, dialect, use_threads=False),
            parse_options=_parse_options(source, dialect.delimiter, Ragged(skip=True)),
            convert_options=csv.ConvertOptions(column_types=types, check_utf8=False),
        )
        for batch in reader:
            for name, cells in zip(dialect.names, batch.columns, strict=True):
                for index, cell in enumerate(cells.to_pylist()):
                    try:
                        (cell or b"").decode(source.encoding)
                    except UnicodeDecodeError:
                        return f"row {row + index}, column {name!r}"
            row += batch.num_rows
    return None


def _first_cells(source: TableFiles, table: Any) -> list[str | None]:
    line = table.slice(0, 1).combine_chunks().to_batches()[0]
    line = line if source.decimal is None else _pointed(line)
    return [cleaned(column, ()).to_pylist()[0] for column in line.columns]


def _pointed(batch: Any) -> Any:
    """Text with 1234.5 for 1234,5 and 1.234,5."""
    pa, compute = arrow().pa, arrow().compute
    columns = []
    for column in batch.columns:
        grouped = compute.match_substring_regex(column, _THOUSANDS)
        plain = compute.if_else(grouped, compute.replace_substring(column, ".", ""), column)
        columns.append(compute.replace_substring_regex(plain, _DECIMAL_COMMA, r"\1.\2"))
    return pa.RecordBatch.from_arrays(columns, schema=batch.schema)


def _opened(source: TableFiles, file: DataFile) -> Any:
    pa = arrow().pa
    return pa.input_stream(str(file.path), compression=packing(file))


def _read_options(source: TableFiles, dialect: Dialect, *, use_threads: bool) -> Any:
    return arrow().csv.ReadOptions(
        column_names=list(dialect.names),
        skip_rows=source.skip_lines + dialect.empty,
        skip_rows_after_names=int(dialect.header),  # a row, whose cells may hold line ends
        encoding=source.encoding,
        block_size=_BLOCK,
        use_threads=use_threads,
    )


def _parse_options(source: TableFiles, delimiter: str, ragged: Any) -> Any:
    return arrow().csv.ParseOptions(
        delimiter=delimiter, quote_char=source.quote, newlines_in_values=True, invalid_row_handler=ragged
    )


def _as_text(names: Sequence[str], columns: Sequence[str]) -> Any:
    pa, csv = arrow().pa, arrow().csv
    return csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()),
        include_columns=list(columns),
        null_values=[],
        strings_can_be_null=False,
    )


def _sample(source: TableFiles, file: DataFile) -> tuple[bytes, bool]:
    """The first lines of a file, unpacked, in UTF-8, and whether that is all of it."""
    with _opened(source, file) as stream:
        data = b""
        while len(data) < _SAMPLE:
            piece = stream.read(_SAMPLE - len(data))
            if not piece:
                break
            data += piece
    whole = len(data) < _SAMPLE
    text = data.decode(source.encoding, errors="replace").removeprefix("\ufeff")
    if "\0" in text:
        raise DataError(
            f"{file.name}: the file holds bytes that are no text; say what it is (kind: parquet, arrow,"
            " jsonl), or its encoding"
        )
    lines = text.splitlines(keepends=True)[source.skip_lines :]
    if not whole and len(lines) > 1:
        lines.pop()
    return "".join(lines).encode(), whole


def _table(source: TableFiles, sample: bytes, delimiter: str, whole: bool) -> tuple[Any, int]:
    """The sample as a table of text, and how many of its rows are ragged; None where it cannot be one."""
    csv, ragged = arrow().csv, Ragged(skip=True)
    try:
        read = csv.ReadOptions(autogenerate_column_names=True, block_size=2 * _SAMPLE, use_threads=False)
        parse = _parse_options(source, delimiter, ragged)
        found = csv.read_csv(io.BytesIO(sample), read_options=read, parse_options=parse)
        names = found.column_names
        convert = _as_text(names, names)
        ragged.count = 0
        return csv.read_csv(
            io.BytesIO(sample), read_options=read, parse_options=parse, convert_options=convert
        ), ragged.count
    except arrow().errors:
        return None, 0


def _score(table: Any, ragged: int) -> float:
    """How well a delimiter cuts: the number of columns, where most rows have it."""
    if table is None or not table.num_rows:
        return -1.0
    return float(table.num_columns) if ragged <= table.num_rows // 4 else 0.5


def _has_header(first: Sequence[str]) -> tuple[bool, str]:
    """Whether the cells of the first line are names: text that is no number, date or missing marker. The
    first or the last may be empty: pandas and R write an index without a name, and some lines end in a
    delimiter."""
    pa = arrow().pa
    names = first[not first[0] : len(first) - (not first[-1])]
    for name in names or first:
        cell = pa.array([name])
        if name in MISSING or matches(cell, NUMBER) or matches(cell, DATE):
            what = "empty" if not name else f"{name!r}, which is no name"
            return False, f"no header: a cell of the first line is {what}"
    if len(set(first)) < len(first):
        return True, "a header: the first line holds neither numbers nor dates"
    return True, "a header: the cells of the first line are names"


def _line(source: TableFiles, file: DataFile, dialect: Dialect) -> int:
    """The number of the first ragged line, counted from 1."""
    lines: list[int] = []

    def seen(row: Any) -> str:
        lines.append(row.number or 0)
        return "error"

    try:
        with _opened(source, file) as stream:
            for _ in arrow().csv.open_csv(
                stream,
                read_options=_read_options(source, dialect, use_threads=False),
                parse_options=_parse_options(source, dialect.delimiter, seen),
            ):
                if lines:
                    break
    except arrow().errors:
        pass
    return lines[0] if lines else 0
