"""Receives a dataset: streams it to disk, hashes it, checks its content, and then names it by its hash. Two
uploads of the same bytes give one file."""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool

from distbp.client.settings_file import private
from distbp.core.errors import HostileFileError
from distbp.data.columns.shipping import shipped
from distbp.data.formats.npy import Header
from distbp.data.formats.npz import AGAIN, KIND, describe
from distbp.data.safety import find
from distbp.data.zipped import opened_zip
from distbp_service.api.config import Limits
from distbp_service.api.errors import ForbiddenError, TooLargeError, UnavailableError
from distbp_service.api.places import Places
from distbp_service.errors import BadValueError
from distbp_service.store import Dataset, Store

ARRAYS = ("inputs", "targets", "weights", "lengths", "columns")
TARGETS_OF = "targets."  # the prefix of the targets of one output of several
_INCOMING = ".incoming-"
_LEFT_S = 3600.0  # an upload without a write for so long is abandoned; pauses end it after seconds
NAMES = 100  # the most names of files that are stored with a dataset
_FREE_BYTES = 2**28  # bytes of the disk that stay free for other writes


@dataclass(frozen=True)
class Upload:
    project: str
    name: str
    created_by: str
    sha256: str | None  # as the client gave it


async def receive(
    body: AsyncIterator[bytes], upload: Upload, store: Store, places: Places, limits: Limits
) -> tuple[Dataset, bool]:
    """Receives and stores a dataset. Returns it, and whether it is new to the project.

    Raises BadValueError (the hash differs from the given one, or this is not a dataset), DataError (hostile
    or damaged), ForbiddenError (the project has too many), TooLargeError, UnavailableError (no disk).
    """
    used = await run_in_threadpool(_room, upload.project, store, limits)
    path = places.datasets / f"{_INCOMING}{secrets.token_hex(16)}"
    try:
        await run_in_threadpool(_prepare, places)
        digest, size = hashlib.sha256(), 0
        with open(path, "xb", opener=private) as file:
            async for piece in body:
                size += len(piece)
                if used + size > limits.disk.project:
                    raise _full(limits)
                digest.update(piece)
                await run_in_threadpool(_write, file, piece, places)
            await run_in_threadpool(os.fsync, file.fileno())
        return await run_in_threadpool(_keep, path, digest.hexdigest(), size, upload, store, places, limits)
    except OSError as error:
        raise UnavailableError(
            f"the dataset cannot be stored: {error.strerror or 'the disk failed'}"
        ) from None
    finally:
        with suppress(OSError):
            path.unlink()


def remove(project: str, dataset_id: str, store: Store, places: Places) -> None:
    """Deletes a dataset of the project, and its file if no other project has it. Raises NotFoundError."""
    path = places.dataset(dataset_id)
    with _alone(places):
        if store.datasets.delete(project, dataset_id):
            with suppress(OSError):
                path.unlink()


def _prepare(places: Places) -> None:
    """Makes the folder, and removes unfinished uploads of an API that was killed."""
    places.datasets.mkdir(parents=True, exist_ok=True)
    for path in places.datasets.glob(f"{_INCOMING}*"):
        with suppress(OSError):  # another API does the same
            if time.time() - path.stat().st_mtime > _LEFT_S:
                path.unlink()


def _room(project: str, store: Store, limits: Limits) -> int:
    count = len(store.datasets.page(project, limit=limits.datasets).items)
    if count >= limits.datasets:
        raise ForbiddenError(f"the project has {count} datasets, and may have no more; delete some")
    return store.disk_bytes(project)


def _full(limits: Limits) -> TooLargeError:
    return TooLargeError(
        f"the project's datasets, jobs and models may have {limits.disk.project:,} bytes together; delete"
        " some"
    )


def _write(file: Any, piece: bytes, places: Places) -> None:
    if shutil.disk_usage(places.datasets).free < _FREE_BYTES + len(piece):
        raise UnavailableError("the disk for datasets is full; delete some, or ask who runs the service")
    file.write(piece)


def _keep(
    path: Path, digest: str, size: int, upload: Upload, store: Store, places: Places, limits: Limits
) -> tuple[Dataset, bool]:
    if upload.sha256 is not None and upload.sha256 != digest:
        raise BadValueError(
            f"the bytes that came have the SHA-256 {digest}, not the one given; send them again", "sha256"
        )
    info = _looked_at(path)
    dataset_id = f"ds_{digest}"
    final = places.dataset(dataset_id)
    with _alone(places):
        if store.disk_bytes(upload.project) + size > limits.disk.project:
            raise _full(limits)  # others came meanwhile
        path.replace(final)  # over an equal one, if it is there
        folder = os.open(final.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return store.datasets.add(
            upload.project, dataset_id, name=upload.name, size=size, info=info, created_by=upload.created_by
        )


def _looked_at(path: Path) -> dict[str, Any]:
    """Reads the whole archive within the limits and describes it: its arrays, or the names of a table's
    files, which are not parsed here."""
    with open(path, "rb") as begun:
        first = begun.read(2)
    if first != b"PK":
        what = "not an archive" if first else "empty"
        raise BadValueError(
            f"the body is {what}; send an .npz archive, as numpy.savez writes it, or a zip archive of the"
            " files of a table (`zip -0 -r data.zip FILES`)",
            "body",
        )
    file = find(path.parent, path.name, confined=True)._replace(name="the dataset")
    with opened_zip(file, KIND, AGAIN) as (_, entries):
        is_table = bool(entries) and not any(name.endswith(".npy") for name in entries)
    if is_table:
        names = sorted(shipped(file))
        return {"files": len(names), "names": names[:NAMES]}
    return _arrays_in(describe(file))


def _arrays_in(found: Mapping[str, Header]) -> dict[str, Any]:
    """Checks the arrays of a dataset and returns their shapes and dtypes."""
    strange = sorted(name for name in found if name not in ARRAYS and not name.startswith(TARGETS_OF))
    if strange or "inputs" not in found:
        what = f"it has an array {strange[0][:80]!r}" if strange else "it has no array 'inputs'"
        raise BadValueError(
            f"{what}; a dataset is an .npz archive of inputs and, where there are any, targets and weights,"
            " or a zip archive of the files of a table",
            "body",
        )
    rows = {header.shape[:1] for name, header in found.items() if name != "columns"}
    if len(rows) > 1 or rows == {()}:
        raise BadValueError("its arrays do not have the same number of rows", "body")
    text = ("targets", "columns")  # labels, and the names of the inputs
    if not all(
        header.dtype.kind in ("fiubUS" if name in text or name.startswith(TARGETS_OF) else "fiub")
        for name, header in found.items()
    ):
        raise HostileFileError("the dataset holds something else than numbers")
    return {
        "rows": next(iter(rows))[0],
        "arrays": {
            name: {"shape": list(header.shape), "dtype": str(header.dtype)}
            for name, header in sorted(found.items())
        },
    }


@contextmanager
def _alone(places: Places) -> Iterator[None]:
    """Within this block no other process or thread names or removes datasets. Waits."""
    places.datasets.mkdir(parents=True, exist_ok=True)
    with open(places.datasets / ".lock", "w", opener=private) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
