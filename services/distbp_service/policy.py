"""Decisions of the queue, as functions of plain values: whose turn it is, what is tried again, and when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from distbp.client.names import State

Outcome = Literal["completed", "interrupted", "failed"]

# How often a job is tried again after a failure of each class, without having made progress in between. What
# the user has to mend is never tried again.
BUDGETS: Mapping[str, int] = MappingProxyType(
    {
        "user": 0,  # the job, its data, its numbers
        "lost": 8,  # the runner died, froze, or its machine went away
        "infrastructure": 8,  # the cluster, the disk, the network
        "launch": 8,  # the runner could not be started
        "away": 10**9,  # the cluster does not answer: until it is back, or the job is past its deadline
        "internal": 1,  # an error nobody foresaw: once more, in case it was the machine
    }
)
BACKOFF_FIRST_S, BACKOFF_MOST_S = 1.0, 60.0


def slots_for(workers: int, servers: int = 1) -> int:
    """The slots of a job: one for each worker, and one for each further server. Without workers it computes
    in one process, on one processor."""
    return workers + servers - 1 if workers else 1


@dataclass(frozen=True)
class Room:
    """What there is for all jobs, and the most that one project may have of it at a time."""

    slots: int
    project_slots: int = 10**9
    project_jobs: int = 10**9

    @property
    def widest(self) -> int:
        """The slots of the widest job that can ever start."""
        return min(self.slots, self.project_slots)


@dataclass(frozen=True)
class Usage:
    """What the jobs of one project hold now. `served_at`: when one of them was last started; 0: never."""

    slots: int = 0
    jobs: int = 0
    served_at: float = 0.0


@dataclass(frozen=True)
class Head:
    """The job that is first in the queue of its project. `slots`: the fewest it can run with; `most`: those
    it takes where more are free. `used`: what its project holds."""

    job_id: str
    project: str
    priority: int
    queued_at: float
    slots: int
    most: int
    used: Usage = Usage()


def turns(heads: Sequence[Head], room: Room) -> list[Head]:
    """The heads that may start as soon as there are slots, in the order of their turns: the project that
    holds the fewest slots, then the one that was not served for the longest. So no project waits for
    another's jobs to run out, whatever their priorities, which order the jobs within a project."""
    may = [head for head in heads if hindrance(head, room) is None]
    return sorted(may, key=lambda h: (h.used.slots, h.used.served_at, -h.priority, h.queued_at, h.job_id))


def hindrance(head: Head, room: Room) -> Literal["never", "project_jobs", "project_slots"] | None:
    """Why a head cannot have its turn, however many slots are free; None: it can."""
    if head.slots > room.widest:
        return "never"
    if head.used.jobs >= room.project_jobs:
        return "project_jobs"
    if head.used.slots + head.slots > room.project_slots:
        return "project_slots"
    return None


def choose(heads: Sequence[Head], room: Room, free: int) -> tuple[Head, int] | None:
    """Whose turn it is, and the slots that it gets: up to its `most`, but the others whose turn comes keep
    what they need. None where the first has no room yet: nobody overtakes it, or a wide job would wait
    forever."""
    order = turns(heads, room)
    if not order or order[0].slots > free:
        return None
    first, *others = order
    spare = free - sum(other.slots for other in others)
    allowed = min(first.most, spare, room.project_slots - first.used.slots)
    return first, max(first.slots, allowed)


def place(mine: int, before: Mapping[str, bool], waiting: Mapping[str, int]) -> int:
    """A job's place in the whole line, from 1, where projects take turns job by job. mine: its place in the
    queue of its own project, from 1. waiting: jobs that wait, by other project; before: whether that
    project's turn comes before that of the job's own."""
    return mine + sum(min(count, mine - 1 + before[name]) for name, count in waiting.items())


def backoff_s(failures: int) -> float:
    """Seconds to wait before trying again after `failures` (at least 1) failures in a row."""
    return float(min(BACKOFF_FIRST_S * 2.0 ** (min(failures, 32) - 1), BACKOFF_MOST_S))


@dataclass(frozen=True)
class Ending:
    """What becomes of a job whose attempt has ended. `failures`: by class, since it last made progress.
    `wait_s`: before it is queued again."""

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
    """What becomes of a job in `state` when its attempt ends.

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
