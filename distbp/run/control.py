"""Asking a run of another process for another number of workers: by a small file in its run directory, which
the trainer takes at its next progress report (a few times a second). In the same process, see `Control`.
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
REQUESTS_S = 0.25  # between two looks for requests in the run directory
_TAKEN = ".control-taken.json"


class Requests:
    """The workers that somebody asked for: by `control`, or in the run directory `path`, at which it looks
    a few times a second. `latest`: what was asked for last. Any thread may call it."""

    def __init__(self, control: Control, path: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._control, self._path, self._clock = control, path, clock
        self._looked_at = 0.0
        self.latest: int | None = None
        self._lock = threading.Lock()
        take_file(path)  # it was meant for a process that is gone

    def asked(self) -> int | None:
        """Since the last call; None: nobody asked. For the trainer."""
        with self._lock:
            found = self._control.asked()
            if found is None and self._clock() - self._looked_at >= REQUESTS_S:
                self._looked_at = self._clock()
                found = take_file(self._path)
            self.latest = self.latest if found is None else found
            return found


def scale_run(run_dir: str | Path, workers: int) -> None:
    """Asks the process that trains in `run_dir`, on this machine, for another number of workers; does not
    wait.

    What came of it stands in the run's events.jsonl. Raises StorageError where nobody trains there,
    ArgumentError.
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
    """Takes the workers asked for in the run directory `path` since the last call; None: nobody asked. A file
    that cannot be understood is removed, and asks for nothing."""
    taken = path / _TAKEN
    try:
        os.replace(path / CONTROL, taken)  # noqa: PTH105 - whoever writes meanwhile writes a new one
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
