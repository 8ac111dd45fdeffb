"""Durable, atomic changes on disk: either all of a change survives a power cut, or none of it.

`Disk` has one method for each call by which checkpoints and run directories touch the disk. Tests replace it
by disks that count calls, fail or die at a call, or lose data that was not fsynced.

A change is durable after four calls in this order: write under a temporary name, fsync the file, rename it,
fsync the folder. Without the first fsync, a power cut may leave the new name without its data. Without the
second, the rename itself may be lost.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType

from distbp.core.errors import StorageError

TEMPORARY = ".tmp-"
MAX_TEXT_BYTES = 1 << 30  # the largest text file that is read whole; a line of metrics has about 500 bytes


class Disk:
    """The calls on the disk. Every method raises OSError as the system reports it."""

    def open(self, path: Path, flags: int) -> int:
        return os.open(path, flags | os.O_CLOEXEC, 0o666)

    def read(self, fd: int, count: int) -> bytes:
        return os.read(fd, count)

    def write(self, fd: int, data: memoryview) -> int:
        """Writes at least one byte of `data`. Returns the number of bytes written, which may be fewer than
        all."""
        return os.write(fd, data)

    def size(self, fd: int) -> int:
        """The size of a regular file in bytes. Raises OSError for a folder, a pipe or a device."""
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EISDIR, "it is a folder, a pipe or a device, not a regular file")
        return found.st_size

    def truncate(self, fd: int, size: int) -> None:
        os.ftruncate(fd, size)

    def fsync(self, fd: int) -> None:
        os.fsync(fd)

    def close(self, fd: int) -> None:
        os.close(fd)

    def mkdir(self, path: Path) -> None:
        path.mkdir()

    def rename(self, old: Path, new: Path) -> None:
        """Renames `old` to `new` and replaces a file there. Raises OSError for a folder that is not empty."""
        old.replace(new)

    def unlink(self, path: Path) -> None:
        path.unlink()

    def rmdir(self, path: Path) -> None:
        path.rmdir()

    def listdir(self, path: Path) -> list[str]:
        return os.listdir(path)  # noqa: PTH208 - names are what we want


DISK = Disk()
PLAIN = os.O_NOFOLLOW | os.O_NONBLOCK  # open no link, and do not wait for the writer of a pipe

_EXPLANATIONS: Mapping[int, tuple[str, str]] = MappingProxyType(
    {
        errno.ENOSPC: ("disk full", "free some space on that disk"),
        errno.EDQUOT: ("disk quota used up", "free some space or ask for a larger quota"),
        errno.EROFS: ("read-only disk", "choose a folder on a disk that can be written"),
        errno.EACCES: ("permission denied", "choose a folder that this user may write"),
        errno.EPERM: ("operation not permitted", "choose a folder that this user may write"),
        errno.EIO: ("the disk reports an input/output error", "check the disk, then use another one"),
        errno.ENAMETOOLONG: ("the path is too long", "choose a shorter one"),
        errno.ENOENT: ("the folder does not exist", "make it, or choose another"),
        errno.ENOTDIR: ("a part of the path is a file, not a folder", "choose another path"),
        errno.ELOOP: ("a link stands where a regular file belongs", "put the file itself there"),
        errno.EISDIR: ("a folder, a pipe or a device stands where a file belongs", "remove it"),
    }
)


def explain(error: OSError, path: Path) -> str:
    """The message for a person: what happened to `path`, and what to do."""
    what, advice = _EXPLANATIONS.get(
        error.errno or 0, (error.strerror or type(error).__name__, "check the path and the disk")
    )
    if error.errno in (errno.ELOOP, errno.EISDIR, errno.EOVERFLOW):
        return f"{path} cannot be used: {what}; {advice}, then go on."
    return f"{what}: could not write {path}. What was stored before is intact; {advice}, then go on."


def user_path(path: str | os.PathLike[str]) -> Path:
    """`path` with a leading `~` replaced by the user's home folder, as shells do."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 - pathlib's raises where a user is unknown


