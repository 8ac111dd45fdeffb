"""Packs a table for a service: its unchanged files, in one zip archive without compression.

The names in the archive are relative to the folder of the table, so the files keep their order. Only training
opens the files.
"""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from distbp.core.errors import DataError, HostileFileError
from distbp.core.storage import explained
from distbp.data.columns.arrow import arrow
from distbp.data.columns.files import common_folder, find_files
from distbp.data.formats.tables import TableFiles
from distbp.data.safety import DataFile
from distbp.data.zipped import Entries, opened_zip

KIND, AGAIN = "archive of table files", "make it with `zip -0 -r`, or let `distbp submit` do it"
EVERY = "**/*"  # the pattern of all files of an archive
_FRAME = "frame.arrow"
_OLD = (1980, 1, 1, 0, 0, 0)  # zip's earliest time, for all entries, so that equal data gives equal bytes
_PIECE = 2**20
_LONGEST = 200  # bytes in a part of a name; file systems allow 255


def ship_files(source: TableFiles, folder: Path, out: BinaryIO) -> str:
    """Writes the archive of a table's files to `out`. The same files give the same bytes. folder: paths in
    `source` are relative to it. Returns the path of the table within the archive. Raises DataError."""
    files = find_files(source, folder)
    base = common_folder(source, folder)
    names = [
        Path(file.name).name if base is None else file.path.relative_to(base).as_posix() for file in files
    ]
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name, file in zip(names, files, strict=True):
            _check_name(name, source.path)
            with file.path.open("rb") as content, new_entry(archive, name) as entry:
                shutil.copyfileobj(content, entry, _PIECE)
    return names[0] if base is None else EVERY


def ship_frame(table: Any, out: BinaryIO) -> str:
    """Writes the archive of an Arrow table, as an Arrow stream, to `out`. Returns its path within the
    archive."""
    with (
        zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive,
        new_entry(archive, _FRAME) as entry,
        arrow().ipc.new_stream(entry, table.schema) as writer,
    ):
        writer.write_table(table)
    return _FRAME


def shipped(file: DataFile) -> dict[str, int]:
    """The names and sizes (bytes) of the files in an archive. Reads all of it once to check it. Raises
    DataError, HostileFileError."""
    with opened_zip(file, KIND, AGAIN) as (archive, entries):
        found = _files(file, entries)
        for info in found.values():
            for _ in _pieces(archive, info):
                pass
        return {name: info.file_size for name, info in found.items()}


def unship(file: DataFile, folder: Path) -> None:
    """Writes the files of an archive into `folder`, which must not exist. Raises DataError, HostileFileError,
    StorageError."""
    with opened_zip(file, KIND, AGAIN) as (archive, entries):
        for name, info in _files(file, entries).items():
            place = folder / name
            with explained(place):
                place.parent.mkdir(parents=True, exist_ok=True)
                out = place.open("xb")
            with out:
                for piece in _pieces(archive, info):
                    with explained(place):
                        out.write(piece)
                with explained(place):
                    out.flush()
                    os.fsync(out.fileno())


def new_entry(archive: zipfile.ZipFile, name: str) -> Any:
    """Opens a new entry for writing. Equal data gives equal bytes of the archive."""
    return archive.open(zipfile.ZipInfo(name, _OLD), "w", force_zip64=True)


def _files(file: DataFile, entries: Entries) -> Entries:
    found = {name: info for name, info in entries.items() if not info.is_dir()}
    if not found:
        raise DataError(f"{file.name}: there is no file in the archive; {AGAIN}")
    for name, info in found.items():
        _check_name(name, file.name)
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            raise HostileFileError(
                f"{file.name}: the entry {name[:80]!r} is packed or encrypted; the files of a table are"
                f" taken as they are (.gz and .zst among them); {AGAIN}"
            )
        if info.file_size != info.compress_size:
            raise HostileFileError(f"{file.name}: the entry {name[:80]!r} has two sizes; {AGAIN}")
        for folder in PurePosixPath(name).parents:
            if str(folder) in found:
                raise HostileFileError(f"{file.name}: {str(folder)[:80]!r} is a file and a folder; {AGAIN}")
    if sum(info.file_size for info in found.values()) > file.size:
        raise HostileFileError(f"{file.name}: its entries claim more bytes than the archive has; {AGAIN}")
    return found


def _check_name(name: str, where: str) -> None:
    """Raises HostileFileError if `name` is not a plain relative path."""
    parts = name.split("/")
    plain = name.isprintable() and not set(name) & set("\\:")
    if not plain or any(part in ("", ".", "..") or len(os.fsencode(part)) > _LONGEST for part in parts):
        raise HostileFileError(
            f"{where}: {name[:80]!r} is not a name for a file of a table here; name it without ':' and '\\',"
            f" in at most {_LONGEST} bytes"
        )


def _pieces(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[bytes]:
    """Yields the bytes of an entry. At the end zipfile checks its CRC-32."""
    count = 0
    with archive.open(info) as entry:
        while piece := entry.read(_PIECE):
            count += len(piece)
            yield piece
    if count != info.file_size:
        raise EOFError(f"the entry {info.filename[:80]!r} is cut off")
