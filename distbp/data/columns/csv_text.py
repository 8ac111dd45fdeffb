"""Reads CSV by pyarrow: finds delimiter and header in the first lines, and reads every cell as text.

pyarrow guesses types from the first block of a file, and then fails on other cells or misreads them. So it
is asked only for text, and `distbp.data.columns.types` finds the types from all cells.
"""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from distbp.core.errors import DataError
from distbp.core.words import counted
from distbp.data.columns.arrow import arrow
from distbp.data.columns.cells import NUMBER, cleaned, matches
from distbp.data.columns.csv_header import apart, has_header
from distbp.data.columns.csv_lines import SingleBlanks, lines_above, single_blanks
from distbp.data.columns.files import packing
from distbp.data.formats.tables import TableFiles
from distbp.data.safety import DataFile

_DELIMITERS = (",", "\t", ";", "|")
_BLANK = " "  # a run of any length separates cells
_SAMPLE = 2**18  # bytes in which the delimiter and the header are found
_BLOCK = 2**22  # bytes; the longest row must fit
_EXCEL = re.compile(rb'"?sep=([\x20-\x7e\t])"?\r?\n', re.IGNORECASE)
_THOUSANDS = r"^\s*[+-]?[0-9]{1,3}(\.[0-9]{3})+(,[0-9]+)?\s*$"
_DECIMAL_COMMA = r"^(\s*[+-]?[0-9]*),([0-9]+([eE][+-]?[0-9]+)?\s*)$"


class Dialect(NamedTuple):
    """How text is cut into cells. `names`: the names of the columns. `why`: how the header was found.
    `above`: the number of lines before the table that are empty or tell Excel the delimiter (sep=;)."""

    delimiter: str
    header: bool
    names: tuple[str, ...]
    why: str
    above: int = 0


@dataclass
class Ragged:
    """A handler for pyarrow: counts rows with more or fewer cells than columns, and describes the first one.
    `skip`: such rows are left out; else they are an error."""

    skip: bool = False
    count: int = 0
    first: str = ""
    found: list[Any] = field(default_factory=list)

    def __call__(self, row: Any) -> str:
        self.count += 1
        if not self.first:
            there = counted(row.actual_columns, "cell")
            cells = f"{there} where the table has {row.expected_columns} columns"
            self.first = f"{cells}: {row.text[:60]!r}"
        return "skip"


def find_dialect(source: TableFiles, file: DataFile, *, header: bool | None = None) -> Dialect:
    """Finds delimiter, header and names. `header`: whether there is one, if known. Raises DataError."""
    sample, whole = _sample(source, file)
    if not sample.strip():
        raise DataError(f"{file.name}: there is no text in the file; check that it was copied completely")
    choices = [source.delimiter] if source.delimiter else [d for d in _DELIMITERS if d != source.decimal]
    if told := _EXCEL.match(sample):
        choices = [source.delimiter or told[1].decode()]
        sample = sample[told.end() :]
    if "\t" in choices and ".tsv" in file.name.lower():
        choices.insert(0, choices.pop(choices.index("\t")))
    tried = [(_table(source, sample, delimiter, whole), delimiter) for delimiter in choices]
    best = max(tried, key=lambda one: _score(*one[0]))
    if _score(*best[0]) <= 1:  # one column, or many lines with another number of cells
        single = single_blanks(sample, source.quote.encode())
        found = (None, 0) if source.delimiter else _table(source, single, _BLANK, whole)
        if _is_divided_by_blanks(*found):
            best, sample = (found, _BLANK), single
        else:
            above = lines_above(sample.decode(), choices, source.quote)
            if not above and not source.delimiter:
                above = lines_above(single.decode(), [_BLANK], source.quote)
            if above:
                raise DataError(f"{file.name}: {above}")
    (table, _), delimiter = best
    above_it = bool(told) + sum(1 for _ in itertools.takewhile(lambda line: not line, sample.splitlines()))
    if table is None or not table.num_rows:
        raise DataError(f"{file.name}: cannot be read as CSV; say its delimiter, quote and encoding")
    first = [cell or "" for cell in _first_cells(source, table)]
    if source.header is not None:
        header = source.header
        why = "as the job says"
    elif header is not None:
        why = "as in training"
    else:
        header, why = has_header(first, table)
    if not header:
        return Dialect(delimiter, False, tuple(map(str, range(len(first)))), why, above_it)
    if any("\ufffd" in name for name in first):
        raise DataError(
            f"{file.name}: the header is not {source.encoding} text; say the encoding of the file (encoding:"
            " latin-1), or save it as UTF-8"
        )
    empty = [i for i, name in enumerate(first) if not name]
    names = [name or f"unnamed_{i}" for i, name in enumerate(first)]
    names, again = apart(names)
    why += "".join(f"; {name!r} is there again, and called {new!r}" for name, new in again[:3])
    note = f"{why}; the name of column {', '.join(map(str, empty))} is empty" if empty else why
    return Dialect(delimiter, True, tuple(names), note, above_it)


