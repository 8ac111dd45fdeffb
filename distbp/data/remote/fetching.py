"""Fetches remote files to this machine, where they are used like other files.

They are kept below `DISTBP_CACHE`, each in a folder named after its address and its server's mark of the
content (see `Content.mark`). So an unchanged file is not fetched again, and a changed file gets another
folder. A file without a mark is fetched each time, and its folder is named after its SHA-256. A folder gets
its name when the file is whole and synced.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic
from typing import Any

from distbp.core import settings
from distbp.core.errors import DataError, HostileFileError
from distbp.core.sealed import canonical_json
from distbp.core.storage import explained, make_folder, sync_folder, write_durable
from distbp.data.addresses import WEB, allowed
from distbp.data.cache import NEW, cache_folder, make_room
from distbp.data.remote.buckets import bucket_contents
from distbp.data.remote.content import Content
from distbp.data.remote.web import web_contents
from distbp.data.safety import DataFile, find

_FILE = "data"
_USED_NOW_S = 3600.0  # a file that was used in this time may still be read, and is not removed
_TOLD_BYTES = 2**24  # from one progress report to the next


def fetch(path: str, wanted: Callable[[str], bool], most: int) -> list[DataFile]:
    """Fetches the files at an address, and returns them in the order of their names; waits. wanted: whether
    to take a file of a folder, by its path from there. most: the largest number of files. Raises DataError,
    HostileFileError, StorageError."""
    address = allowed(path)
    cache = cache_folder()
    if cache is None:
        raise DataError(
            f"{address.name}: is kept on this machine, but DISTBP_CACHE is none; name a folder there"
        )
    folder = cache / "remote"
    with explained(folder):
        make_folder(folder)
    contents = web_contents(address) if address.scheme in WEB else bucket_contents(address, wanted, most)
    with contents as found:
        kept = [_kept(one, folder) for one in found]
        new = [one.size or 0 for one, place in zip(found, kept, strict=True) if place is None]
        if new:
            _check_room(address.name, sum(new), folder)
        return [
            find(place or _fetched(one, folder), _FILE)._replace(name=one.name)
            for one, place in zip(found, kept, strict=True)
        ]


def _kept(content: Content, folder: Path) -> Path | None:
    """The folder of a file that is kept already, marked as used now; None if it must be fetched. Raises
    HostileFileError if it is too large."""
    most = settings.get("DISTBP_MAX_FILE_BYTES")
    if content.size is not None and content.size > most:
        raise HostileFileError(
            f"{content.name}: the file has {content.size:,} bytes; at most {most:,} are allowed. If you trust"
            " it, raise DISTBP_MAX_FILE_BYTES"
        )
    place = folder / _key(content.address, content.mark)
    return place if content.mark and _is_there(place, content.size) else None


def _is_there(place: Path, size: int | None) -> bool:
    file = place / _FILE
    if not file.is_file() or size not in (None, file.stat().st_size):
        return False
    with explained(place):
        os.utime(place)  # marks it as used now
    return True


def _key(address: str, mark: str) -> str:
    return hashlib.sha256(canonical_json({"address": address, "mark": mark})).hexdigest()


def _fetched(content: Content, folder: Path) -> Path:
    """Fetches a file, and returns its folder. Raises DataError, HostileFileError, StorageError."""
    with explained(folder):
        new = Path(tempfile.mkdtemp(prefix=NEW, dir=folder))
    try:
        digest = hashlib.sha256()
        with explained(new / _FILE):
            write_durable(new / _FILE, _counted(content, digest))
            sync_folder(new)
        size = (new / _FILE).stat().st_size
        if not size:
            raise DataError(f"{content.name}: the file is empty; check the address")
        if content.size is None:
            _check_room(content.name, size, folder)
        place = folder / _key(content.address, content.mark or digest.hexdigest())
        if not _is_there(place, size):
            with explained(place):
                shutil.rmtree(place, ignore_errors=True)
                new.replace(place)
                sync_folder(folder)
        return place
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _check_room(name: str, size: int, folder: Path) -> None:
    """Makes room for `size` bytes in the cache. Raises DataError."""
    bound = settings.get("DISTBP_REMOTE_BYTES")
    if size > bound or make_room(folder, bound - size, _USED_NOW_S) > bound - size:
        raise DataError(
            f"{name}: there is no room for its {size:,} bytes: fetched files may fill {bound:,}, and those"
            " that were used within the last hour stay. Raise DISTBP_REMOTE_BYTES"
        )


def _counted(content: Content, digest: Any) -> Iterator[bytes]:
    """Yields the pieces of a file, and updates the digest. Raises HostileFileError if there are more bytes
    than announced or allowed, DataError if they take too long."""
    if content.size is None:
        most = min(settings.get("DISTBP_REMOTE_BYTES"), settings.get("DISTBP_MAX_FILE_BYTES"))
    else:
        most = content.size
    count = told = 0
    longest = settings.get("DISTBP_REMOTE_DEADLINE_S")
    begin = monotonic()
    shown = sys.stderr.isatty()
    for piece in content.pieces:
        count += len(piece)
        if count > most:
            limit = (
                "DISTBP_REMOTE_BYTES and DISTBP_MAX_FILE_BYTES allow" if content.size is None else "it said"
            )
            raise HostileFileError(f"{content.name}: sends more than the {most:,} bytes that {limit}")
        if monotonic() - begin > longest:
            raise DataError(
                f"{content.name}: {count:,} bytes came in {longest:,} seconds, and no more time is given;"
                " download the file, and name that, or raise DISTBP_REMOTE_DEADLINE_S"
            )
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
