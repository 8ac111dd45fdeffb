"""What the trainer tells whoever listens: a display, a log, a service.

A listener is a function of one event. Events carry numbers, not text; it is the listener that words them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Waiting:
    """What comes next may take some seconds: `what`, for people, as "starting Ray". It is over with the next
    event."""

    what: str


@dataclass(frozen=True)
class Started:
    """Before the first step. `first_step` is above 0 for a resumed run. `notes`: what the data made of the
    job and may surprise. `skipped`: rows that were left out of each split, by reason. `watched`: the metric
    that chooses the best epoch; None where there is no validation set. `members`: networks that are trained;
    steps are then counted over all of them, `epochs` and `steps_per_epoch` are those of one."""

    name: str
    run_dir: str
    job_digest: str
    parameters: int
    rows: Mapping[str, int]
    shards: int
    workers: int
    exchange: str
    epochs: int
    steps_per_epoch: int
    total_steps: int
    first_step: int
    attempt: int
    kernels: str
    notes: tuple[str, ...] = ()
    skipped: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    watched: str | None = None
    members: int = 1


@dataclass(frozen=True)
class Noted:
    """Something that people should know about the run, in words; it is said once, and in `Result.notes`."""

    text: str


@dataclass(frozen=True)
class Progressed:
    """A few times a second. `samples_per_second` is over the steps since the last such event; 0 for steps in
    which kernels may have been compiled. `workers`: that there are now."""

    step: int
    total_steps: int
    epoch: int
    samples_per_second: float
    train_loss: float | None = None
    workers: int | None = None


@dataclass(frozen=True)
class EpochEnded:
    """`metrics` is the line written to metrics.jsonl; `seconds` covers steps and evaluation.
    `samples_per_second`: of the run so far, without steps in which kernels may have been compiled.
    `unhealthy`: what is wrong with the run so far, by name (see `distbp.run.verdict`). `member`: the number
    of the network, where a job trains several."""

    epoch: int
    step: int
    metrics: Mapping[str, Any]
    samples_per_second: float
    seconds: float
    improved: bool = False
    unhealthy: Mapping[str, str] = field(default_factory=dict)
    member: int | None = None


@dataclass(frozen=True)
class CheckpointSaved:
    step: int
    path: str
    seconds: float


@dataclass(frozen=True)
class CheckpointSetAside:
    """A damaged checkpoint was found and not used."""

    path: str
    reason: str


@dataclass(frozen=True)
class Stopped:
    """Early stopping: no improvement of `metric` for `epochs` epochs; the best was at `best_epoch`. `member`:
    as in `EpochEnded`."""

    metric: str
    epochs: int
    best_epoch: int
    best: float
    member: int | None = None


@dataclass(frozen=True)
class TeamChanged:
    """Workers came or went, or a new attempt began; `reason` says why, for people."""

    step: int
    attempt: int
    reason: str


@dataclass(frozen=True)
class StateChanged:
    """A job on a service is now `state` (see `distbp_service.states`); `reason`: why, for people, or ""."""

    state: str
    reason: str
    attempt: int


@dataclass(frozen=True)
class Finished:
    result: Mapping[str, Any] = field(default_factory=dict)


Event = (
    Waiting
    | Started
    | Noted
    | Progressed
    | EpochEnded
    | CheckpointSaved
    | CheckpointSetAside
    | Stopped
    | TeamChanged
    | StateChanged
    | Finished
)
Listener = Callable[[Event], None]
