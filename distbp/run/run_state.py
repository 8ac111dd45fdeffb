"""What the trainer remembers between epochs, as JSON in every checkpoint."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from distbp.job import TrainingJob
from distbp.nn.metrics import less_is_better
from distbp.optim.schedules import PlateauState, plateau_of
from distbp.run.result import with_nan
from distbp.run.verdict import EpochLosses


@dataclass(frozen=True)
class RunState:
    """`waited`: evaluations since the best one. `metrics_offset`: length of metrics.jsonl in bytes.
    `metrics_sha256`: of so much of it. `best_metrics`: what was measured at the best evaluation. `ended`: why
    training is over ("epochs", "max_steps", "early_stopping", "converged"), or "" while it is not. `aside`:
    where the end is told otherwise, what a longer run would have had there instead (see `gone_on`).
    `losses`, `dead`: what the verdict on the run is made of, see `distbp.run.verdict`."""

    attempt: int = 1
    metrics_offset: int = 0
    metrics_sha256: str = ""
    best: float | None = None
    best_epoch: int = 0
    best_step: int = 0
    waited: int = 0
    plateau: PlateauState = field(default_factory=PlateauState)
    last_metrics: dict[str, Any] = field(default_factory=dict)
    ended: str = ""
    losses: EpochLosses | None = None
    dead: dict[str, float] = field(default_factory=dict)
    best_metrics: dict[str, Any] = field(default_factory=dict)
    aside: dict[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        metrics = {
            k: None if isinstance(v, float) and math.isnan(v) else v for k, v in self.last_metrics.items()
        }
        return {**asdict(self), "last_metrics": metrics, "losses": self.losses}

    @staticmethod
    def from_json(data: dict[str, Any]) -> RunState:
        losses = data.get("losses")
        plain = {
            "plateau": PlateauState(**data["plateau"]),
            "last_metrics": with_nan(data["last_metrics"]),
            "losses": EpochLosses(*losses) if losses else None,
        }
        return RunState(**{**data, **plain})


def gone_on(state: RunState) -> tuple[RunState, str]:
    """The state of a run that ended, as it would be had training not ended there, and the text to add to
    metrics.jsonl after its `metrics_offset`."""
    if state.aside is None:
        return replace(state, ended=""), ""
    return RunState.from_json(state.aside["state"]), state.aside["line"]


def watched(job: TrainingJob, splits: set[str]) -> str | None:
    """The metric by which epochs are compared: early stopping's, else the validation loss if there is one."""
    if job.early_stopping is not None:
        return str(job.early_stopping.metric)
    return "validation_loss" if "validation" in splits else None


def after_evaluation(
    state: RunState, job: TrainingJob, metric: str | None, values: dict[str, Any], epoch: int, step: int
) -> tuple[RunState, bool]:
    """The state after an epoch was measured, and whether it was the best so far. Pure.

    A metric that is not defined on the data (see `undefined`) says nothing: nothing is reduced, nobody waits.
    """
    state = replace(state, last_metrics=values)
    plateau = plateau_of(job.optimizer.schedule)
    if plateau is not None and not math.isnan(values.get(plateau.metric, math.nan)):
        rate = job.optimizer.learning_rate
        state = replace(state, plateau=plateau.observe(state.plateau, rate, values[plateau.metric]))
    value = math.nan if metric is None else float(values.get(metric, math.nan))
    if math.isnan(value):
        return state, False
    delta = job.early_stopping.min_delta if job.early_stopping else 0.0
    sign = 1.0 if less_is_better(str(metric)) else -1.0
    last = job.early_stopping is not None and job.early_stopping.ties == "last"
    bound = math.inf if state.best is None else sign * state.best - delta
    if sign * value < bound or (last and sign * value == bound):
        better = replace(state, best=value, best_epoch=epoch, best_step=step, waited=0, best_metrics=values)
        return better, True
    return replace(state, waited=state.waited + 1), False


def undefined(job: TrainingJob, metric: str | None, values: dict[str, Any]) -> list[str]:
    """What to say of the metrics that decide something and are NaN, as the AUC of rows of one class is."""
    plateau = plateau_of(job.optimizer.schedule)
    names = {metric, plateau.metric if plateau else None} - {None}
    return [
        f"{name} is not defined on this data (an AUC needs rows of both classes), so that it decides nothing:"
        " no epoch is the best, nothing stops early and no rate falls by it; watch another metric, or give"
        " other data"
        for name in sorted(map(str, names))
        if math.isnan(values.get(name, 0.0))
    ]


def out_of_patience(state: RunState, job: TrainingJob) -> bool:
    return job.early_stopping is not None and state.waited >= job.early_stopping.patience
