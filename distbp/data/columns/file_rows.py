"""One file of a table, by pyarrow: its columns, and its rows in batches. A damaged file raises pyarrow's
errors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from distbp.data.columns.arrow import arrow, is_text
from distbp.data.columns.csv_text import Dialect, Ragged, read_csv
from distbp.data.columns.files import check_unpacked, packing
from distbp.data.columns.ipc_claims import claims
from distbp.data.formats.tables import TableFiles
from distbp.data.safety import DataFile, check_claim

ROWS = 65_536  # of a batch, where a file does not say itself


def names(file: DataFile, kind: str) -> tuple[str, ...]:
    """Of the columns of a typed file. Raises HostileFileError where it claims more than it may."""
    if kind == "parquet":
        with arrow().parquet.ParquetFile(str(file.path)) as parquet:
            claimed = sum(
                parquet.metadata.row_group(i).total_byte_size for i in range(parquet.num_row_groups)
            )
            check_claim(file.name, claimed, file.size)
            return _own(parquet.schema_arrow.names)
    if kind == "arrow":
        for claimed in claims(arrow().pa.memory_map(str(file.path))):  # of what is in memory at a time
            check_claim(file.name, claimed, file.size)
        with _ipc(file) as reader:
            return _own(reader.schema.names)
    return tuple(_json(file).column_names)


def _own(names: Sequence[str]) -> tuple[str, ...]:
    """Without the index that pandas adds."""
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
    """Some columns, `rows` rows at a time. dialect: of CSV."""
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
    """Row groups that are read together: more of them would be in memory at the same time."""
    group: list[int] = []
    rows = 0
    for number in range(parquet.num_row_groups):
        group.append(number)
        rows += parquet.metadata.row_group(number).num_rows
        if rows >= ROWS or number + 1 == parquet.num_row_groups:
            yield group
            group, rows = [], 0


def text_columns(file: DataFile, kind: str) -> set[str]:
    """Of a file of Parquet or Arrow: with or without a dictionary and times of day that are read as text."""
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
    """Text with what `others` has for it; cells of other types as they are."""
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
    """The number of the first cell that should be text, and is not UTF-8; None where there is none."""
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
    """A reader of Arrow's file format (Feather), or of its streams."""
    with file.path.open("rb") as handle:
        stream = handle.read(6) != b"ARROW1"
    handle = arrow().pa.memory_map(str(file.path))
    return arrow().ipc.open_stream(handle) if stream else arrow().ipc.open_file(handle)


def _json(file: DataFile) -> Any:
    """All of a file: the types of its columns come from every line. What is packed is counted as it comes.
    Text that looks like times, which pyarrow would read by rules of its own, is text."""
    found = _read_json(file, [])
    times = [field.name for field in found.schema if arrow().pa.types.is_timestamp(field.type)]
    return _read_json(file, times).select(found.column_names) if times else found


def _read_json(file: DataFile, texts: Sequence[str]) -> Any:
    pa, json = arrow().pa, arrow().json
    options = json.ParseOptions(explicit_schema=pa.schema([(name, pa.string()) for name in texts]))
    with pa.input_stream(str(file.path), compression=packing(file)) as stream:
        return json.read_json(_Counted(file, stream) if packing(file) else stream, parse_options=options)


class _Counted:
    """A stream that ends in HostileFileError where a packed file has unpacked to more than it may."""

    closed = False

    def __init__(self, file: DataFile, stream: Any) -> None:
        self._file, self._stream, self._seen = file, stream, 0

    def read(self, count: int = -1) -> bytes:
        piece: bytes = self._stream.read(count)
        self._seen += len(piece)
        check_unpacked(self._file, self._seen)
        return piece
