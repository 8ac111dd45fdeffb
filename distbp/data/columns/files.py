"""Finds the files of a table, and their formats."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from distbp.core import settings
from distbp.core.errors import DataError
from distbp.data.addresses import is_address, parsed
from distbp.data.formats.tables import TableFiles
from distbp.data.remote.fetching import fetch
from distbp.data.safety import DataFile, find, resolve

SUFFIXES = {
    **dict.fromkeys((".csv", ".tsv", ".tab", ".txt"), "csv"),
    **dict.fromkeys((".parquet", ".pq"), "parquet"),
    **dict.fromkeys((".feather", ".arrow", ".ipc"), "arrow"),
    **dict.fromkeys((".jsonl", ".ndjson"), "jsonl"),
}
_OTHERS = {
    **dict.fromkeys((".xlsx", ".xlsm", ".xls", ".ods"), "a spreadsheet; save its sheet as CSV"),
    ".json": "JSON, but not one object a line; write it so, as .jsonl",
}
PACKED = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}
_FIRST_BYTES = ((b"PAR1", "parquet"), (b"ARROW1", "arrow"), (b"\xff\xff\xff\xff", "arrow"), (b"{", "jsonl"))
MOST_FILES = 100_000


def find_files(source: TableFiles, folder: Path, confined: bool = False) -> list[DataFile]:
    """The files of a table, sorted by name. Files at an address are downloaded first, and this waits for
    them. Raises DataError, HostileFileError."""
    path = source.path
    if is_address(path):
        return fetch(path, _is_data, MOST_FILES)
    base = common_folder(source, folder, confined)
    if base is None:
        return [find(folder, path, confined)]
    if resolve(folder, path, confined).is_dir():
        begin = path
        found = [p for p in base.rglob("*") if _is_data(p.relative_to(base).as_posix()) and p.is_file()]
        if not found:
            raise DataError(f"{path}: the folder has no file that ends in {', '.join(SUFFIXES)}")
    else:
        begin, pattern = _cut(path)
        found = [p for p in base.glob(pattern) if p.is_file()]
        if not found:
            raise DataError(f"{path}: no file fits this pattern in {'the data folder' if confined else base}")
    if len(found) > MOST_FILES:
        raise DataError(
            f"{path}: {len(found):,} files; at most {MOST_FILES:,} make a table. Join some of them"
        )
    names = sorted(p.relative_to(base).as_posix() for p in found)
    return [find(folder, str(Path(begin) / name), confined) for name in names]


def are_here(source: TableFiles, folder: Path) -> bool:
    """Whether a file or folder on this machine is at the path of a table or matches its pattern."""
    if is_address(source.path):
        return False
    base = common_folder(source, folder)
    if base is None or resolve(folder, source.path).exists():
        return resolve(folder, source.path).exists()
    return any(base.glob(_cut(source.path)[1]))


def common_folder(source: TableFiles, folder: Path, confined: bool = False) -> Path | None:
    """The folder that holds all files of a table whose path is a folder or a pattern; None if the path is one
    file."""
    there = resolve(folder, source.path, confined)
    if there.is_dir():
        return there
    if there.exists() or not any(c in source.path for c in "*?["):
        return None
    base = _cut(source.path)[0]
    return resolve(folder, base, confined) if base else folder


def begins_at(path: str, names: Sequence[str]) -> str:
    """The beginning that the names of all files of a table share: its folder, or the folders of the pattern
    before the first wildcard; else ""."""
    plain = parsed(path).name.rstrip("/") if is_address(path) else str(Path(path))
    if all(name == plain or name.startswith(f"{plain}/") for name in names):
        return plain
    if wild := re.search(r"[*?[]", plain):
        return plain[: wild.start()].rpartition("/")[0]
    return ""


def file_kind(source: TableFiles, file: DataFile) -> str:
    """csv, parquet, arrow or jsonl: from the job, else from the name, else from the first bytes. Raises
    DataError if the name is that of another format."""
    if source.kind != "auto":
        return source.kind
    if kind := _kind_of(Path(file.name)):
        return kind
    with file.path.open("rb") as handle:
        first = handle.read(8)
    kind = next((kind for start, kind in _FIRST_BYTES if first.startswith(start)), "")
    if not kind and (what := _OTHERS.get(Path(file.name).suffix.lower())):
        raise DataError(f"{file.name}: is {what}; or say its kind, if it is another")
    return kind or "csv"


def packing(file: DataFile) -> str | None:
    """pyarrow's name for the compression of a file, from its suffix; None: not compressed."""
    return PACKED.get(Path(file.name).suffix.lower())


def looks_like_table(path: Path) -> bool:
    """Whether a file has the suffix of a table."""
    return _kind_of(path) is not None


def _kind_of(path: Path) -> str | None:
    """The format by suffix, in upper or lower case; None: not known."""
    plain = path.with_suffix("") if path.suffix.lower() in PACKED else path
    return SUFFIXES.get(plain.suffix.lower())


def check_unpacked(file: DataFile, seen: int) -> None:
    """Raises HostileFileError if a packed file has unpacked to more bytes (`seen`) than allowed."""
    if packing(file) and seen > settings.get("DISTBP_EXPANSION_FREE_BYTES"):
        from distbp.data.safety import check_claim

        check_claim(file.name, seen, file.size)


def _is_data(path: str) -> bool:
    """Whether a file is part of the table in a folder. path: relative to the folder. Names that begin with
    "." or "_" are hidden, as in Hive and Spark, except folders of a column (_year=2024)."""
    parts = path.split("/")
    hidden = any(part.startswith(".") or (part.startswith("_") and "=" not in part) for part in parts)
    return not hidden and looks_like_table(Path(path))


def _cut(path: str) -> tuple[str, str]:
    """Splits a pattern before its first part with a wildcard."""
    parts = Path(path).parts
    first = next(i for i, part in enumerate(parts) if any(c in part for c in "*?["))
    return str(Path(*parts[:first])) if first else "", str(Path(*parts[first:]))
