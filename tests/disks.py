"""Disks for tests: one that counts and dies or fails at its n-th call, and one in memory that can lose
everything that was not fsynced."""

from __future__ import annotations

import errno
import os
import random
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distbp.core.storage import Disk

CALLS = tuple(name for name in vars(Disk) if not name.startswith("_"))
CHANGES = ("write", "truncate", "fsync", "mkdir", "rename", "unlink", "rmdir")


class Died(BaseException):
    """The process is gone: not an Exception, so that no handler takes it for a fault of the disk."""


class WatchedDisk(Disk):
    """Passes every call on to `inner`, after telling `before(number, name, arguments)` about it."""

    def __init__(
        self, before: Callable[[int, str, tuple[Any, ...]], None], inner: Disk | None = None
    ) -> None:
        self.inner = inner or Disk()
        self.count = 0
        self._before = before

    def __getattribute__(self, name: str) -> Any:
        if name not in CALLS:
            return super().__getattribute__(name)
        call = getattr(self.inner, name)

        def watched(*arguments: Any) -> Any:
            self.count += 1
            self._before(self.count, name, arguments)
            return call(*arguments)

        return watched


def dies_at(n: int, inner: Disk | None = None, die: Callable[[], None] | None = None) -> WatchedDisk:
    """At call n (from 1) the process dies; a write does half of its work first. Dead for good: no handler
    changes anything afterwards."""

    def before(number: int, name: str, arguments: tuple[Any, ...]) -> None:
        if number < n:
            return
        if number == n and name == "write":
            fd, data = arguments
            disk.inner.write(fd, data[: len(data) // 2]) if len(data) > 1 else None
        if die:
            die()
        raise Died

    disk = WatchedDisk(before, inner)
    return disk


def fails_from(n: int, code: int, names: tuple[str, ...] = CALLS, *, once: bool = False) -> WatchedDisk:
    """The n-th call among `names` fails with errno `code`, and all later ones unless `once`."""
    seen = 0

    def before(_: int, name: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        seen += name in names
        if name in names and (seen == n if once else seen >= n):
            raise OSError(code, os.strerror(code))

    return WatchedDisk(before)


def in_child(function: Callable[[], None]) -> int:
    """Runs `function` in a forked child; returns its exit status (0: it returned)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the child only writes files, and leaves
        child = os.fork()
    if child == 0:
        try:
            function()
            os._exit(0)
        except BaseException:
            os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@dataclass
class File:
    data: bytearray = field(default_factory=bytearray)
    synced: bytes | None = None


@dataclass
class Folder:
    """`log`: every change of names, (name, node or None), in order; the first `synced` of them are safe."""

    log: list[tuple[tuple[str, Any], ...]] = field(default_factory=list)
    synced: int = 0

    def names(self, upto: int | None = None) -> dict[str, Any]:
        names: dict[str, Any] = {}
        for change in self.log[:upto]:
            for name, node in change:
                if node is None:
                    names.pop(name, None)
                else:
                    names[name] = node
        return names


class MemoryDisk(Disk):
    """A disk in memory. A rename is atomic and stays within one folder; nothing else is promised."""

    def __init__(self, root: Folder | None = None) -> None:
        self.root = root or Folder()
        self._open: dict[int, tuple[Any, list[int]]] = {}
        self._next = 100

    def after_power_cut(self, choice: random.Random | None = None) -> MemoryDisk:
        """What is found afterwards. Without `choice` everything not fsynced is lost. With it, of each
        folder's changes of names some first part survived, and of each file's bytes anything may stand."""

        def survive(node: Any) -> Any:
            if isinstance(node, File):
                data = node.synced if node.synced is not None else b""
                if choice and data != node.data:
                    junk = choice.randbytes(len(node.data))
                    data = choice.choice([data, bytes(node.data), b"", bytes(len(node.data)), junk])
                return File(bytearray(data), bytes(data))
            upto = choice.randint(node.synced, len(node.log)) if choice else node.synced
            names = node.names(upto)
            return Folder([tuple((name, survive(child)) for name, child in names.items())], 1)

        return MemoryDisk(survive(self.root))

    def _find(self, path: Path) -> Any:
        node = self.root
        for part in path.parts[1:]:
            if not isinstance(node, Folder):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            node = node.names().get(part)
            if node is None:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        return node

    def open(self, path: Path, flags: int) -> int:
        folder = self._find(path.parent)
        node = folder.names().get(path.name) if path.parent != path else self.root
        if node is None:
            if not flags & os.O_CREAT:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
            node = File()
            folder.log.append(((path.name, node),))
        elif flags & os.O_TRUNC:
            node.data.clear()
        self._next += 1
        at = len(node.data) if flags & os.O_APPEND else 0
        self._open[self._next] = (node, [at])
        return self._next

    def read(self, fd: int, count: int) -> bytes:
        node, place = self._open[fd]
        data = bytes(node.data[place[0] : place[0] + count])
        place[0] += len(data)
        return data

    def write(self, fd: int, data: memoryview) -> int:
        node, place = self._open[fd]
        node.data[place[0] : place[0] + len(data)] = data
        place[0] += len(data)
        return len(data)

    def size(self, fd: int) -> int:
        return len(self._open[fd][0].data)

    def truncate(self, fd: int, size: int) -> None:
        del self._open[fd][0].data[size:]

    def fsync(self, fd: int) -> None:
        node = self._open[fd][0]
        if isinstance(node, File):
            node.synced = bytes(node.data)
        else:
            node.synced = len(node.log)

    def close(self, fd: int) -> None:
        del self._open[fd]

    def mkdir(self, path: Path) -> None:
        folder = self._find(path.parent)
        if path.name in folder.names():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        folder.log.append(((path.name, Folder()),))

    def rename(self, old: Path, new: Path) -> None:
        assert old.parent == new.parent
        folder = self._find(old.parent)
        node, there = folder.names()[old.name], folder.names().get(new.name)
        if isinstance(there, Folder) and there.names():
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY))
        folder.log.append(((old.name, None), (new.name, node)))

    def unlink(self, path: Path) -> None:
        if isinstance(self._find(path), Folder):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        self._find(path.parent).log.append(((path.name, None),))

    def rmdir(self, path: Path) -> None:
        if self._find(path).names():
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY))
        self._find(path.parent).log.append(((path.name, None),))

    def listdir(self, path: Path) -> list[str]:
        node = self._find(path)
        if not isinstance(node, Folder):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        return list(node.names())
