"""Events that the trainer sends to a listener: a display, a log, a service.

A listener is a function of one event. Events carry numbers, not text; the listener puts them into words.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Waiting:
    """Work has begun that may take some seconds. `what` names it for people, for example "starting Ray". The
    next event ends it."""

    what: str


@dataclass(frozen=True)
class Started:
    """The run is about to train its first step. `first_step` is above 0 for a resumed run. `notes`: facts
    about job and data that may surprise. `skipped`: rows that were left out of each split, by reason.
    `watched`: the metric that chooses the best epoch; None without a validation set. `members`: the number of
    networks. Steps are counted over all networks; `epochs` and `steps_per_epoch` are those of one."""

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
    """A note for people about the run. Each is sent once, and is also in `Result.notes`."""

    text: str


@dataclass(frozen=True)
class Progressed:
    """Progress, sent a few times a second. `samples_per_second`: over the steps since the last such event; 0
    if kernels may have been compiled in them. `workers`: their number now."""

    step: int
    total_steps: int
    epoch: int
    samples_per_second: float
    train_loss: float | None = None
    workers: int | None = None


@dataclass(frozen=True)
class EpochEnded:
    """An epoch has ended. `metrics`: the losses and metrics of its line in metrics.jsonl. `seconds`: the time
    from its last step to this event. `samples_per_second`: of the run so far, without steps in which kernels
    may have been compiled. `unhealthy`: what is wrong with the run so far, by name (see
    `distbp.run.verdict`). `member`: the number of the network, if the job trains several."""

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
    """A checkpoint of `step` is in `path`; writing it took `seconds`."""

    step: int
    path: str
    seconds: float


@dataclass(frozen=True)
class CheckpointSetAside:
    """A damaged checkpoint was found, and is not used. `path`: where it is now."""

    path: str
    reason: str


@dataclass(frozen=True)
class Stopped:
    """Early stopping has ended training: `metric` has not improved in `epochs` evaluations. Its best value
    was `best`, in `best_epoch`. `member`: as in `EpochEnded`."""

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
    """The run has ended. `result`: as in result.json."""

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