def read_csv(
    source: TableFiles, file: DataFile, dialect: Dialect, columns: Sequence[str], ragged: Ragged
) -> Iterator[Any]:
    """Yields record batches of text. Raises pyarrow's errors, and DataError for a ragged row unless
    `ragged.skip`."""
    csv = arrow().csv
    before = ragged.count
    with _opened(source, file, dialect.delimiter) as stream:
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
    """The place of the first cell that is not text in the encoding, "row 3, column 'name'"; else None."""
    pa, csv = arrow().pa, arrow().csv
    types = dict.fromkeys(dialect.names, pa.binary())
    row = 0
    with _opened(source, file, dialect.delimiter) as stream:
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
    """The batch with decimal points in place of decimal commas: 1234,5 and 1.234,5 become 1234.5."""
    pa, compute = arrow().pa, arrow().compute
    columns = []
    for column in batch.columns:
        grouped = compute.match_substring_regex(column, _THOUSANDS)
        plain = compute.if_else(grouped, compute.replace_substring(column, ".", ""), column)
        columns.append(compute.replace_substring_regex(plain, _DECIMAL_COMMA, r"\1.\2"))
    return pa.RecordBatch.from_arrays(columns, schema=batch.schema)


@contextmanager
def _opened(source: TableFiles, file: DataFile, delimiter: str) -> Iterator[Any]:
    with arrow().pa.input_stream(str(file.path), compression=packing(file)) as stream:
        yield SingleBlanks(stream, source.quote) if delimiter == _BLANK else stream


def _read_options(source: TableFiles, dialect: Dialect, *, use_threads: bool) -> Any:
    return arrow().csv.ReadOptions(
        column_names=list(dialect.names),
        skip_rows=source.skip_lines + dialect.above,
        skip_rows_after_names=int(dialect.header),  # rows, not lines: a header cell may hold a line end
        encoding=source.encoding,
        block_size=_BLOCK,
        use_threads=use_threads,
    )


def _parse_options(source: TableFiles, delimiter: str, ragged: Any) -> Any:
    return arrow().csv.ParseOptions(
        delimiter=delimiter,
        quote_char=source.quote or False,
        newlines_in_values=bool(source.quote),
        invalid_row_handler=ragged,
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
    """Returns the first lines of a file, unpacked and in UTF-8, and whether these are the whole file."""
    with _opened(source, file, source.delimiter or "") as stream:
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
    """Returns the sample as an Arrow table of text (None: unreadable) and its number of ragged rows."""
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
    """A delimiter's score: the number of columns; 0.5 with many ragged rows; -1 without rows."""
    if table is None or not table.num_rows:
        return -1.0
    return float(table.num_columns) if ragged <= table.num_rows // 4 else 0.5


def _is_divided_by_blanks(table: Any, ragged: int) -> bool:
    """Whether blanks cut all lines into the same number of cells, and a column below the first line has only
    numbers. Lines of words are text."""
    if table is None or ragged or table.num_rows < 2 or table.num_columns < 2:
        return False
    return any(matches(column.slice(1), NUMBER) for column in table.columns)


def _line(source: TableFiles, file: DataFile, dialect: Dialect) -> int:
    """The number of the first ragged line, counted from 1."""
    lines: list[int] = []

    def seen(row: Any) -> str:
        lines.append(row.number or 0)
        return "error"

    try:
        with _opened(source, file, dialect.delimiter) as stream:
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
