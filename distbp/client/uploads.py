"""Uploads of arrays, frames and local files to a service. A dataset is an archive of arrays (.npz), or of the
unchanged files of a table. Its id is the SHA-256 of the archive."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from distbp.client.models import fetch_model
from distbp.client.transport import Transport
from distbp.core.errors import RemoteError
from distbp.core.metric_names import SPLITS
from distbp.core.options import paths
from distbp.core.storage import user_path
from distbp.data.columns.files import are_here
from distbp.data.columns.given import GivenTable
from distbp.data.columns.shipping import new_entry, ship_files, ship_frame
from distbp.data.cutting import in_a_row
from distbp.data.formats import Npz, Source, TableFiles, from_arrays, load
from distbp.data.frames import is_frame
from distbp.data.sequences import in_step
from distbp.data.table import Table, target_parts
from distbp.job import TrainingJob
from distbp.nn.losses.several import names_of
from distbp.nn.named_inputs import named_inputs
from distbp.run.blueprints import check_splits
from distbp.run.splits import open_splits

DATASET, MODEL = "dataset:", re.compile("model:(mdl_[0-9a-z]{1,64})")
_PIECE = 2**20
_ANSWER_S = 900.0  # the service unpacks the whole archive once before it answers
TARGETS = "targets"  # the name in an archive; if there are several outputs, targets.NAME


def place_data(
    transport: Transport, job: TrainingJob, given: Mapping[str, Any], folder: Path, *, files: bool
) -> TrainingJob:
    """Uploads data; returns the job with the uploaded datasets as its sources; waits. given: arrays or frames
    by split, as `train` takes them. files: whether to upload the job's files that are on this machine, too.
    folder: the folder to which their paths are relative.

    If all data is here, it is checked against the job before anything is sent. Raises JobError, DataError,
    RemoteError.
    """
    # A stream can be read once, and is checked before it is sent.
    given = {
        split: GivenTable(data, f"the {split} frame").table if is_frame(data) else data
        for split, data in in_step(given).items()
    }
    place = folder if job.data.folder is None else folder / user_path(job.data.folder)
    arrays = dict(given)
    parcels: dict[str, Parcel] = {}
    named = named_inputs(job.model.layers)
    elsewhere = False  # whether some data is not here; then the job cannot be checked
    for split in SPLITS:
        source, name = getattr(job.data, split), f"the {split} arrays"
        if is_frame(given.get(split)):
            parcels[split] = _frame(given[split], split)
        elif given.get(split) is not None:
            series = job.data.truncated_bptt_steps is not None
            own = in_a_row(given[split], name) if series else given[split]
            outputs = names_of(job.loss)
            table = from_arrays(*own, bad_rows=job.data.bad_rows, name=name, outputs=outputs, named=named)
            parcels[split], arrays[split] = _arrays(table), (_inputs(table), table.targets, table.weights)
        elif source is None:
            continue
        elif isinstance(source, TableFiles) and files and are_here(source, place):
            parcels[split] = _files(source, place)
        elif files and _is_here(source, place):
            table = load(source, place, bad_rows=job.data.bad_rows, named=named)
            parcels[split], arrays[split] = _arrays(table), (_inputs(table), table.targets, table.weights)
        else:
            elsewhere = True
    if not parcels:
        return job
    if not elsewhere:
        _check(transport, job, folder, arrays)
    sources: dict[str, Any] = {
        split: _sent(transport, parcel, f"{job.name} {split}") for split, parcel in parcels.items()
    }
    if not elsewhere:
        sources["folder"] = None
    return job.replace(data=job.data.model_copy(update=sources))


def _check(transport: Transport, job: TrainingJob, folder: Path, arrays: Mapping[str, Any]) -> None:
    """Checks the data against the job. If the job keeps the preparation of a model, this downloads the model
    from the service. If the token may not read the model, the runner checks the data later."""
    if "preparation" not in (job.init_keeps or ()):
        check_splits(job, open_splits(job, folder, arrays))
        return
    if (named := MODEL.fullmatch(str(job.init))) is None:
        return  # the service reports the fault
    with tempfile.TemporaryDirectory(prefix="distbp-init-") as temporary:
        place = Path(temporary) / "model"
        try:
            fetch_model(transport, transport.call("GET", f"/v1/models/{named[1]}"), place)
        except RemoteError as error:
            if error.status in (403, 404):  # the service explains a 404 when the job is submitted
                return
            raise
        check_splits(job, open_splits(job, folder, arrays, init=place))


# A function that writes an archive to a file. It returns a function: the dataset's path -> the job's source.
Parcel = Callable[[BinaryIO], Callable[[str], Source]]


def _arrays(table: Table) -> Parcel:
    def write(file: BinaryIO) -> Callable[[str], Source]:
        pack(table, file)
        return lambda dataset: Npz(
            path=dataset,
            targets=_names_of_targets(table),
            weights=None if table.weights is None else "weights",
            lengths=None if table.lengths is None else "lengths",
            columns=None if table.columns is None else "columns",
        )

    return write


def _files(source: TableFiles, folder: Path) -> Parcel:
    def write(file: BinaryIO) -> Callable[[str], Source]:
        path = ship_files(source, folder, file)
        return lambda dataset: replace(source, path=f"{dataset}/{path}")

    return write


def _frame(frame: Any, split: str) -> Parcel:
    def write(file: BinaryIO) -> Callable[[str], Source]:
        path = ship_frame(GivenTable(frame, f"the {split} frame").table, file)
        return lambda dataset: TableFiles(path=f"{dataset}/{path}")

    return write


def upload(transport: Transport, data: Table | TableFiles, name: str) -> str:
    """Uploads data, unless the service has it; waits. Returns the dataset's id. Raises DataError,
    RemoteError."""
    parcel = _arrays(data) if isinstance(data, Table) else _files(data, Path())
    path: str = _sent(transport, parcel, name).path  # type: ignore[attr-defined]
    return path.removeprefix(DATASET).partition("/")[0]


def _sent(transport: Transport, parcel: Parcel, name: str) -> Source:
    """Uploads an archive, unless the service has it, and returns the source that a job names."""
    with tempfile.TemporaryFile(prefix="distbp-upload-") as file:
        source = parcel(file)
        digest = hashlib.sha256()
        for piece in _pieces(file):
            digest.update(piece)
        dataset = f"ds_{digest.hexdigest()}"
        if not _is_there(transport, dataset):
            size = file.seek(0, os.SEEK_END)
            transport.send(
                "POST",
                "/v1/datasets",
                params={"name": _name(name), "sha256": digest.hexdigest()},
                headers={"Content-Type": "application/octet-stream", "Content-Length": str(size)},
                body=lambda: _pieces(file),
                answer_s=_ANSWER_S,
            )
    return source(f"{DATASET}{dataset}")


def pack(table: Table, file: BinaryIO) -> None:
    """Writes a table of arrays to `file` as an .npz archive. The same table gives the same bytes."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        others = {name: getattr(table, name) for name in ("weights", "lengths", "columns")}
        targets = {f"{TARGETS}.{name}" if name else TARGETS: one for name, one, _ in target_parts(table)}
        for name, array in {"inputs": table.inputs, **targets, **others}.items():
            if array is None:
                continue
            if name == "columns" and not all(isinstance(column, int) for column in array):
                array = list(map(str, array))
            with new_entry(archive, f"{name}.npy") as file:
                np.lib.format.write_array(file, np.asanyarray(array), allow_pickle=False)


def _names_of_targets(table: Table) -> str | dict[str, str] | None:
    """The names of the targets in the archive of `pack`: one name, or, of several outputs, a name for each;
    None: there are no targets."""
    names = [name for name, _, _ in target_parts(table)]
    return TARGETS if names == [""] else {name: f"{TARGETS}.{name}" for name in names} or None


def _inputs(table: Table) -> Any:
    if table.lengths is None:
        return table.inputs
    return {"inputs": table.inputs, "lengths": table.lengths}


def _is_here(source: Any, folder: Path) -> bool:
    names = paths(source)
    if not names:
        return False
    path = getattr(source, names[0])
    return not path.startswith(DATASET) and (folder / path).exists()


def _is_there(transport: Transport, dataset: str) -> bool:
    try:
        transport.call("GET", f"/v1/datasets/{dataset}")
    except RemoteError as error:
        # 403: the token may submit but not read. A second upload does no harm.
        if error.status in (403, 404):
            return False
        raise
    return True


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    file.seek(0)
    while piece := file.read(_PIECE):
        yield piece


def _name(text: str) -> str:
    """`text` as a name that the service accepts."""
    return re.sub(r"[^A-Za-z0-9 ._-]", "-", text).lstrip(" ._-")[:100] or "dataset"
