"""The states of a job, and who may move it from one to another. The only place that knows.

    queued -> starting -> running -> completed | failed
                 |           |-> pausing -> paused -> queued
                 |           |-> cancelling -> cancelled | failed (past its deadline)
                 |           '-> queued          the runner was told to leave; a checkpoint is there
                 '-> recovering -> queued        the runner was lost, or failed for a reason that may pass

A user cancels what no runner works on at once; otherwise the runner is told, and the move is made when it
has ended. A runner that finishes before it hears of a pause or a cancel has completed.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from distbp.client.names import State
from distbp_service.errors import ConflictError

Actor = Literal["user", "dispatcher", "runner"]

TERMINAL: frozenset[State] = frozenset({"completed", "failed", "cancelled"})
# A runner works (or is about to) for a job in one of these, so it takes room and has a lease.
ACTIVE: frozenset[State] = frozenset({"starting", "running", "pausing", "cancelling"})

_USER, _DISPATCHER, _RUNNER = frozenset({"user"}), frozenset({"dispatcher"}), frozenset({"runner"})
_EITHER = _DISPATCHER | _RUNNER

MOVES: Mapping[tuple[State, State], frozenset[str]] = MappingProxyType(
    {
        ("queued", "starting"): _DISPATCHER,
        ("queued", "paused"): _USER,
        ("queued", "cancelled"): _USER,
        ("queued", "failed"): _DISPATCHER,  # past its deadline
        ("starting", "running"): _RUNNER,
        ("starting", "pausing"): _USER,
        ("starting", "cancelling"): _USER | _DISPATCHER,
        ("starting", "recovering"): _EITHER,
        ("starting", "queued"): _RUNNER,
        ("starting", "completed"): _RUNNER,  # an earlier attempt had finished, and was lost before it said so
        ("starting", "failed"): _EITHER,
        ("running", "pausing"): _USER,
        ("running", "cancelling"): _USER | _DISPATCHER,
        ("running", "recovering"): _EITHER,
        ("running", "queued"): _RUNNER,
        ("running", "completed"): _RUNNER,
        ("running", "failed"): _EITHER,
        ("pausing", "paused"): _EITHER,
        ("pausing", "cancelling"): _USER | _DISPATCHER,
        ("pausing", "completed"): _RUNNER,
        ("pausing", "failed"): _EITHER,
        ("paused", "queued"): _USER,
        ("paused", "cancelled"): _USER,
        ("paused", "failed"): _DISPATCHER,
        ("recovering", "queued"): _DISPATCHER,
        ("recovering", "paused"): _USER,
        ("recovering", "cancelled"): _USER,
        ("recovering", "failed"): _DISPATCHER,
        ("cancelling", "cancelled"): _EITHER,
        ("cancelling", "completed"): _RUNNER,
        ("cancelling", "failed"): _EITHER,
    }
)


def check(state: State, to: State, by: Actor) -> None:
    """Raises ConflictError where `by` may not move a job from `state` to `to`."""
    if by not in MOVES.get((state, to), ()):
        raise ConflictError(f"a job that is {state} cannot become {to} (asked by the {by})")


def after_cancel(state: State) -> State:
    """Where a user's cancel takes a job; the state itself where it is being, or was, cancelled already.

    Raises ConflictError for a job that ended otherwise.
    """
    if state in ("cancelling", "cancelled"):
        return state
    if state in TERMINAL:
        raise ConflictError(f"the job has {state} and cannot be cancelled")
    return "cancelling" if state in ACTIVE else "cancelled"


def after_pause(state: State) -> State:
    """Where a user's pause takes a job; the state itself where it is paused or pausing already."""
    if state in ("pausing", "paused"):
        return state
    if state in TERMINAL:
        raise ConflictError(f"the job has ended ({state}) and cannot be paused")
    if state == "cancelling":
        raise ConflictError("the job is being cancelled and cannot be paused")
    return "pausing" if state in ACTIVE else "paused"


def after_resume(state: State) -> State:
    """Where a user's resume takes a job; the state itself where it is on its way already."""
    if state in ("queued", "starting", "running", "recovering"):
        return state
    if state == "paused":
        return "queued"
    if state == "pausing":
        raise ConflictError("the job is still pausing; resume it once it is paused")
    raise ConflictError(f"the job is {state} and cannot be resumed; submit it again")


def command_for(state: State) -> str | None:
    """What a runner whose job is in `state` is told: "pause", "cancel", or None (go on)."""
    return {"pausing": "pause", "cancelling": "cancel"}.get(state)
