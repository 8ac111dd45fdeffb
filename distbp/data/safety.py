"""Checks which files may be opened, and which sizes a file may claim, before anything is allocated.

Every limit is a setting of `distbp.core.settings`, so users can raise it for a file that they trust.
"""

from __future__ import annotations

import difflib
import stat
from pathlib import Path
from typing import NamedTuple

from distbp.core import settings
from distbp.core.errors import DataError, HostileFileError
from distbp.core.storage import user_path
from distbp.data.addresses import is_address, shown


class DataFile(NamedTuple):
    """A regular file that may be opened. `name`: the path as the job writes it, for messages. `mark`: device,
    inode, size, and the times (ns) at which content and inode last changed. An equal mark means equal
    content, unless the file changed at about the time when it was read."""

    path: Path
    name: str
    size: int
    mark: tuple[int, ...] = ()


def resolve(folder: Path, path: str, confined: bool = False) -> Path:
    """Resolves `path` relative to `folder`. Raises DataError, HostileFileError.

    Confined (for jobs that other people send): absolute paths, `..`, and links that lead out of `folder` are
    refused. Otherwise `path` may be absolute, begin with `~`, and leave `folder`.
    """
    if not path or "\0" in path:
        raise DataError(
            f"{path!r} is not a file name; write the path of a data file, relative to the job's folder"
        )
    if is_address(path):
        raise DataError(
            f"{shown(path)}: only tables (format: table) are fetched from an address; download the file, and"
            " name that"
        )
    if not confined:
        return folder / user_path(path)
    written = Path(path)
    if written.is_absolute():
        raise HostileFileError(
            f"{path}: absolute paths are not allowed here; write the path relative to the data folder"
        )
    if ".." in written.parts:
        raise HostileFileError(
            f"{path}: '..' is not allowed in a data path; name a file below the data folder"
        )
    try:
        root, target = folder.resolve(), (folder / written).resolve()
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links, before Python 3.13
        raise HostileFileError(f"{path}: the path cannot be followed ({error}); name a plain file") from None
    if not target.is_relative_to(root):
        raise HostileFileError(
            f"{path}: a link leads out of the data folder; copy the file into the folder instead of linking"
            " it"
        )
    return target


def find(folder: Path, path: str, confined: bool = False) -> DataFile:
    """Resolves `path` (see `resolve`) to a regular, readable file within DISTBP_MAX_FILE_BYTES.

    Raises DataError (missing, a folder, not permitted) or HostileFileError (a device or pipe, too large).
    """
    place = resolve(folder, path, confined)
    try:
        found = place.stat()
    except FileNotFoundError:
        # The sender of a job may not learn the names of other people's files.
        near = None if confined else _similar(place)
        of = "data folder" if confined else "folder of the job file"
        hint = f"did you mean {near!r}?" if near else f"data paths are relative to the {of}"
        where = "" if confined else f" in {folder.absolute()}"
        raise DataError(f"{path}: there is no such file{where}; {hint}") from None
    except OSError as error:
        raise DataError(
            f"{path}: cannot be opened ({error.strerror}); check the path and its permissions"
        ) from None
    if stat.S_ISDIR(found.st_mode):
        raise DataError(f"{path}: this is a folder; name a data file in it")
    if not stat.S_ISREG(found.st_mode):
        raise HostileFileError(f"{path}: this is a device, pipe or socket; data must be in a regular file")
    limit = settings.get("DISTBP_MAX_FILE_BYTES")
    if found.st_size > limit:
        raise HostileFileError(
            f"{path}: the file has {found.st_size:,} bytes; at most {limit:,} are allowed."
            " If you trust it, raise DISTBP_MAX_FILE_BYTES"
        )
    if found.st_size == 0:
        raise DataError(f"{path}: the file is empty; check that it was copied completely")
    mark = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    return DataFile(place, path, found.st_size, mark)


def _similar(place: Path) -> str | None:
    try:
        names = sorted(entry.name for entry in place.parent.iterdir())
    except OSError:
        return None
    near = difflib.get_close_matches(place.name, names, n=1)
    return near[0] if near else None


def check_claim(name: str, claimed: int, packed: int) -> None:
    """Raises HostileFileError if `packed` bytes may not unpack to the `claimed` number of bytes."""
    limit = settings.get("DISTBP_MAX_UNPACKED_BYTES")
    if claimed > limit:
        raise HostileFileError(
            f"{name}: it claims to unpack to {claimed:,} bytes; at most {limit:,} are allowed. If you trust"
            " it, raise DISTBP_MAX_UNPACKED_BYTES, or store it unpacked: plain .npy and IDX files are"
            " memory-mapped"
        )
    times = settings.get("DISTBP_MAX_EXPANSION")
    if claimed > settings.get("DISTBP_EXPANSION_FREE_BYTES") and claimed > times * packed:
        raise HostileFileError(
            f"{name}: {packed:,} packed bytes claim to unpack to {claimed:,}, more than {times} times as"
            " much, as"
            " compression bombs do. If you trust it, raise DISTBP_MAX_EXPANSION, or store it unpacked"
        )
