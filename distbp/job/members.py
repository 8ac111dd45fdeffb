"""Members and restarts: a job that trains several networks, which differ by their seeds, and perhaps by their
folds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from distbp.core.errors import Fault
from distbp.core.streams import Purpose, generator
from distbp.job.parts import WorkerRange

if TYPE_CHECKING:
    from distbp.job.training_job import TrainingJob


def seed_of(seed: int, number: int) -> int:
    """The seed of network `number`, a pure function of the job's seed and the number. Network 0 has the job's
    own seed. Jobs with neighboring seeds have no network in common."""
    if number == 0:
        return seed
    return int(generator(seed, Purpose.MEMBER, number).integers(1 << 63))


def networks(job: TrainingJob) -> int:
    """How many networks the job trains."""
    return max(job.members, job.restarts)


def member_job(job: TrainingJob, number: int) -> TrainingJob:
    """The job of network `number`. That of network 0 trains the same bits as the job without members."""
    fewer: dict[str, Any] = {}
    if job.early_stopping is not None and job.early_stopping.fold == "each":
        fold = number if has_folds(job) and number else None
        fewer["early_stopping"] = job.early_stopping.model_copy(update={"fold": fold})
    if job.shards != "auto" and least_workers(job) > job.shards:  # more workers than one network can use
        most = {"min": job.shards, "max": job.shards}
        fewer["workers"] = most if isinstance(job.workers, WorkerRange) else job.shards
    return job.replace(members=1, restarts=1, seed=seed_of(job.seed, number), **fewer)


def has_folds(job: TrainingJob) -> bool:
    """Whether each network of the job measures on other rows. Restarts never do, as they are compared."""
    return job.members > 1 and job.early_stopping is not None and job.early_stopping.fold == "each"


def names_folds(job: TrainingJob) -> bool:
    """Whether the job names other rows to measure on than the validation set, which is fold 0."""
    return job.early_stopping is not None and job.early_stopping.fold not in (None, 0)


def fold_of(job: TrainingJob) -> int:
    """The fold in which the job's rows are opened; 0: its own validation set."""
    fold = None if job.early_stopping is None else job.early_stopping.fold
    return fold if isinstance(fold, int) else 0


def least_workers(job: TrainingJob) -> int:
    """The least number of workers that the job asks for; 0 for `workers: 0` and "auto"."""
    workers = job.workers.min if isinstance(job.workers, WorkerRange) else job.workers
    return 0 if workers == "auto" else workers


def folds_fit(job: TrainingJob) -> Iterator[Fault]:
    """Folds mix training and validation rows, which some jobs keep apart."""
    if not names_folds(job):
        return
    data, by = job.data, "auto" if job.data.split is None else job.data.split.by
    for field, there in (
        ("data.group", data.group is not None and by in ("auto", "group")),
        ("data.time", data.time is not None and by in ("auto", "time")),
        ("data.windows", data.windows is not None),
        ("data.truncated_bptt_steps", data.truncated_bptt_steps is not None),
    ):
        if there:
            text = f"would mix rows that {field} keeps apart in training and validation; leave fold out"
            yield Fault("early_stopping.fold", text)


def members_or_restarts(job: TrainingJob) -> Iterator[Fault]:
    if job.members > 1 and job.restarts > 1:
        yield Fault(
            "restarts",
            f"keeps one network, and members ({job.members}) averages several; leave one of them out",
        )
