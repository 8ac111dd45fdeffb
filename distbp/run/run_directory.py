"""A run directory: everything that one training run leaves on disk.

    job.yaml        the job, with its data's folder as an absolute path
    events.jsonl    what happened and when, over all attempts; lines are only added
    metrics.jsonl   the metrics, without times, so that a run that was killed and resumed leaves the same
                    bytes as one that was not
    checkpoints/    see distbp.run.checkpoint
    model/          see distbp.model
    result.json     written once, at the end
    .lock           locked by the process that drives the run; holds its number
    init/           the model that training began with, if the job names one (see distbp.run.warm_start)

A checkpoint keeps the length and the digest of metrics.jsonl; resuming cuts the file back to it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from distbp.core.errors import CheckpointError, StorageError
from distbp.core.storage import (
    DISK,
    PLAIN,
    TEMPORARY,
    Disk,
    commit_file,
    explained,
    make_folder,
    read_file,
    sync_folder,
    write_all,
)

if TYPE_CHECKING:
    from distbp.job import TrainingJob

JOB, EVENTS, METRICS, RESULT, LOCK = "job.yaml", "events.jsonl", "metrics.jsonl", "result.json", ".lock"
EMPTY_SHA256 = hashlib.sha256().hexdigest()
_MAX_JOB_BYTES = 1 << 22
_TAIL = 1 << 14
_WRITE_AGAIN = "remove it, and 'distbp resume' writes it again from the last checkpoint"


def json_line(record: Mapping[str, Any], leading: Sequence[str] = ("step", "epoch")) -> bytes:
    """A record as one line of JSON, with one spelling: the keys in `leading` first, the others sorted; floats
    in the shortest form that keeps every bit; values as `as_json` converts them."""
    keys = [key for key in leading if key in record] + sorted(record.keys() - set(leading))
    plain = {key: as_json(record[key]) for key in keys}
    return (json.dumps(plain, allow_nan=False, ensure_ascii=False) + "\n").encode()


def as_json(value: Any) -> Any:
    """Converts a value to JSON: NumPy's numbers to Python's, NaN and infinities to null, keys and paths to
    text, tuples to lists."""
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): as_json(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(inner) for inner in value]
    if isinstance(value, Path):
        return str(value)
    return value


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The records of a .jsonl file, oldest first; [] if the file is absent. An unfinished last line, which is
    being written or whose writer was killed, is left out."""
    with explained(path):
        try:
            data = read_file(path)
        except FileNotFoundError:
            return []
    return [json.loads(line) for line in data.split(b"\n")[:-1]]


def last_line(path: Path) -> dict[str, Any]:
    """The last whole record of a .jsonl file, which must have one."""
    with explained(path), open(path, "rb") as file:
        size, block = file.seek(0, os.SEEK_END), _TAIL
        while True:
            file.seek(max(0, size - block))
            lines = file.read().split(b"\n")[:-1]  # without an unfinished line at the end
            if len(lines) > 1 or block >= size:
                return dict(json.loads(lines[-1]))
            block *= 4


def read_result(path: Path) -> dict[str, Any] | None:
    """The result.json of the run in `path`; None if there is none yet. Raises CheckpointError if it is
    damaged, StorageError."""
    with explained(path / RESULT):
        try:
            data = read_file(path / RESULT)
        except FileNotFoundError:
            return None
    try:
        return dict(json.loads(data))
    except (ValueError, TypeError, RecursionError):
        raise CheckpointError(f"{path / RESULT} is not what distbp wrote; {_WRITE_AGAIN}") from None


def is_run(path: Path) -> bool:
    return (path / JOB).is_file()


def read_job(path: Path) -> TrainingJob:
    """The job of the run in `path`. If its data's folder no longer exists, the folder is set to the place
    that it has if run and data were moved together. Raises JobError, StorageError."""
    from distbp.job import TrainingJob

    job = TrainingJob.from_yaml(job_text(path), str(path / JOB))
    folder = Path(job.data.folder or path)
    if folder.is_dir() or (began := _began_in(path)) is None:
        return job
    moved = Path(os.path.normpath(path.absolute() / os.path.relpath(folder, began)))
    return job.replace(data=job.data.model_copy(update={"folder": str(moved)})) if moved.is_dir() else job


def job_text(path: Path) -> str:
    """The text of a run's job.yaml."""
    with explained(path / JOB):
        return read_file(path / JOB, most=_MAX_JOB_BYTES).decode("utf-8", "replace")


