"""Fetches the uploaded datasets of a job to its runner. A file has the name that the job uses, so the job and
its digest stay the same. The files of a table are in a folder of that name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from distbp.core.errors import Fault, JobError
from distbp.core.metric_names import SPLITS
from distbp.core.options import paths
from distbp.core.storage import explained
from distbp.data.cache import remove
from distbp.data.columns.shipping import unship
from distbp.data.formats import TableFiles
from distbp.data.safety import find
from distbp.job import TrainingJob
from distbp_service.transport import Transport

DATASET = "dataset:"  # the prefix of an uploaded dataset's path: dataset:ds_<SHA-256>


def fetch_data(
    job: TrainingJob,
    folder: Path,
    transport: Transport,
    attempt: int,
    patiently: Callable[[Callable[[], Any]], Any],
    stopping: Callable[[], bool],
) -> bool:
    """Fetches the datasets that the job names, except those that are in `folder` already; waits. Returns
    whether the job names any. patiently: calls a function again until the API answers. stopping: whether to
    end early. Raises as Transport does, and DataError for a damaged archive."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = dict(_wanted(job))
    for name, is_table in sorted(wanted.items()):
        if stopping():
            break
        place = folder / name
        if place.exists():
            continue
        for partial_file in folder.glob(f".*{name}.*"):  # of an attempt that was killed
            remove(partial_file)
        to = place.with_name(f".{name}.{attempt}.zip") if is_table else place
        patiently(partial(transport.fetch_dataset, name.removeprefix(DATASET), to))
        if is_table:
            _unpack(to, place)
    return bool(wanted)


def _wanted(job: TrainingJob) -> Iterator[tuple[str, bool]]:
    """Yields the names of datasets, and whether each is a table."""
    for split in SPLITS:
        source = getattr(job.data, split)
        for path in (getattr(source, name) for name in (paths(source) if source is not None else ())):
            if path is None or not path.startswith(DATASET):
                continue
            name, _, inner = path.partition("/")
            is_table = isinstance(source, TableFiles)
            if inner and not is_table:
                message = f"{path!r} is not an uploaded dataset; write dataset:ds_..."
                raise JobError([Fault(f"data.{split}", message)])
            yield name, is_table


def _unpack(archive: Path, place: Path) -> None:
    """Unpacks an archive to `place`, whole or not at all: this attempt may be killed at any moment, and an
    older attempt may still be working."""
    new = archive.with_suffix(".files")
    try:
        unship(find(archive.parent, archive.name)._replace(name=place.name), new)
        with explained(place):
            new.replace(place)
    finally:
        remove(archive)
        remove(new)
