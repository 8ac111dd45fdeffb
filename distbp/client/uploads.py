"""Data on its way to a service: arrays, and files of this machine, as datasets known by their SHA-256."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from distbp.client.transport import Transport
from distbp.core.errors import DataError, RemoteError
from distbp.core.options import paths
from distbp.core.storage import user_path
from distbp.data.columns.given import is_frame
from distbp.data.formats import Npz, TableFiles, from_arrays, load
from distbp.data.sequences import in_step
from distbp.data.table import Table
from distbp.job import TrainingJob
from distbp.run.splits import SPLITS, open_splits
from distbp.run.train import check_splits

DATASET = "dataset:"
_PIECE = 2**20
_ANSWER_S = 900.0  # the service unpacks all of the archive once before it answers
_OLD = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip file can say: equal data, equal bytes


def place_data(
    transport: Transport, job: TrainingJob, arrays: Mapping[str, Any], folder: Path, *, files: bool
) -> TrainingJob:
    """The job with uploaded datasets in place of `arrays` (by split, as `train` takes them) and, where
    `files`, of those of its files that are on this machine, relative to `folder`.

    What can be checked here is checked before anything is sent. Raises JobError, DataError, RemoteError.
    """
    arrays = in_step(arrays)
    place = folder if job.data.folder is None else folder / user_path(job.data.folder)
    tables: dict[str, Table] = {}
    elsewhere = False  # some data is not here, so what is here cannot be checked against it
    for split in SPLITS:
        source = getattr(job.data, split)
        if is_frame(arrays.get(split)):
            raise DataError(f"the {split} frame: tables are not sent to a service yet; train it here")
        if arrays.get(split) is not None:
            tables[split] = from_arrays(
                *arrays[split], bad_rows=job.data.bad_rows, name=f"the {split} arrays"
            )
        elif isinstance(source, TableFiles) and files and (place / source.path).exists():
            raise DataError(
                f"{source.path}: tables are not sent to a service yet; train it here, or put it where the"
                " service"
                " has its data"
            )
        elif source is not None and files and _is_here(source, place):
            tables[split] = load(source, place, bad_rows=job.data.bad_rows)
        elif source is not None:
            elsewhere = True
    if not tables:
        return job
    if not elsewhere:
        given = {split: (_inputs(t), t.targets, t.weights) for split, t in tables.items()}
        check_splits(job, open_splits(job, folder, given))
    sources: dict[str, Any] = {}
    for split, table in tables.items():
        dataset = upload(transport, table, f"{job.name} {split}")
        sources[split] = Npz(
            path=DATASET + dataset,
            targets=None if table.targets is None else "targets",
            weights=None if table.weights is None else "weights",
            lengths=None if table.lengths is None else "lengths",
            columns=None if table.columns is None else "columns",
        )
    if not elsewhere:
        sources["folder"] = None
    return job.replace(data=job.data.model_copy(update=sources))


def upload(transport: Transport, table: Table, name: str) -> str:
    """Sends a table, unless the service has it; returns the dataset's id. Raises RemoteError."""
    with tempfile.TemporaryFile(prefix="distbp-upload-") as file:
        digest = pack(table, file)
        dataset = f"ds_{digest}"
        if not _is_there(transport, dataset):
            transport.send(
                "POST",
                "/v1/datasets",
                params={"name": _name(name), "sha256": digest},
                headers={"Content-Type": "application/octet-stream", "Content-Length": str(_size(file))},
                body=lambda: _pieces(file),
                answer_s=_ANSWER_S,
            )
    return dataset


def pack(table: Table, file: BinaryIO) -> str:
    """Writes a table as an .npz archive; the same table gives the same bytes. Returns their SHA-256."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name in ("inputs", "targets", "weights", "lengths", "columns"):
            array = getattr(table, name)
            if array is None:
                continue
            if name == "columns" and not all(isinstance(column, int) for column in array):
                array = list(map(str, array))
            with archive.open(zipfile.ZipInfo(f"{name}.npy", _OLD), "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, np.asanyarray(array), allow_pickle=False)
    digest = hashlib.sha256()
    for piece in _pieces(file):
        digest.update(piece)
    return digest.hexdigest()


def _inputs(table: Table) -> Any:
    if table.lengths is None:
        return table.inputs
    return {"inputs": table.inputs, "lengths": table.lengths}


def _is_here(source: Any, folder: Path) -> bool:
    names = paths(source)
    if not names:
        return False
    path = getattr(source, names[0])
    return not path.startswith(DATASET) and (folder / path).is_file()


def _is_there(transport: Transport, dataset: str) -> bool:
    try:
        transport.call("GET", f"/v1/datasets/{dataset}")
    except RemoteError as error:
        # 403: a token that may submit, and not read. Sending twice does no harm.
        if error.status in (403, 404):
            return False
        raise
    return True


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    file.seek(0)
    while piece := file.read(_PIECE):
        yield piece


def _size(file: BinaryIO) -> int:
    return file.seek(0, os.SEEK_END)


def _name(text: str) -> str:
    """`text`, as the service takes names."""
    return re.sub(r"[^A-Za-z0-9 ._-]", "-", text).lstrip(" ._-")[:100] or "dataset"
