"""The files on the work volume. None outside of it is opened, even through a link.

<job>/                          the folder of a job (see distbp_service.runner)
<job>/run/                      its run directory (see distbp.run.run_directory)
datasets/ds_<sha256>.npz        a dataset: a zip archive of arrays, or of the files of a table
datasets/.incoming-<random>     an upload in progress
dispatcher.alive                touched by the dispatcher in every round
dispatcher.lock                 locked by the dispatcher while it works
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from distbp.core.errors import DataError
from distbp.data.safety import resolve
from distbp.model.archive import MODEL, WEIGHTS
from distbp.run.checkpoint import MANIFEST, STATE, list_steps
from distbp_service.errors import NotFoundError

_DATASET = re.compile(r"ds_[0-9a-f]{64}")
_PIECE = 2**18
_MAX_MANIFEST = 2**24
_TAR_BLOCK = 512


@dataclass(frozen=True)
class CheckpointFile:
    """A finished checkpoint. `bytes`, `sha256`: of its state.safetensors, from its manifest. `created_at`:
    seconds since 1970."""

    step: int
    bytes: int
    sha256: str
    created_at: float


@dataclass(frozen=True)
class Places:
    work: Path

    def run(self, job_id: str) -> Path:
        return self.work / job_id / "run"

    @property
    def datasets(self) -> Path:
        return self.work / "datasets"

    def dataset(self, dataset_id: str) -> Path:
        """The file of a dataset. Raises NotFoundError if the id is not valid."""
        if not _DATASET.fullmatch(dataset_id):
            raise NotFoundError(f"there is no dataset {dataset_id[:80]}")
        return self.datasets / f"{dataset_id}.npz"

    def model(self, path: str) -> Path:
        """The folder of a model, from its `path` in the store. Raises NotFoundError."""
        try:
            return resolve(self.work, path, confined=True)
        except DataError:
            raise NotFoundError("the model is not on the work volume") from None

    def dispatcher_seen(self) -> float | None:
        try:
            return (self.work / "dispatcher.alive").stat().st_mtime
        except OSError:
            return None

    def checkpoints(self, job_id: str) -> list[CheckpointFile]:
        """The checkpoints of a job, in the order of their steps. Those removed meanwhile are left out."""
        folder = self.run(job_id) / "checkpoints"
        try:
            steps = list_steps(folder)
        except OSError:
            return []
        found = (_checkpoint(folder, step) for step in steps)
        return [checkpoint for checkpoint in found if checkpoint is not None]

    def open_checkpoint(self, job_id: str, step: int) -> tuple[CheckpointFile, BinaryIO]:
        """Opens the state.safetensors of a checkpoint. It can be read to the end even if the checkpoint is
        removed. Raises NotFoundError."""
        folder = self.run(job_id) / "checkpoints"
        found = _checkpoint(folder, step)
        if found is None:
            raise NotFoundError(f"there is no checkpoint of step {step}")
        handle = open_file(folder / f"step-{step:08d}" / STATE)
        if os.fstat(handle.fileno()).st_size != found.bytes:
            handle.close()
            raise NotFoundError(f"the checkpoint of step {step} is damaged; take another")
        return found, handle

    def remove_job(self, job_id: str, *, keep_model: bool) -> None:
        """Removes the files of a job that has ended. keep_model: except those of its model."""
        if not keep_model:
            _remove(self.work / job_id)
            return
        _remove_but(self.work / job_id, "run")
        _remove_but(self.run(job_id), "model")

    def remove_model(self, job_id: str, *, keep_job: bool) -> None:
        """Removes the files of a model. Without `keep_job` it also removes those of its job, which was
        deleted before."""
        _remove(self.run(job_id) / "model" if keep_job else self.work / job_id)


def _remove_but(folder: Path, name: str) -> None:
    try:
        entries = [entry for entry in folder.iterdir() if entry.name != name]
    except OSError:
        return
    for entry in entries:
        _remove(entry)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def _checkpoint(folder: Path, step: int) -> CheckpointFile | None:
    try:
        with open_file(folder / f"step-{step:08d}" / MANIFEST) as handle:
            content: Any = json.loads(handle.read(_MAX_MANIFEST))
            moment = os.fstat(handle.fileno()).st_mtime
        entry = content["files"][STATE]
        return CheckpointFile(step, int(entry["bytes"]), str(entry["sha256"]), moment)
    except (NotFoundError, ValueError, KeyError, TypeError):
        return None


def open_file(path: Path) -> BinaryIO:
    """Opens a regular file for reading. Raises NotFoundError for links and other files."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        raise NotFoundError("the file is no longer there") from None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise NotFoundError("the file is no longer there")
    return os.fdopen(fd, "rb")


def contents(handle: BinaryIO) -> Iterator[bytes]:
    """Yields an open file in pieces, then closes it."""
    with handle:
        while piece := handle.read(_PIECE):
            yield piece


def model_tar(folder: Path) -> tuple[int, Iterator[bytes]]:
    """The length in bytes and the pieces of a tar archive of a model's folder. The same model gives the same
    bytes. Raises NotFoundError if the files are gone.
    """
    handles: list[tuple[str, BinaryIO, int]] = []
    try:
        for name in (MODEL, WEIGHTS):
            handle = open_file(folder / name)
            handles.append((name, handle, os.fstat(handle.fileno()).st_size))
    except NotFoundError:
        for _, handle, _ in handles:
            handle.close()
        raise
    length = sum(_TAR_BLOCK + size + -size % _TAR_BLOCK for _, _, size in handles) + 2 * _TAR_BLOCK
    return length, _tar(handles)


def _tar(handles: list[tuple[str, BinaryIO, int]]) -> Iterator[bytes]:
    try:
        for name, handle, size in handles:
            info = tarfile.TarInfo(f"model/{name}")
            info.size, info.mode = size, 0o644
            yield info.tobuf(tarfile.GNU_FORMAT)
            left = size
            while left:
                piece = handle.read(min(_PIECE, left))
                if not piece:
                    raise OSError(f"{name} became shorter while it was read")
                left -= len(piece)
                yield piece
            yield b"\0" * (-size % _TAR_BLOCK)
        yield b"\0" * (2 * _TAR_BLOCK)
    finally:
        for _, handle, _ in handles:
            handle.close()
