"""Brings files from elsewhere to this machine; from there on they are as other files.

They are kept below `DISTBP_CACHE`, each in a folder named by its address and by what its server says of its
content (see `Content.mark`). So what did not change is not fetched again, and what changed has another name:
nothing old is used. Where a server says nothing of the kind, the file is fetched each time, and its folder is
named by its SHA-256. A folder gets its name when the file is whole and synced.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from distbp.core import settings
from distbp.core.errors import DataError, HostileFileError
from distbp.core.sealed import canonical_json
from distbp.core.storage import explained, make_folder, sync_folder, write_durable
from distbp.data.cache import NEW, cache_folder, make_room
from distbp.data.remote.addresses import BUCKETS, allowed
from distbp.data.remote.buckets import Store
from distbp.data.remote.content import Content
from distbp.data.remote.web import opened_on_web
from distbp.data.safety import DataFile, find

_USED_NOW_S = 3600.0  # a file that was used so shortly ago may still be read
_TOLD_BYTES = 2**24
_SUFFIXES = re.compile(r"(\.[A-Za-z0-9]{1,8}){0,2}")


def fetch(path: str, wanted: Callable[[str], bool], most: int) -> list[DataFile]:
    """The files at an address, in the order of their names, on this machine. wanted: which files of a folder,
    by name. most: how many there may be. Raises DataError, HostileFileError, StorageError."""
    address = allowed(path)
    if address.scheme in BUCKETS:
        store = Store(address)
        entries = store.entries(wanted)
        if len(entries) > most:
            raise DataError(f"{address.name}: {len(entries):,} files; at most {most:,} make a table")
        found = []
        for entry in entries:
            with store.opened(entry) as content:
                found.append(_kept(entry.name, content))
        return found
    if any(c in address.path for c in "*[") or address.path in ("", "/"):
        raise DataError(
            f"{address.name}: name one file: a web server does not list what it has; folders and patterns are"
            " for s3:// and gs://"
        )
    with opened_on_web(address) as content:
        return [_kept(path, content)]


def _kept(address: str, content: Content) -> DataFile:
    """The file on this machine, fetched unless it is there."""
    name = content.name
    cache = cache_folder()
    if cache is None:
        raise DataError(f"{name}: is kept on this machine, but DISTBP_CACHE is none; name a folder there")
    folder = cache / "remote"
    file = f"data{_SUFFIXES.search(''.join(PurePosixPath(name).suffixes[-2:]))[0]}"  # type: ignore[index]
    place = folder / _key(address, content.mark) if content.mark else None
    if place is None or not _is_there(place / file, content.size):
        with explained(folder):
            make_folder(folder)
        place = _fetched(address, content, folder, file)
    with explained(place):
        os.utime(place)  # it was used now
    return find(place, file)._replace(name=name)


def _is_there(file: Path, size: int | None) -> bool:
    return file.is_file() and size in (None, file.stat().st_size)


def _key(address: str, mark: str) -> str:
    return hashlib.sha256(canonical_json({"address": address, "mark": mark})).hexdigest()


def _fetched(address: str, content: Content, folder: Path, file: str) -> Path:
    """The folder with the file; whole, or an error."""
    bound = settings.get("DISTBP_REMOTE_BYTES")
    _check_room(content.name, content.size or 0, folder)
    with explained(folder):
        new = Path(tempfile.mkdtemp(prefix=NEW, dir=folder))
    try:
        digest = hashlib.sha256()
        with explained(new / file):
            write_durable(new / file, _counted(content, digest, bound))
            sync_folder(new)
        if not (new / file).stat().st_size:
            raise DataError(f"{content.name}: the file is empty; check the address")
        if content.size is None:
            _check_room(content.name, (new / file).stat().st_size, folder)
        place = folder / _key(address, content.mark or digest.hexdigest())
        if not _is_there(place / file, (new / file).stat().st_size):
            with explained(place):
                shutil.rmtree(place, ignore_errors=True)
                new.replace(place)
                sync_folder(folder)
        return place
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _check_room(name: str, size: int, folder: Path) -> None:
    """Makes room for a file of so many bytes. Raises DataError, HostileFileError."""
    most, bound = settings.get("DISTBP_MAX_FILE_BYTES"), settings.get("DISTBP_REMOTE_BYTES")
    if size > most:
        raise HostileFileError(
            f"{name}: the file has {size:,} bytes; at most {most:,} are allowed. If you trust it, raise"
            " DISTBP_MAX_FILE_BYTES"
        )
    if size > bound or make_room(folder, bound - size, _USED_NOW_S) > bound - size:
        raise DataError(
            f"{name}: there is no room for the file: fetched files may fill {bound:,} bytes, and those that"
            " were used within the last hour stay. Raise DISTBP_REMOTE_BYTES"
        )


def _counted(content: Content, digest: Any, bound: int) -> Iterator[bytes]:
    """The pieces; no more bytes than were said, and than there may be."""
    most = min(bound, settings.get("DISTBP_MAX_FILE_BYTES")) if content.size is None else content.size
    count = told = 0
    shown = sys.stderr.isatty()
    for piece in content.pieces:
        count += len(piece)
        if count > most:
            limit = (
                "DISTBP_REMOTE_BYTES and DISTBP_MAX_FILE_BYTES allow" if content.size is None else "it said"
            )
            raise HostileFileError(f"{content.name}: sends more than the {most:,} bytes that {limit}")
        digest.update(piece)
        if shown and count - told >= _TOLD_BYTES:
            told = count
            of = "" if content.size is None else f" of {content.size / 1e6:,.0f}"
            print(
                f"\rfetching {content.name}: {count / 1e6:,.0f}{of} MB", end="", file=sys.stderr, flush=True
            )
        yield piece
    if told:
        print(file=sys.stderr)
