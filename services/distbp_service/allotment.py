"""The disk that a runner may fill. Every write is counted, and refused if it would pass the limit."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from distbp.core.errors import QuotaError
from distbp.core.storage import Disk

_BLOCK = 4096  # bytes that a file or folder takes in addition to its content
_ANSWERS = 2  # a write waits for this many answers of the service, then it is refused
# File systems may take further blocks for a file that grew in many pieces, such as a log. No call asks for
# these.
_SPARE = 4 * _BLOCK


class Allotment(Disk):
    """The disk calls of a runner, whose `folder` may have `most` bytes in all (None: no limit).

    A write beyond the limit waits for the service's next answers (see `hear`): the share of a job grows if
    other jobs of its project need less. Then it raises QuotaError. Removing and truncating files is never
    refused.
    """

    def __init__(self, folder: Path, most: int | None) -> None:
        self._folder = folder
        self._most = most
        self._answers = 0
        self._changed = threading.Condition()
        self._used = measured(folder)

    @property
    def used(self) -> int:
        """The bytes in the folder."""
        return self._used

    def hear(self, most: int | None) -> None:
        """Takes the limit from the service's answer to a report of `used`."""
        with self._changed:
            self._most = most
            self._answers += 1
            self._changed.notify_all()

    def measure(self) -> None:
        """Counts the bytes anew, with those that other processes have written."""
        with self._changed:
            self._used = measured(self._folder)

    def open(self, path: Path, flags: int) -> int:
        if flags & os.O_CREAT:
            self._take(_BLOCK)
        return super().open(path, flags)

    def write(self, fd: int, data: memoryview) -> int:
        size = os.fstat(fd).st_size  # a few bytes may begin a block
        self._take(_in_blocks(size + len(data)) - _in_blocks(size))
        return super().write(fd, data)

    def mkdir(self, path: Path) -> None:
        self._take(_BLOCK)
        super().mkdir(path)

    def unlink(self, path: Path) -> None:
        size = _size(path)
        super().unlink(path)
        self._take(-size)

    def rmdir(self, path: Path) -> None:
        super().rmdir(path)
        self._take(-_BLOCK)

    def _take(self, count: int) -> None:
        with self._changed:
            if count > 0 and self._lacks(count):
                self._used = measured(self._folder)
                last = self._answers + _ANSWERS
                while self._lacks(count) and self._answers < last:
                    self._changed.wait()
            if count > 0 and self._lacks(count):
                raise QuotaError(
                    f"the disk that the service gives this job is used up: its folder has {self._used:,}"
                    f" bytes and may have {self._most:,}, with all else that its project keeps. What was"
                    " stored before is intact. Delete jobs, models or datasets of the project, or let the job"
                    " keep fewer checkpoints (checkpoint.keep_last, checkpoint.every_steps), and submit it"
                    " again"
                )
            self._used += count

    def _lacks(self, count: int) -> bool:
        return self._most is not None and self._used + count + _SPARE > self._most


def measured(folder: Path) -> int:
    """The bytes that a folder and its content take on the disk. Links are not followed."""
    total = 0
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return 0
    for entry in entries:
        path = Path(entry.path)
        total += _BLOCK + measured(path) if entry.is_dir(follow_symlinks=False) else _size(path)
    return total


def _in_blocks(count: int) -> int:
    return -(-count // _BLOCK) * _BLOCK


def _size(path: Path) -> int:
    """The bytes that a file takes on the disk: its blocks, but not fewer than its size needs, because some
    file systems count blocks late. 0 if it is gone."""
    try:
        status = path.lstat()
    except OSError:
        return 0
    return max(status.st_blocks * 512, _in_blocks(status.st_size))
