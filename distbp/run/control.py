"""Requests for another number of workers to a run in another process. A request is a small file in the run
directory. The trainer takes it at its next progress report, a few times a second. For a run in the same
process, see `Control`.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from distbp.core.arguments import path_given, workers_given
from distbp.core.errors import StorageError
from distbp.core.interrupts import Control
from distbp.core.storage import DISK, commit_file, explained
from distbp.run.run_directory import LOCK, is_run, read_result

CONTROL = "control.json"
REQUESTS_S = 0.25  # the least time between two looks into the run directory
_TAKEN = ".control-taken.json"


class Requests:
    """Requests for workers by `control`, or by a file in the run directory `path`. `latest`: the number asked
    for last, or None. Any thread may call the methods."""

    def __init__(self, control: Control, path: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._control, self._path, self._clock = control, path, clock
        self._looked_at = 0.0
        self.latest: int | None = None
        self._lock = threading.Lock()
        take_file(path)  # a request to an earlier process

    def asked(self) -> int | None:
        """The workers asked for since the last call, or None. For the trainer."""
        with self._lock:
            workers = self._control.asked()
            if workers is None and self._clock() - self._looked_at >= REQUESTS_S:
                self._looked_at = self._clock()
                workers = take_file(self._path)
            self.latest = self.latest if workers is None else workers
            return workers


def scale_run(run_dir: str | Path, workers: int) -> None:
    """Asks the process that trains in `run_dir`, on this machine, for another number of workers; does not
    wait.

    The run's events.jsonl tells whether the trainer could follow. Raises StorageError if no process trains
    there, ArgumentError.
    """
    path = path_given(run_dir, "run_dir")
    checked = workers_given(workers)
    if not is_run(path):
        raise StorageError(f"{path} is not a run directory; give the folder that 'distbp train' writes to")
    if not _is_driven(path):
        done = "has ended" if read_result(path) is not None else "is not running"
        more = "" if done == "has ended" else f". Start it with: distbp resume {path} --workers {checked}"
        raise StorageError(f"the run in {path} {done}, so its workers cannot be changed{more}")
    with explained(path / CONTROL):
        commit_file(path / CONTROL, (json.dumps({"workers": checked}) + "\n").encode(), DISK)


def take_file(path: Path) -> int | None:
    """Removes the request in the run directory `path`, and returns its number of workers. None if there is no
    request, or if the file cannot be understood."""
    taken = path / _TAKEN
    try:
        os.replace(path / CONTROL, taken)  # noqa: PTH105 - a request written meanwhile is a new file
    except OSError:
        return None
    try:
        found = json.loads(taken.read_bytes())
        return workers_given(found["workers"])  # type: ignore[no-any-return]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    finally:
        with suppress(OSError):
            taken.unlink()


def _is_driven(path: Path) -> bool:
    """Whether a process holds the run's lock."""
    try:
        fd = os.open(path / LOCK, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False
