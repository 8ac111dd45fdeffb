"""The states of a job, and who may move it from one to another.

    queued -> starting -> running -> completed | failed
                 |           |-> pausing -> paused -> queued
                 |           |-> cancelling -> cancelled | failed (past its deadline)
                 |           '-> queued          the runner was told to stop, and left a checkpoint
                 '-> recovering -> queued        the runner was lost, or failed for a temporary reason

A cancel takes effect at once if no runner works on the job. Otherwise the runner is told, and the job is
moved when the runner has ended. A job whose runner finishes before it hears of a pause or a cancel has
completed.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from distbp.client.names import State
from distbp_service.errors import ConflictError

Actor = Literal["user", "dispatcher", "runner"]

TERMINAL: frozenset[State] = frozenset({"completed", "failed", "cancelled"})
# A job in one of these states has a runner, or is about to get one, so it holds slots and a lease.
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
        ("starting", "completed"): _RUNNER,  # an earlier attempt had finished, and was lost before its report
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
    """Raises ConflictError if `by` may not move a job from `state` to `to`."""
    if by not in MOVES.get((state, to), ()):
        raise ConflictError(f"a job that is {state} cannot become {to} (asked by the {by})")


def after_cancel(state: State) -> State:
    """The state to which a user's cancel moves a job; `state` if it is cancelled or being cancelled already.

    Raises ConflictError if the job has ended in another state.
    """
    if state in ("cancelling", "cancelled"):
        return state
    if state in TERMINAL:
        raise ConflictError(f"the job has {state} and cannot be cancelled")
    return "cancelling" if state in ACTIVE else "cancelled"


def after_pause(state: State) -> State:
    """The state to which a user's pause moves a job; `state` if it is paused or pausing already. Raises
    ConflictError if the job has ended or is being cancelled."""
    if state in ("pausing", "paused"):
        return state
    if state in TERMINAL:
        raise ConflictError(f"the job has ended ({state}) and cannot be paused")
    if state == "cancelling":
        raise ConflictError("the job is being cancelled and cannot be paused")
    return "pausing" if state in ACTIVE else "paused"


def after_resume(state: State) -> State:
    """The state to which a user's resume moves a job; `state` if it is queued or running already. Raises
    ConflictError if the job is pausing, being cancelled, or has ended."""
    if state in ("queued", "starting", "running", "recovering"):
        return state
    if state == "paused":
        return "queued"
    if state == "pausing":
        raise ConflictError("the job is still pausing; resume it once it is paused")
    raise ConflictError(f"the job is {state} and cannot be resumed; submit it again")


def command_for(state: State) -> str | None:
    """The command to a runner whose job is in `state`: "pause", "cancel", or None (go on)."""
    return {"pausing": "pause", "cancelling": "cancel"}.get(state)
