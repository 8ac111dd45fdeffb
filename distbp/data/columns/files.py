"""Which files a table lies in, and what they hold."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from distbp.core import settings
from distbp.core.errors import DataError
from distbp.data.formats.tables import TableFiles
from distbp.data.remote.addresses import is_address
from distbp.data.remote.fetching import fetch
from distbp.data.safety import DataFile, find, resolve

SUFFIXES = {
    **dict.fromkeys((".csv", ".tsv", ".tab", ".txt"), "csv"),
    **dict.fromkeys((".parquet", ".pq"), "parquet"),
    **dict.fromkeys((".feather", ".arrow", ".ipc"), "arrow"),
    **dict.fromkeys((".jsonl", ".ndjson"), "jsonl"),
}
PACKED = (".gz", ".zst", ".bz2")
_FIRST_BYTES = ((b"PAR1", "parquet"), (b"ARROW1", "arrow"), (b"\xff\xff\xff\xff", "arrow"), (b"{", "jsonl"))
MOST_FILES = 100_000


def find_files(source: TableFiles, folder: Path, confined: bool = False) -> list[DataFile]:
    """The files of a table, by name; what lies elsewhere is fetched first. Raises DataError,
    HostileFileError."""
    path = source.path
    if is_address(path):
        return fetch(path, lambda name: _is_data(Path(name)), MOST_FILES)
    base = common_folder(source, folder, confined)
    if base is None:
        return [find(folder, path, confined)]
    if resolve(folder, path, confined).is_dir():
        begin, found = path, [p for p in base.rglob("*") if p.is_file() and _is_data(p)]
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
    """Whether there is anything on this machine at the path of a table, or fits it."""
    if is_address(source.path):
        return False
    base = common_folder(source, folder)
    if base is None or resolve(folder, source.path).exists():
        return resolve(folder, source.path).exists()
    return any(base.glob(_cut(source.path)[1]))


def common_folder(source: TableFiles, folder: Path, confined: bool = False) -> Path | None:
    """The folder below which the files of a table lie, where its path is a folder or a pattern; None: it is
    one file."""
    there = resolve(folder, source.path, confined)
    if there.is_dir():
        return there
    if there.exists() or not any(c in source.path for c in "*?["):
        return None
    base = _cut(source.path)[0]
    return resolve(folder, base, confined) if base else folder


def begins_at(path: str, names: Sequence[str]) -> str:
    """What the names of all files begin with, of a table whose path is this: its folder, or the part of the
    pattern before the first wildcard."""
    plain = path.rstrip("/") if is_address(path) else str(Path(path))
    if all(name == plain or name.startswith(f"{plain}/") for name in names):
        return plain
    if wild := re.search(r"[*?[]", plain):
        return plain[: wild.start()].rpartition("/")[0]
    return ""


def file_kind(source: TableFiles, file: DataFile) -> str:
    """csv, parquet, arrow or jsonl: as the job says, by the name, or by the first bytes."""
    if source.kind != "auto":
        return source.kind
    path = Path(file.name)
    suffix = path.suffix.lower()
    if suffix in PACKED:
        suffix = path.with_suffix("").suffix.lower()
    if suffix in SUFFIXES:
        return SUFFIXES[suffix]
    with file.path.open("rb") as handle:
        first = handle.read(8)
    return next((kind for start, kind in _FIRST_BYTES if first.startswith(start)), "csv")


def is_packed(file: DataFile) -> bool:
    return Path(file.name).suffix.lower() in PACKED


def looks_like_table(path: Path) -> bool:
    """Whether a file on the command line is a table by its name."""
    suffix = path.suffix.lower()
    return (path.with_suffix("").suffix.lower() if suffix in PACKED else suffix) in SUFFIXES


def check_unpacked(file: DataFile, seen: int) -> None:
    """Raises HostileFileError where a packed file has unpacked to more than the settings allow."""
    if is_packed(file) and seen > settings.get("DISTBP_EXPANSION_FREE_BYTES"):
        from distbp.data.safety import check_claim

        check_claim(file.name, seen, file.size)


def _is_data(path: Path) -> bool:
    hidden = any(part.startswith((".", "_")) for part in path.parts[-1:])
    return looks_like_table(path) and not hidden


def _cut(path: str) -> tuple[str, str]:
    """The part of a pattern before its first wildcard, and the rest."""
    parts = Path(path).parts
    first = next(i for i, part in enumerate(parts) if any(c in part for c in "*?["))
    return str(Path(*parts[:first])) if first else "", str(Path(*parts[first:]))