def _began_in(path: Path) -> Path | None:
    """The path of the run directory when the run began, from events.jsonl; None if that has none."""
    with suppress(OSError, ValueError, KeyError, TypeError, StorageError):
        return Path(next(line["run_dir"] for line in read_lines(path / EVENTS) if "run_dir" in line))
    return None


class RunDirectory:
    """The run directory that this process drives, locked until `close` or the end of the process.

    Make one with `create` or `open`, and use it as a context manager. A method that writes raises
    StorageError if the disk refuses, and leaves whole lines and whole files. Forked children inherit the
    lock; other child processes do not.
    """

    def __init__(self, path: Path, lock: int, disk: Disk, clock: Callable[[], float]) -> None:
        self.path = path
        self._lock = lock
        self.disk = disk
        self._clock = clock
        self._events = -1
        self._metrics = -1
        self._metrics_hash = hashlib.sha256()  # of metrics.jsonl as it is

    @classmethod
    def create(
        cls, path: Path, job_text: str, *, disk: Disk = DISK, clock: Callable[[], float] = time.time
    ) -> Self:
        """Starts a run in `path`, a folder that is absent or empty, with `job_text` as its job.yaml.

        Raises StorageError if the folder holds a run, which may be resumed, or other files, which are never
        mixed with a run.
        """
        with explained(path):
            make_folder(path, disk)
            _check_empty(path, disk)
        return cls._locked(path, disk, clock)._opened(job_text)

    @classmethod
    def open(cls, path: Path, *, disk: Disk = DISK, clock: Callable[[], float] = time.time) -> Self:
        """Takes over an existing run, to resume it. Raises StorageError if `path` is not a run directory, or
        if another process drives it."""
        if not is_run(path):
            what = "is not a run directory (it has no job.yaml)" if path.exists() else "does not exist"
            raise StorageError(f"{path} {what}; give the folder that 'distbp train' wrote to")
        return cls._locked(path, disk, clock)._opened()

    @classmethod
    def _locked(cls, path: Path, disk: Disk, clock: Callable[[], float]) -> Self:
        with explained(path / LOCK):
            fd = disk.open(path / LOCK, os.O_RDWR | os.O_CREAT | PLAIN)
            try:
                disk.size(fd)  # raises if it is not a plain file
            except BaseException:
                disk.close(fd)
                raise
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = disk.read(fd, 32).decode("ascii", "replace").strip()
            disk.close(fd)
            if not isinstance(error, BlockingIOError):
                raise StorageError(
                    f"{path} cannot be locked ({error.strerror}); choose a folder on a local disk"
                ) from error
            raise StorageError(
                f"{path} is in use by process {holder or 'unknown'}: two processes cannot drive one run."
                " Wait until it ends, or stop it first"
            ) from None
        # The number of the process is only for people, so a full disk does not matter here.
        with suppress(OSError):
            disk.truncate(fd, 0)
            write_all(fd, f"{os.getpid()}\n".encode(), disk)
        return cls(path, fd, disk, clock)

    def _opened(self, job_text: str | None = None) -> Self:
        """Opens the files and returns self. job_text: of a new run."""
        try:
            if job_text is not None:
                with explained(self.path / JOB):
                    # Another process may have begun a run here before this one got the lock.
                    _check_empty(self.path, self.disk)
                    commit_file(self.path / JOB, job_text.encode(), self.disk)
            with explained(self.path / EVENTS):
                self._events, _ = _open_log(self.path / EVENTS, self.disk)
            with explained(self.path / METRICS):
                self._metrics, lines = _open_log(self.path / METRICS, self.disk)
                self._metrics_hash.update(lines)
        except BaseException:
            self.close()
            raise
        return self

    def close(self) -> None:
        """Closes the files and releases the lock. May be called again."""
        for fd in (self._events, self._metrics, self._lock):
            if fd >= 0:
                with suppress(OSError):
                    self.disk.close(fd)
        self._events = self._metrics = self._lock = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def model(self) -> Path:
        return self.path / "model"

    def write_job(self, text: str) -> None:
        """Replaces job.yaml, and removes the result of the former job: the run goes on."""
        with explained(self.path / JOB):
            commit_file(self.path / JOB, text.encode(), self.disk)
            if RESULT in self.disk.listdir(self.path):
                self.disk.unlink(self.path / RESULT)
                sync_folder(self.path, self.disk)

    def append_metric(self, record: Mapping[str, Any]) -> None:
        """Adds one line to metrics.jsonl (see `json_line`), at once visible to readers. The record must not
        depend on time, machine or number of workers."""
        self.append_metric_text(json_line(record))

    def append_metric_text(self, text: bytes) -> None:
        """Adds lines to metrics.jsonl, as `json_line` makes them."""
        self._append(self._metrics, METRICS, text)
        self._metrics_hash.update(text)

    def append_event(self, kind: str, /, **fields: Any) -> None:
        """Adds {"time": (UTC, ISO 8601), "event": kind, ...} to events.jsonl, at once visible to readers."""
        moment = datetime.fromtimestamp(self._clock(), UTC).isoformat(timespec="milliseconds")
        record = {**fields, "time": moment.replace("+00:00", "Z"), "event": kind}
        self._append(self._events, EVENTS, json_line(record, ("time", "event", "step", "epoch")))

    def metrics_seal(self) -> tuple[int, str]:
        """Makes metrics.jsonl durable, and returns its length in bytes and its SHA-256, for the checkpoint
        that is about to be saved."""
        with explained(self.path / METRICS):
            self.disk.fsync(self._metrics)
            self.disk.fsync(self._events)
            return self.disk.size(self._metrics), self._metrics_hash.hexdigest()

    def check_metrics(self, offset: int, sha256: str) -> bytes:
        """The first `offset` bytes of metrics.jsonl. Raises CheckpointError if they are not those that
        `metrics_seal` saw."""
        path = self.path / METRICS
        with explained(path):
            data = read_file(path, self.disk)[:offset]
        if hashlib.sha256(data).hexdigest() != sha256:
            raise CheckpointError(
                f"{path} was changed after the checkpoint was saved: its first {offset:,} bytes are not what"
                " they were. Put the file back, or train again from the start"
            )
        return data

    def has_metrics(self, offset: int, sha256: str, more: bytes) -> bool:
        """Whether metrics.jsonl begins with the bytes that `metrics_seal` saw, and goes on with `more` or
        with a beginning of it."""
        with explained(self.path / METRICS):
            data = read_file(self.path / METRICS, self.disk)
        rest = data[offset : offset + len(more)]
        return hashlib.sha256(data[:offset]).hexdigest() == sha256 and more.startswith(rest)

    def rewind_metrics(self, offset: int, sha256: str = EMPTY_SHA256) -> None:
        """Cuts metrics.jsonl back to the length and digest that `metrics_seal` returned when the checkpoint
        was saved (0: removes all lines). Raises CheckpointError if the file was changed before that place."""
        data = self.check_metrics(offset, sha256)
        with explained(self.path / METRICS):
            self.disk.truncate(self._metrics, offset)
            self.disk.fsync(self._metrics)
        self._metrics_hash = hashlib.sha256(data)

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Writes result.json, whole or not at all. Replaces an earlier one."""
        text = json.dumps(as_json(dict(result)), indent=2, allow_nan=False, ensure_ascii=False) + "\n"
        with explained(self.path / RESULT):
            self.disk.fsync(self._metrics)
            self.disk.fsync(self._events)
            commit_file(self.path / RESULT, text.encode(), self.disk)

    def _append(self, fd: int, name: str, line: bytes) -> None:
        with explained(self.path / name):
            start = self.disk.size(fd)
            try:
                write_all(fd, line, self.disk)
            except BaseException:
                with suppress(OSError):
                    self.disk.truncate(fd, start)  # no half line stays
                raise


def _check_empty(path: Path, disk: Disk) -> None:
    names = [n for n in disk.listdir(path) if n != LOCK and not n.startswith(TEMPORARY)]
    if JOB in names:
        raise StorageError(
            f"{path} holds a run already. Go on with it: distbp resume {path}; or choose another folder"
        )
    if names:
        raise StorageError(
            f"{path} is not empty (it holds {min(names)}) and is not a run directory; choose another folder"
        )


def _open_log(path: Path, disk: Disk) -> tuple[int, bytes]:
    """Opens a .jsonl file for appending, and cuts off an unfinished last line. Returns the file descriptor
    and the lines."""
    fd = disk.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | PLAIN)
    data = read_file(path, disk)
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        disk.truncate(fd, whole)
    return fd, data[:whole]
