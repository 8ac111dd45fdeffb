"""Asking a run for something while it trains: another number of workers, or to stop.

From the same process by a `Control`, from another one by a small file in the run directory, which the trainer
takes at its next progress report (a few times a second).
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from distbp.errors import StorageError
from distbp.run_directory import LOCK, is_run, read_result
from distbp.storage import DISK, commit_file, explained, user_path

CONTROL = "control.json"
_TAKEN = ".control-taken.json"
MAX_WORKERS = 4096


@dataclass(frozen=True)
class Request:
    """`workers`: how many there shall be; None: as many as there are. `stop`: after the step in progress."""

    workers: int | None = None
    stop: bool = False


NOTHING = Request()


class Control:
    """Give it to `train` or `resume`, and call it from any thread while they wait.

    Calls return at once; what came of them is told as a `TeamChanged` event.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asked = NOTHING

    def scale(self, workers: int) -> None:
        """Asks for another number of workers. It changes the time, never the result. Raises ValueError."""
        checked = _checked(workers)
        with self._lock:
            self._asked = Request(checked, self._asked.stop)

    def stop(self) -> None:
        """Asks for a checkpoint and an end: `train` raises Interrupted, and `resume` goes on later."""
        with self._lock:
            self._asked = Request(self._asked.workers, True)

    def take(self) -> Request:
        """What was asked for since the last call. For the trainer."""
        with self._lock:
            asked, self._asked = self._asked, NOTHING
        return asked


def scale_run(run_dir: str | Path, workers: int) -> None:
    """Asks the process that trains in `run_dir`, on this machine, for another number of workers; does not
    wait.

    What came of it stands in the run's events.jsonl. Raises StorageError where nobody trains there,
    ValueError.
    """
    path = user_path(run_dir)
    checked = _checked(workers)
    if not is_run(path):
        raise StorageError(f"{path} is not a run directory; give the folder that 'distbp train' writes to")
    if not _is_driven(path):
        done = "has ended" if read_result(path) is not None else "is not running"
        more = "" if done == "has ended" else f". Start it with: distbp resume {path} --workers {checked}"
        raise StorageError(f"the run in {path} {done}, so its workers cannot be changed{more}")
    with explained(path / CONTROL):
        commit_file(path / CONTROL, (json.dumps({"workers": checked}) + "\n").encode(), DISK)


def take_file(path: Path) -> Request:
    """Takes what was asked for in the run directory `path` since the last call. A file that cannot be
    understood is removed, and asks for nothing."""
    taken = path / _TAKEN
    try:
        os.replace(path / CONTROL, taken)  # noqa: PTH105 - whoever writes meanwhile writes a new one
    except OSError:
        return NOTHING
    try:
        found = json.loads(taken.read_bytes())
        return Request(_checked(found["workers"]))
    except (OSError, ValueError, KeyError, TypeError):
        return NOTHING
    finally:
        with suppress(OSError):
            taken.unlink()


def _checked(workers: int) -> int:
    if not isinstance(workers, int) or isinstance(workers, bool) or not 0 <= workers <= MAX_WORKERS:
        raise ValueError(f"workers is {workers!r}, but must be a whole number from 0 to {MAX_WORKERS}")
    return workers


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
