"""`train` and `resume`: from a job to a run directory that holds a model."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from distbp import checkpoint, events, numerics, settings
from distbp.blueprint import Blueprint
from distbp.control import Control
from distbp.data.splits import SPLITS, Splits, open_splits
from distbp.errors import JobError, SettingsError
from distbp.interrupts import Interrupts
from distbp.job import TrainingJob
from distbp.job.data_checks import check_against_data
from distbp.ray_session import RaySession
from distbp.result import Result
from distbp.run_directory import RunDirectory, read_result
from distbp.run_log import log_events
from distbp.storage import absolute, user_path
from distbp.teams import TeamMaker
from distbp.trainer import Trainer

Data = Mapping[str, Any] | tuple[Any, ...]


def train(
    job: TrainingJob,
    *,
    data: Data | None = None,
    output: str | Path | None = None,
    folder: str | Path = ".",
    workers: int | str | None = None,
    listener: events.Listener | None = None,
    address: str | None = None,
    confined: bool = False,
    control: Control | None = None,
    session: RaySession | None = None,
) -> Result:
    """Trains `job` to its end in this process and the workers it starts; waits.

    data: arrays in place of what the job's `data` names: (x, y) or (x, y, weights) to train on, or a mapping
    with such tuples for "train", "validation", "test". x: (n, *features); y: (n,) labels or values, or
    (n, outputs). output: the run directory, absent or empty; None: a new one below `runs/`. folder: what
    paths in the job are relative to; `confined`: they may not leave it. workers: in place of the job's.
    listener: is told what happens (see `distbp.events`). address: of a Ray cluster to train on; None:
    RAY_ADDRESS, or a Ray embedded in this process. control: changes the workers, or stops, from another
    thread. session: a connection to Ray in place of one to `address`; the caller closes it.

    Raises JobError, DataError, NumericsError, StorageError; Interrupted after a checkpoint on Ctrl-C.
    """
    with TeamMaker(job.workers if workers is None else workers, address, session=session) as teams:
        splits = open_splits(job, user_path(folder), by_split(data), confined=confined)
        blueprint = make_blueprint(job, splits)
        path = user_path(output) if output is not None else _fresh_directory(job.name)
        with RunDirectory.create(path, _job_text(job, user_path(folder))) as run:
            return _drive(run, blueprint, splits, None, teams, listener, control)


def resume(
    run_dir: str | Path,
    *,
    data: Data | None = None,
    workers: int | str | None = None,
    listener: events.Listener | None = None,
    address: str | None = None,
    control: Control | None = None,
) -> Result:
    """Goes on from the last good checkpoint of a run directory, to the same bits as if it had never stopped.

    `data` as in `train`, where the run was begun with arrays. A finished run gives its result at once.
    """
    with RunDirectory.open(user_path(run_dir)) as run:
        done = read_result(run.path)
        if done is not None:
            return Result.from_json(done, run.path)
        job = TrainingJob.from_yaml(run.job_text, str(run.path / "job.yaml"))
        with TeamMaker(job.workers if workers is None else workers, address) as teams:
            splits = open_splits(job, run.path, by_split(data))
            blueprint = make_blueprint(job, splits)
            start = checkpoint.load_latest(run.checkpoints)
            return _drive(run, blueprint, splits, start, teams, listener, control)


def make_blueprint(job: TrainingJob, splits: Splits) -> Blueprint:
    """The blueprint of a job on its data. Raises JobError where they do not fit, with every fault;
    SettingsError where DISTBP_KERNELS names what is not installed."""
    table = splits.tables["train"]
    faults = check_against_data(job, table.features, splits.targets(), splits.rows)
    if faults:
        raise JobError(faults)
    wanted = str(settings.get("DISTBP_KERNELS"))
    try:
        name = numerics.kernel_set(wanted)
    except ImportError as error:
        raise SettingsError(f"DISTBP_KERNELS={wanted} cannot be: {error}") from None
    blueprint = Blueprint(job, 1, table.features, splits.rows, name)
    network = blueprint.network()
    return Blueprint(
        job,
        job.resolved_shards(network.parameter_count),
        table.features,
        splits.rows,
        name,
        _class_weights(job, table.targets, network.output_shape[-1]),
    )


def _drive(
    run: RunDirectory,
    blueprint: Blueprint,
    splits: Splits,
    start: checkpoint.Checkpoint | None,
    teams: TeamMaker,
    listener: events.Listener | None,
    control: Control | None,
) -> Result:
    told = log_events(run, listener)
    for aside in start.set_aside if start else ():
        told(events.CheckpointSetAside(str(aside.path), aside.reason))
    with numerics.one_blas_thread(), numerics.quiet(), Interrupts() as interrupts:
        teams.connected = interrupts.renew
        return Trainer(run, blueprint, splits, teams, told, interrupts, control=control).train(start)


def _class_weights(job: TrainingJob, targets: Any, classes: int) -> tuple[float, ...] | None:
    """One weight for each class. "balanced": rows / (classes * rows of the class), as scikit-learn does."""
    given = job.class_weight
    if given is None:
        return None
    if given == "balanced":
        counts = np.bincount(np.asarray(targets).ravel().astype(np.intp), minlength=classes)
        return tuple(float(w) for w in counts.sum() / (classes * np.maximum(counts, 1)))
    if isinstance(given, Mapping):
        return tuple(float(given.get(label, 1.0)) for label in range(classes))
    return tuple(float(w) for w in given)


def by_split(data: Data | None) -> dict[str, Any] | None:
    """Arrays as `train` takes them, by split. Raises ValueError for a key that is no split."""
    if data is None:
        return None
    if isinstance(data, Mapping):
        unknown = set(data) - set(SPLITS)
        if unknown:
            raise ValueError(f"data has {sorted(unknown)}; its keys are {', '.join(SPLITS)}")
        return dict(data)
    return {"train": tuple(data)}


def _fresh_directory(name: str) -> Path:
    base = Path("runs")
    base.mkdir(exist_ok=True)
    slug = "".join(c if c.isalnum() or c in "-_" else "-" for c in name)
    first = base / slug
    return first if not first.exists() else Path(tempfile.mkdtemp(prefix=f"{slug}-", dir=base))


def _job_text(job: TrainingJob, folder: Path) -> str:
    """The job with its data paths absolute, so that the run directory can be resumed from anywhere."""
    return job.located(absolute(folder)).to_yaml()
