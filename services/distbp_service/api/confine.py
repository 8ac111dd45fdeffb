"""Confines submitted jobs to data that they may use: generated and built-in data, datasets of their project,
files in the service's data folder, and tables at the addresses that DISTBP_REMOTE allows."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from distbp.core.errors import DataError, Fault, JobError
from distbp.core.metric_names import SPLITS
from distbp.core.options import paths
from distbp.data.addresses import allowed, is_address
from distbp.data.columns.files import find_files
from distbp.data.formats import Arrays, TableFiles
from distbp.data.safety import find, resolve
from distbp.engine.memory_need import needed, too_much
from distbp.job import TrainingJob, WorkerRange
from distbp.nn.layers.base import Shape
from distbp.nn.wiring import entering
from distbp_service.errors import NotFoundError
from distbp_service.policy import slots_for
from distbp_service.store import Store

DATASET = re.compile(r"dataset:(ds_[0-9a-f]{64})(?:/(.+))?")  # group 2: a file or pattern of a table
MODEL = re.compile(r"model:(mdl_[0-9a-z]{1,64})")


def check_data(job: TrainingJob, project: str, store: Store, data_folder: Path | None) -> None:
    """Raises JobError, with every fault, if the job names data that it may not use. Does not use the
    network."""
    faults = list(_faults(job, project, store, data_folder))
    if faults:
        raise JobError(faults)


def slots_of(job: TrainingJob) -> tuple[int, int]:
    """The fewest slots that a job runs with, and the most that it takes. See `policy.slots_for`."""
    if isinstance(job.workers, WorkerRange):
        return slots_for(job.workers.min, job.servers), slots_for(job.workers.max, job.servers)
    slots = slots_for(0 if job.workers == "auto" else job.workers, job.servers)
    return slots, slots


def check_room(job: TrainingJob, project: str, store: Store) -> None:
    """Raises JobError if the job needs more slots or memory than it can ever have here."""
    faults, room, memory = [], store.queue.room(), store.queue.memory_bytes()
    least = slots_of(job)[0]
    if room is not None and least > room.widest:
        whose = "the service has" if room.widest == room.slots else "a project may have"
        path = "workers.min" if isinstance(job.workers, WorkerRange) else "workers"
        faults.append(
            Fault(
                path,
                f"needs {least:,} slots, and {whose} {room.widest:,}: it could never start; ask for at most"
                f" {room.widest:,}",
            )
        )
    if memory is not None:
        shape, rows = _known_data(job, project, store)
        item = 8 if job.dtype == "float64" else 4
        data = 0 if shape is None else sum(rows.values()) * math.prod(shape) * item
        need = needed(job, shape, rows, data=data)
        faults += too_much(need, memory, "the service's machine has {}")
    if faults:
        raise JobError(faults)


def _known_data(job: TrainingJob, project: str, store: Store) -> tuple[Shape | None, dict[str, int]]:
    """The shape of a row of the training set, and the number of its rows, {"train": number}; None and {} if
    neither the job nor the upload tells them."""
    match = DATASET.fullmatch(str(getattr(job.data.train, "path", "")))
    if match is None:
        source = job.data.train
        features, samples, rows = (getattr(source, name, None) for name in ("features", "samples", "rows"))
        number = samples if rows is None else rows[1] - rows[0]
        return None if features is None else (features,), {} if number is None else {"train": number}
    info = store.datasets.get(project, match[1]).info
    if "arrays" not in info:  # only the runner opens tables
        return None, {}
    shape = info["arrays"]["inputs"]["shape"]
    return entering(job.model.layers, tuple(shape[1:])), {"train": int(shape[0])}


def _faults(job: TrainingJob, project: str, store: Store, data_folder: Path | None) -> Iterator[Fault]:
    uploads, files = False, False
    if job.data.train is None:
        yield Fault("data.train", "is required: a service has no arrays at hand; upload a dataset, or submit"
                    " from Python with data=(X, y)")  # fmt: skip
    for split in SPLITS:
        source = getattr(job.data, split)
        if source is None:
            continue
        if isinstance(source, Arrays):
            yield Fault(
                f"data.{split}",
                f"{source.type!r} lives in the memory of the process that made it; upload it as a dataset",
            )
            continue
        for name in paths(source):
            path = getattr(source, name)
            if path is None:
                continue
            where = f"data.{split}.{name}"
            if path.startswith("dataset:"):
                uploads = True
                yield from _dataset_faults(where, path, source.type, project, store)
            elif is_address(path) and isinstance(source, TableFiles):
                yield from _address_faults(where, path)
            else:
                files = True
                yield from _file_faults(where, source, path, job.data.folder, data_folder)
    if uploads and files:
        yield Fault("data", "mixes uploaded datasets with files of the service; use one kind in a job")
    yield from _init_faults(job.init, project, store)
    if job.data.folder is not None and not files:
        yield Fault("data.folder", "is only for files of the service; leave it out")


def _address_faults(where: str, path: str) -> Iterator[Fault]:
    """Yields the fault of an address that the runner may not read. Does not use the network."""
    try:
        allowed(path)
    except DataError as error:
        yield Fault(where, str(error))


def _init_faults(init: str | None, project: str, store: Store) -> Iterator[Fault]:
    if init is None:
        return
    match = MODEL.fullmatch(init)
    if match is None:
        yield Fault("init", "is not a model of this service; write model:ID, as `distbp models` lists them")
        return
    try:
        store.models.get(project, match[1])
    except NotFoundError:
        yield Fault("init", f"there is no model {match[1]}; `distbp models` lists those that there are")


def _dataset_faults(where: str, path: str, kind: str, project: str, store: Store) -> Iterator[Fault]:
    match = DATASET.fullmatch(path)
    if match is None:
        yield Fault(where, "is not a dataset; write dataset:ds_ and 64 hexadecimal digits, as uploading gave")
        return
    try:
        info = store.datasets.get(project, match[1]).info
    except NotFoundError:
        yield Fault(where, f"there is no dataset {match[1]}; upload it first")
        return
    holds = "npz" if "arrays" in info else "table"
    if kind != holds:
        what = "arrays" if holds == "npz" else "files of a table"
        yield Fault(where, f"is an uploaded dataset of {what}, so the format is {holds!r}, not {kind!r}")
    elif match[2] is not None:
        yield from _inner_faults(where, match[2], info)


def _inner_faults(where: str, inner: str, info: Mapping[str, Any]) -> Iterator[Fault]:
    """Yields the fault of the part of a path after the dataset. The runner checks patterns."""
    if "arrays" in info:
        yield Fault(where, "is an uploaded dataset of arrays, which has no files: end the path after its id")
        return
    if ".." in inner.split("/") or inner.startswith("/"):
        yield Fault(where, "'..' is not allowed in a data path; name a file of the dataset")
        return
    names, whole = info["names"], len(info["names"]) == info["files"]
    if (
        whole
        and not set(inner) & set("*?[")
        and not any(f"{name}/".startswith(f"{inner}/") for name in names)
    ):
        shown = ", ".join(names[:5])
        yield Fault(
            where, f"the dataset has no file {inner[:80]!r}; it has {shown}{', ...' if names[5:] else ''}"
        )


def _file_faults(
    where: str, source: Any, path: str, folder: str | None, data_folder: Path | None
) -> Iterator[Fault]:
    if data_folder is None:
        yield Fault(where, "names a file, and this service reads none; upload the data as a dataset")
        return
    try:
        inner = data_folder if folder is None else resolve(data_folder, folder, confined=True)
        if isinstance(source, TableFiles):
            find_files(source, inner, confined=True)
        else:
            find(inner, path, confined=True)
    except DataError as error:
        yield Fault(where, str(error))
