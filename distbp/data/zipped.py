"""Opens untrusted zip archives through limits: every entry must be a plain file of its own."""

from __future__ import annotations

import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import BinaryIO

from distbp.core import settings
from distbp.core.errors import DataError, HostileFileError
from distbp.data.safety import DataFile

Entries = dict[str, zipfile.ZipInfo]

# The errors that zipfile raises for damaged archives.
_DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    OSError,
    OverflowError,
    RuntimeError,
    ValueError,
)


class _Guarded:
    """A file that refuses large reads until `opened` is set: zipfile reads the table of contents at once."""

    def __init__(self, file: DataFile, handle: BinaryIO) -> None:
        self._name, self._handle = file.name, handle
        self._limit = max(2**17, settings.get("DISTBP_MAX_DIRECTORY_BYTES"))  # a comment may have 64 KiB
        self.opened = False

    def read(self, count: int = -1) -> bytes:
        if count > self._limit and not self.opened:
            raise HostileFileError(
                f"{self._name}: the table of contents of the archive claims {count:,} bytes; at most"
                f" {self._limit:,} are allowed. If you trust it, raise DISTBP_MAX_DIRECTORY_BYTES"
            )
        return self._handle.read(count if count >= 0 else self._limit)

    def seek(self, position: int, whence: int = 0) -> int:
        return self._handle.seek(position, whence)

    def tell(self) -> int:
        return self._handle.tell()

    def seekable(self) -> bool:
        return True


@contextmanager
def opened_zip(file: DataFile, kind: str, again: str) -> Iterator[tuple[zipfile.ZipFile, Entries]]:
    """Yields an archive and its entries by name. kind: the word for such an archive, and again: how to mend
    it, for messages. Raises DataError if it is damaged, also for zipfile's errors inside the block;
    HostileFileError."""
    with file.path.open("rb") as handle:
        try:
            guarded = _Guarded(file, handle)
            with zipfile.ZipFile(guarded) as archive:
                guarded.opened = True
                yield archive, _entries(archive, file, again)
        except _DAMAGED as error:
            raise DataError(f"{file.name}: this is not a sound {kind} ({error}); {again}") from None


def _entries(archive: zipfile.ZipFile, file: DataFile, again: str) -> Entries:
    entries: Entries = {}
    for info in archive.infolist():
        path = PurePosixPath(info.filename.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or ":" in info.filename:
            raise HostileFileError(
                f"{file.name}: the archive has an entry {info.filename!r} that points outside of it; {again}"
            )
        if stat.S_ISLNK(info.external_attr >> 16):
            raise HostileFileError(f"{file.name}: the entry {info.filename!r} is a link; {again}")
        if info.filename in entries:
            raise HostileFileError(f"{file.name}: the archive has two entries {info.filename!r}; {again}")
        entries[info.filename] = info
    return entries
