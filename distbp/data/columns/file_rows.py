"""Reads one file of a table by pyarrow: the names of its columns, and its rows in batches. A damaged file
raises pyarrow's errors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from distbp.data.columns.arrow import arrow, is_text
from distbp.data.columns.csv_text import Dialect, Ragged, read_csv
from distbp.data.columns.files import check_unpacked, packing
from distbp.data.columns.ipc_claims import claims
from distbp.data.formats.tables import TableFiles
from distbp.data.safety import DataFile, check_claim

ROWS = 65_536  # in a batch, unless the file has batches of its own


def names(file: DataFile, kind: str) -> tuple[str, ...]:
    """The names of the columns of a typed file. Raises HostileFileError if it claims to unpack
    to more bytes than the settings allow."""
    if kind == "parquet":
        with arrow().parquet.ParquetFile(str(file.path)) as parquet:
            claimed = sum(
                parquet.metadata.row_group(i).total_byte_size for i in range(parquet.num_row_groups)
            )
            check_claim(file.name, claimed, file.size)
            return _own(parquet.schema_arrow.names)
    if kind == "arrow":
        for claimed in claims(arrow().pa.memory_map(str(file.path))):  # only one is in memory at a time
            check_claim(file.name, claimed, file.size)
        with _ipc(file) as reader:
            return _own(reader.schema.names)
    return tuple(_json(file).column_names)


def _own(names: Sequence[str]) -> tuple[str, ...]:
    """The names without those of index columns that pandas adds."""
    return tuple(name for name in names if not name.startswith("__index_level_"))


def batches(
    source: TableFiles,
    file: DataFile,
    kind: str,
    dialect: Dialect | None,
    columns: list[str],
    ragged: Ragged,
    rows: int = ROWS,
) -> Iterator[Any]:
    """Yields batches of some columns: at most `rows` rows of Parquet and JSON lines, else as the file or
    pyarrow cuts them. dialect: that of CSV; None for typed files."""
    if dialect is not None:
        yield from read_csv(source, file, dialect, columns, ragged)
    elif kind == "parquet":
        text = sorted(text_columns(file, kind).intersection(columns))
        with arrow().parquet.ParquetFile(str(file.path), read_dictionary=text) as parquet:
            for groups in _groups(parquet):
                yield from parquet.iter_batches(batch_size=rows, row_groups=groups, columns=columns)
    elif kind == "arrow":
        with _ipc(file) as reader:
            if isinstance(reader, arrow().ipc.RecordBatchFileReader):
                found = (reader.get_batch(i) for i in range(reader.num_record_batches))
            else:
                found = iter(reader)
            yield from (batch.select(columns) for batch in found)
    else:
        yield from _json(file).select(columns).to_batches(max_chunksize=rows)


def _groups(parquet: Any) -> Iterator[list[int]]:
    """Yields numbers of row groups to read together: as few as have `ROWS` rows, to save memory."""
    group: list[int] = []
    rows = 0
    for number in range(parquet.num_row_groups):
        group.append(number)
        rows += parquet.metadata.row_group(number).num_rows
        if rows >= ROWS or number + 1 == parquet.num_row_groups:
            yield group
            group, rows = [], 0


def text_columns(file: DataFile, kind: str) -> set[str]:
    """The columns of a Parquet or Arrow file that are text, with or without dictionaries, or times of day."""
    if kind == "parquet":
        schema = arrow().parquet.read_schema(str(file.path))
    else:
        with _ipc(file) as reader:
            schema = reader.schema

    def text(kind: Any) -> bool:
        types = arrow().pa.types
        return is_text(kind.value_type if types.is_dictionary(kind) else kind) or types.is_time(kind)

    return {field.name for field in schema if text(field.type)}


def replaced(cells: Any, others: Mapping[str, str]) -> Any:
    """Cells with each text that is a key of `others` replaced by its value. Other types stay."""
    pa, compute = arrow().pa, arrow().compute
    if pa.types.is_dictionary(cells.type) and is_text(cells.type.value_type):
        texts = replaced(cells.dictionary, others)
        return cells if texts is cells.dictionary else texts.take(cells.indices)
    if not is_text(cells.type):
        return cells
    places = compute.index_in(compute.utf8_trim_whitespace(cells), value_set=pa.array([*others], cells.type))
    if places.null_count == len(places):
        return cells
    found = pa.array([*others.values()], cells.type).take(places)
    return compute.if_else(compute.is_valid(places), found, cells)


def first_no_text(cells: Any) -> int | None:
    """The index of the first cell of a text column that is not valid UTF-8; None: all are valid."""
    pa = arrow().pa
    coded = pa.types.is_dictionary(cells.type)
    texts = cells.dictionary if coded else cells
    if not is_text(texts.type):
        return None
    try:
        texts.validate(full=True)
    except pa.ArrowInvalid:
        wrong = [not _is_utf8(one) for one in texts.cast(pa.large_binary()).to_pylist()]
        if coded:
            wrong = [index is not None and wrong[index] for index in cells.indices.to_pylist()]
        return wrong.index(True) if True in wrong else None
    return None


def _is_utf8(text: bytes | None) -> bool:
    try:
        (text or b"").decode()
    except UnicodeDecodeError:
        return False
    return True


def _ipc(file: DataFile) -> Any:
    """Opens a file in Arrow's file format (Feather) or stream format."""
    with file.path.open("rb") as handle:
        stream = handle.read(6) != b"ARROW1"
    handle = arrow().pa.memory_map(str(file.path))
    return arrow().ipc.open_stream(handle) if stream else arrow().ipc.open_file(handle)


def _json(file: DataFile) -> Any:
    """Reads a whole file of JSON lines, as the types of its columns depend on every line. Text that looks
    like times stays text; pyarrow would parse it by rules of its own."""
    found = _read_json(file, [])
    times = [field.name for field in found.schema if arrow().pa.types.is_timestamp(field.type)]
    return _read_json(file, times).select(found.column_names) if times else found


def _read_json(file: DataFile, texts: Sequence[str]) -> Any:
    pa, json = arrow().pa, arrow().json
    options = json.ParseOptions(explicit_schema=pa.schema([(name, pa.string()) for name in texts]))
    with pa.input_stream(str(file.path), compression=packing(file)) as stream:
        return json.read_json(_Counted(file, stream) if packing(file) else stream, parse_options=options)


class _Counted:
    """A stream that raises HostileFileError once a packed file has unpacked to more bytes than allowed."""

    closed = False

    def __init__(self, file: DataFile, stream: Any) -> None:
        self._file, self._stream, self._seen = file, stream, 0

    def read(self, count: int = -1) -> bytes:
        piece: bytes = self._stream.read(count)
        self._seen += len(piece)
        check_unpacked(self._file, self._seen)
        return piece
