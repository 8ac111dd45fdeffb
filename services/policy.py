"""Decisions of the queue, as functions of plain values: whose turn it is, what is tried again, and when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from services.states import State

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


@dataclass(frozen=True)
class Head:
    """The job that is first in the queue of its project. `running`: slots its project uses now."""

    job_id: str
    project: str
    priority: int
    queued_at: float
    slots: int
    running: int


def choose(heads: Sequence[Head], free: int, slots: int) -> Head | None:
    """Whose turn it is: the highest priority, then the project that uses least, then the longest wait.

    None where that one has no room yet: nobody overtakes it, or a wide job would wait forever. A job wider
    than all `slots` runs when it has them to itself.
    """
    if not heads or slots < 1:
        return None
    first = min(heads, key=lambda h: (-h.priority, h.running, h.queued_at, h.job_id))
    return first if min(first.slots, slots) <= free else None


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
