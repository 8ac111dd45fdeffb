"""`train` and `resume`: train a job, and leave a run directory with a model."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from distbp.core.arguments import check_kind, kind_of, path_given, workers_given
from distbp.core.errors import ArgumentError, DataError
from distbp.core.interrupts import Control, Interrupts
from distbp.core.metric_names import SPLITS
from distbp.core.storage import DISK, Disk
from distbp.data.frames import frame_kind, is_frame
from distbp.data.sequences import in_step
from distbp.engine import numerics
from distbp.engine.memory_need import check_memory, needed
from distbp.job import TrainingJob, WorkerRange
from distbp.job.members import networks
from distbp.model.folder import model_folder
from distbp.run import agreement, checkpoint, events
from distbp.run.blueprints import make_blueprint
from distbp.run.delivery import delivered
from distbp.run.drive import drive
from distbp.run.joining import joined_delivered
from distbp.run.members import train_members
from distbp.run.result import Result
from distbp.run.run_directory import RunDirectory, job_text, read_job, read_result
from distbp.run.seen import seen
from distbp.run.splits import open_splits
from distbp.run.warm_start import check_init, init_folder, keep_init, keeps_optimizer, kept_init
from distbp.team.maker import TeamMaker
from distbp.team.ray.session import RaySession

Data = Any  # a mapping of splits, a tuple of arrays, or a frame


@numerics.quiet()
def train(
    job: TrainingJob,
    *,
    data: Data | None = None,
    output: str | Path | None = None,
    folder: str | Path = ".",
    workers: int | str | WorkerRange | None = None,
    listener: events.Listener | None = None,
    progress: bool = False,
    address: str | None = None,
    confined: bool = False,
    control: Control | None = None,
    session: RaySession | None = None,
    init: str | Path | None = None,
    disk: Disk | None = None,
    draws: bool = True,
) -> Result:
    """Trains `job` to its end in this process and the workers it starts; waits.

    data: arrays in place of the data that the job names: (x, y) or (x, y, weights) to train on, or a mapping
    with such tuples for "train", "validation", "test"; or frames whose columns include `data.target`. x:
    (n, *features), or a frame, whose column names the model keeps, or a list of arrays (steps, ...) of
    different lengths, or a mapping of `inputs` (n, steps, ...) and `lengths` (n,). y: (n,) labels (numbers,
    text, booleans) or values, or (n, outputs).
    output: the run directory, absent or empty; None: a new one below `runs/`.
    folder: what paths in the job are relative to; `confined`: they may not leave it.
    workers: in place of the job's.
    listener: a function that is called with each event (see `distbp.run.events`).
    progress: shows the training as the command line does, or in a notebook as a live card.
    address: of a Ray cluster to train on; None: RAY_ADDRESS, or a Ray embedded in this process.
    control: changes the workers, or stops the training, from another thread or a signal handler.
    session: a connection to Ray in place of one to `address`; the caller closes it.
    init: the folder of the model that the job's `init` names, if it is elsewhere.
    disk: the calls by which the run is written (see `distbp.core.storage.Disk`), to count or limit them.
    draws: whether to draw curves.svg.

    Raises ArgumentError, JobError, DataError, NumericsError, StorageError. Raises Interrupted, after a
    checkpoint, on Ctrl-C, SIGTERM and `control.stop()`; these may come at any moment, also while Ray starts.
    """
    check_job(job)
    workers = _checked_call(workers, listener, address, control, disk)
    check_kind(confined, bool, "confined", "True or False")
    given, place = by_split(data), path_given(folder, "folder")  # absolute: the caller may change its folder
    init = None if init is None else path_given(init, "init")
    path = None if output is None else path_given(output, "output")
    control = control or Control()
    wanted = job.workers if workers is None else workers
    with (
        seen(progress, listener) as told,
        Interrupts(control) as interrupts,
        TeamMaker(wanted, address, control, session=session, waiting=partial(_tell, told)) as teams,
    ):
        _tell(told, "reading the data")
        with interrupts.at_once():
            check_memory(needed(job, None, {}))  # before targets of many outputs take memory
            model = model_folder(init) if init else init_folder(job, place, confined=confined)
            splits = open_splits(job, place, given, confined=confined, init=model)
            blueprint = make_blueprint(job, splits)
            notes = check_init(blueprint, splits, model)
        path, located = path or _fresh_directory(job.name), job.located(place)  # to resume from any folder
        with RunDirectory.create(path, located.to_yaml(), disk=disk or DISK) as run:
            keep_init(model, path, optimizer=keeps_optimizer(job), disk=run.disk)
            if networks(job) > 1:
                return train_members(
                    run, located, blueprint, splits, teams, told, control,
                    workers=wanted, init=model, notes=notes, draws=draws,
                )  # fmt: skip
            return drive(run, blueprint, splits, None, teams, told, control, draws=draws, notes=notes)


@numerics.quiet()
def resume(
    run_dir: str | Path,
    *,
    data: Data | None = None,
    workers: int | str | WorkerRange | None = None,
    listener: events.Listener | None = None,
    progress: bool = False,
    address: str | None = None,
    control: Control | None = None,
    epochs: int | None = None,
    init: str | Path | None = None,
    disk: Disk | None = None,
    draws: bool = True,
) -> Result:
    """Goes on from the last good checkpoint of a run directory, to the same bits as if it had never stopped;
    waits.

    `data`, `init`: as in `train`, if the run was begun with them. The other arguments are those of `train`. A
    finished run returns its result at once, after a check that model, metrics and result are unchanged.
    `epochs`: replaces the job's, also in job.yaml. A finished run then goes on, to the bits of a run that had
    this number from the beginning. Schedules that depend on the length of training are an exception, on which
    a note is given.

    Raises CheckpointError if the job, the data or a file of the run has changed, and the errors of `train`.
    """
    workers = _checked_call(workers, listener, address, control, disk)
    init = None if init is None else path_given(init, "init")
    given = by_split(data)
    with RunDirectory.open(path_given(run_dir, "run_dir"), disk=disk or DISK) as run:
        job, text = read_job(run.path), None
        if epochs is not None and epochs != job.epochs:
            text = TrainingJob.from_yaml(job_text(run.path)).replace(epochs=epochs).to_yaml()
            job = job.replace(epochs=epochs)
        done, start = read_result(run.path), checkpoint.load_latest(run.checkpoints)
        several = networks(job) > 1
        if several and done is not None and done["job_digest"] == job.digest:
            return joined_delivered(run.path, done, job)
        if not several and done is not None and not (start and agreement.longer(start.state, job)):
            return delivered(run.path, done, job, start)
        if not given and job.data.train is None:
            raise DataError(
                "the run was begun with data from Python, such as arrays, which it does not keep; give the"
                " same data again: distbp.resume(run_dir, data=...)"
            )
        control = control or Control()
        wanted = job.workers if workers is None else workers
        with (
            seen(progress, listener) as told,
            Interrupts(control) as interrupts,
            TeamMaker(wanted, address, control, waiting=partial(_tell, told)) as teams,
        ):
            notes = []
            _tell(told, "reading the data")
            with interrupts.at_once(str(run.path)):
                check_memory(needed(job, None, {}))  # before targets of many outputs take memory
                kept = kept_init(run.path)
                if kept is None and start is None:
                    kept = model_folder(init) if init else init_folder(job, run.path)
                splits = open_splits(job, run.path, given, init=kept)
                blueprint = make_blueprint(job, splits)
                if start is None:
                    notes = check_init(blueprint, splits, kept)
                    keep_init(kept, run.path, optimizer=keeps_optimizer(job), disk=run.disk)
            if done is not None and text is None:
                text = job_text(run.path)  # job.yaml was edited to a longer job
            if several:
                return train_members(
                    run, job, blueprint, splits, teams, told, control,
                    workers=wanted, init=kept, job_text=text, notes=notes, draws=draws,
                )  # fmt: skip
            return drive(run, blueprint, splits, start, teams, told, control, text, notes, draws=draws)


def _tell(listener: events.Listener | None, what: str) -> None:
    if listener is not None:
        listener(events.Waiting(what))


def by_split(data: Data | None) -> dict[str, Any]:
    """The argument `data` of `train`, by split; {} for None. Raises ArgumentError."""
    if data is None:
        return {}
    given = data if isinstance(data, Mapping) else {"train": data}
    frames = {split: frame for split, frame in given.items() if split in SPLITS and is_frame(frame)}
    if frames:
        strange = [split for split, arrays in given.items() if arrays is not None and split not in frames]
        if strange:
            raise ArgumentError(
                f"data for {strange[0]!r} must be a frame too, as that for {next(iter(frames))!r}"
            )
        return frames
    for split, arrays in given.items():
        if split not in SPLITS:
            raise ArgumentError(f"data has the key {split!r}; its keys are {', '.join(SPLITS)}")
        if arrays is not None and not (isinstance(arrays, tuple | list) and len(arrays) in (2, 3)):
            what = f"{len(arrays)} values" if isinstance(arrays, tuple | list) else kind_of(arrays)
            if frame_kind(arrays) == "lazy":
                what += ", which has no rows yet: give what its .collect() returns"
            raise ArgumentError(
                f"data for {split!r} must be (x, y) or (x, y, weights), inputs and targets, not {what}; for"
                " example train(job, data=(x, y)), or (x, None) with data.targets: inputs"
            )
    return in_step({split: tuple(arrays) for split, arrays in given.items() if arrays is not None})


def check_job(job: Any) -> None:
    """Raises ArgumentError if `job` is not a TrainingJob."""
    ways = "TrainingJob(...), TrainingJob.from_file(path) or TrainingJob.from_mapping(fields)"
    check_kind(job, TrainingJob, "the job", f"a TrainingJob (made by {ways})")


def _checked_call(workers: Any, listener: Any, address: Any, control: Any, disk: Any) -> Any:
    """Checks the kinds of a call's arguments, and returns `workers`. Raises ArgumentError."""
    if listener is not None and not callable(listener):
        raise ArgumentError(f"listener must be a function of one event, not {kind_of(listener)}")
    check_kind(address, (str, type(None)), "address", "the address of a Ray cluster, as text")
    check_kind(control, (Control, type(None)), "control", "a distbp.Control")
    check_kind(disk, (Disk, type(None)), "disk", "a distbp.core.storage.Disk")
    return workers_given(workers, auto=True)


def _fresh_directory(name: str) -> Path:
    """A folder below `runs/` that is absent or empty, named after the job."""
    base = Path("runs").absolute()
    base.mkdir(exist_ok=True)
    slug = "".join(c if c.isalnum() or c in "-_" else "-" for c in name)
    first = base / slug
    return first if not first.exists() else Path(tempfile.mkdtemp(prefix=f"{slug}-", dir=base))