def absolute(path: str | os.PathLike[str]) -> Path:
    """`user_path` as an absolute path. Raises StorageError if the working directory was deleted."""
    try:
        return user_path(path).absolute()
    except FileNotFoundError:
        raise StorageError(
            "the working directory was deleted; go to another folder (cd), then try again"
        ) from None


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turns an OSError inside the block into a StorageError about `path`."""
    try:
        yield
    except OSError as error:
        raise StorageError(explain(error, path)) from error


@contextmanager
def opened(path: Path, flags: int, disk: Disk = DISK) -> Iterator[int]:
    """Opens `path`; yields its file descriptor and closes it at the end of the block. Raises OSError."""
    fd = disk.open(path, flags)
    try:
        yield fd
    finally:
        disk.close(fd)


def read_file(path: Path, disk: Disk = DISK, *, most: int = MAX_TEXT_BYTES) -> bytes:
    """The content of a regular file of at most `most` bytes.

    Raises OSError before it reads if `path` is a link, a folder, a pipe, a device or a larger file.
    """
    with opened(path, os.O_RDONLY | PLAIN, disk) as fd:
        pieces: list[bytes] = []
        total = 0
        while True:
            size = disk.size(fd)
            if max(size, total) > most:
                raise OSError(errno.EOVERFLOW, f"it has {size:,} bytes, where at most {most:,} are read")
            piece = disk.read(fd, max(1, size))
            if not piece:
                return b"".join(pieces)  # for a single piece this copies nothing
            pieces.append(piece)
            total += len(piece)


def write_all(fd: int, data: bytes | memoryview, disk: Disk = DISK) -> None:
    """Writes all of `data`, in several calls if the system takes fewer bytes at a time. Raises OSError."""
    rest = memoryview(data)
    while rest:
        written = disk.write(fd, rest)
        if written == 0:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        rest = rest[written:]


def write_durable(path: Path, pieces: Iterable[bytes | memoryview], disk: Disk = DISK) -> None:
    """Writes `pieces` one after the other into a file and fsyncs it. The file's name is durable only after
    `sync_folder` of its folder. Raises OSError."""
    with opened(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, disk) as fd:
        for piece in pieces:
            write_all(fd, piece, disk)
        disk.fsync(fd)


def sync_folder(folder: Path, disk: Disk = DISK) -> None:
    """Makes the names in `folder` durable: those of files created, renamed or removed. Raises OSError."""
    with opened(folder, os.O_RDONLY | os.O_DIRECTORY, disk) as fd:
        disk.fsync(fd)


def commit_file(path: Path, data: bytes, disk: Disk = DISK) -> None:
    """Creates or replaces a file. After a crash at any moment, `path` is either the old file or the new one,
    whole. Raises OSError; then it removes its temporary file."""
    temporary = path.with_name(TEMPORARY + path.name)
    try:
        write_durable(temporary, [data], disk)
        disk.rename(temporary, path)
    except BaseException:
        with suppress(OSError):
            disk.unlink(temporary)
        raise
    sync_folder(path.parent, disk)


def make_folder(folder: Path, disk: Disk = DISK) -> None:
    """Makes a folder, and those above it, durably. Does nothing if it exists. Raises OSError."""
    try:
        disk.listdir(folder)
        return
    except FileNotFoundError:
        pass
    if folder.parent != folder:
        make_folder(folder.parent, disk)
    with suppress(FileExistsError):
        disk.mkdir(folder)
    sync_folder(folder.parent, disk)


def remove_folder(folder: Path, disk: Disk = DISK) -> None:
    """Removes a folder and its content. Links are removed, never followed. Raises OSError."""
    for name in sorted(disk.listdir(folder)):
        try:
            disk.unlink(folder / name)
        except (IsADirectoryError, PermissionError):  # some systems raise the second for a folder
            remove_folder(folder / name, disk)
    disk.rmdir(folder)
