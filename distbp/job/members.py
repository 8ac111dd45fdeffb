"""Members and restarts: one job that trains several networks, which differ by their seeds alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from distbp.core.errors import Fault
from distbp.core.streams import Purpose, generator
from distbp.job.parts import WorkerRange

if TYPE_CHECKING:
    from distbp.job.training_job import TrainingJob

MAX_MEMBERS = 100


def seed_of(seed: int, number: int) -> int:
    """The seed of a network, a pure function of the job's seed and its number; that of network 0 is the job's
    own. Jobs of neighboring seeds share no network."""
    if number == 0:
        return seed
    return int(generator(seed, Purpose.MEMBER, number).integers(1 << 63))


def networks(job: TrainingJob) -> int:
    """How many networks the job trains."""
    return max(job.members, job.restarts)


def member_job(job: TrainingJob, number: int) -> TrainingJob:
    """The job of one network: that of the first is the job without members, to the bit."""
    fewer: dict[str, Any] = {}
    if job.shards != "auto" and least_workers(job) > job.shards:  # they are for several networks
        most = {"min": job.shards, "max": job.shards}
        fewer["workers"] = most if isinstance(job.workers, WorkerRange) else job.shards
    return job.replace(members=1, restarts=1, seed=seed_of(job.seed, number), **fewer)


def least_workers(job: TrainingJob) -> int:
    """How many workers the job asks for at least; 0 where it has none, or leaves their number open."""
    workers = job.workers.min if isinstance(job.workers, WorkerRange) else job.workers
    return 0 if workers == "auto" else workers


def members_or_restarts(job: TrainingJob) -> Iterator[Fault]:
    if job.members > 1 and job.restarts > 1:
        yield Fault(
            "restarts",
            f"keeps one network, and members ({job.members}) averages several; leave one of them out",
        )
