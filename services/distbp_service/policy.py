"""Decisions of the queue, as functions of plain values: which job is next, which is tried again, and when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from distbp.client.names import State

Outcome = Literal["completed", "interrupted", "failed"]

# How often a job is tried again after failures of a class without progress in between. A job with a fault
# that its user must mend is never tried again.
BUDGETS: Mapping[str, int] = MappingProxyType(
    {
        "user": 0,  # a fault in the job, its data or its numbers
        "lost": 8,  # the runner died, froze, or its machine went away
        "infrastructure": 8,  # the cluster, the disk, the network
        "launch": 8,  # the runner could not be started
        "away": 10**9,  # the cluster does not answer: until it is back, or the job is past its deadline
        "internal": 1,  # an unexpected error: tried once more, because the machine may be at fault
    }
)
BACKOFF_FIRST_S, BACKOFF_MOST_S = 1.0, 60.0


def slots_for(workers: int, servers: int = 1) -> int:
    """The slots of a job: one for each worker, and one for each server but the first. Without workers:
    one."""
    return workers + servers - 1 if workers else 1


@dataclass(frozen=True)
class Room:
    """The slots for all jobs, and the most slots and running jobs of one project."""

    slots: int
    project_slots: int = 10**9
    project_jobs: int = 10**9

    @property
    def widest(self) -> int:
        """The slots of the widest job that can ever start."""
        return min(self.slots, self.project_slots)


@dataclass(frozen=True)
class Usage:
    """The slots that one project's jobs hold, and the number of these jobs. `served_at`: when one of them was
    last started; 0: never."""

    slots: int = 0
    jobs: int = 0
    served_at: float = 0.0


@dataclass(frozen=True)
class Head:
    """The first job in its project's queue. `slots`: the fewest that it can run with. `most`: the most that
    it takes if they are free. `used`: by its project."""

    job_id: str
    project: str
    priority: int
    queued_at: float
    slots: int
    most: int
    used: Usage = Usage()


def turns(heads: Sequence[Head], room: Room) -> list[Head]:
    """The heads that may start as soon as slots are free, in the order of their turns: the project with the
    fewest slots first, then the project that was served the longest ago. So no project waits until another's
    queue is empty. Priorities only order the jobs within a project."""
    may = [head for head in heads if hindrance(head, room) is None]
    return sorted(may, key=lambda h: (h.used.slots, h.used.served_at, -h.priority, h.queued_at, h.job_id))


def hindrance(head: Head, room: Room) -> Literal["never", "project_jobs", "project_slots"] | None:
    """The reason that a head cannot have a turn, however many slots are free; None if it can."""
    if head.slots > room.widest:
        return "never"
    if head.used.jobs >= room.project_jobs:
        return "project_jobs"
    if head.used.slots + head.slots > room.project_slots:
        return "project_slots"
    return None


def choose(heads: Sequence[Head], room: Room, free: int) -> tuple[Head, int] | None:
    """The head that is next, and the slots that it gets: up to its `most`, except for the slots that the
    other heads need. None if the next head does not fit yet: no job overtakes it, because a wide job would
    else wait forever. free: the number of free slots."""
    order = turns(heads, room)
    if not order or order[0].slots > free:
        return None
    first, *others = order
    spare = free - sum(other.slots for other in others)
    allowed = min(first.most, spare, room.project_slots - first.used.slots)
    return first, max(first.slots, allowed)


def place(mine: int, before: Mapping[str, bool], waiting: Mapping[str, int]) -> int:
    """A job's place in the whole line, from 1, if projects take turns job by job. mine: its place in the
    queue of its own project, from 1. waiting: the number of waiting jobs of each other project. before:
    whether that project's turn comes before that of the job's own project."""
    return mine + sum(min(count, mine - 1 + before[name]) for name, count in waiting.items())


def backoff_s(failures: int) -> float:
    """Seconds to wait before trying again after `failures` (at least 1) failures in a row."""
    return float(min(BACKOFF_FIRST_S * 2.0 ** (min(failures, 32) - 1), BACKOFF_MOST_S))


@dataclass(frozen=True)
class Ending:
    """The next state of a job whose attempt has ended. `failures`: by class, since it last made progress.
    `wait_s`: the time before it is queued again."""

    state: State
    failures: Mapping[str, int]
    wait_s: float = 0.0


def after_attempt(
    state: State,
    outcome: Outcome,
    error_class: str | None,
    failures: Mapping[str, int],
    *,
    progressed: bool = False,
    overdue: bool = False,
) -> Ending:
    """The next state of a job in `state` when its attempt ends.

    outcome: "completed"; "interrupted" (the runner was told to stop, and left a checkpoint); "failed", then
    `error_class` is a key of BUDGETS. progressed: the attempt got further than all before it, so earlier
    failures are forgotten. overdue: the job is being cancelled because its deadline has passed.
    """
    kept: Mapping[str, int] = {} if progressed else failures
    if outcome == "completed":
        return Ending("completed", kept)
    if state == "cancelling":
        return Ending("failed" if overdue else "cancelled", kept)
    if outcome == "interrupted":
        return Ending("paused" if state == "pausing" else "queued", kept)
    kind = error_class if error_class is not None and error_class in BUDGETS else "internal"
    counted = {**kept, kind: kept.get(kind, 0) + 1}
    if counted[kind] > BUDGETS[kind]:
        return Ending("failed", counted)
    if state == "pausing":
        return Ending("paused", counted)
    return Ending("recovering", counted, backoff_s(sum(counted.values())))
