"""What the trainer remembers between epochs, as JSON in every checkpoint."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from distbp.job import TrainingJob
from distbp.schedules import PlateauState, plateau_of

# Metrics of which less is more; of all others, more is.
_LESS_IS_BETTER = ("loss", "mae", "rmse", "mse")


@dataclass(frozen=True)
class RunState:
    """`waited`: evaluations since the best one. `metrics_offset`: length of metrics.jsonl in bytes.
    `metrics_sha256`: of so much of it. `best_metrics`: what was measured at the best evaluation. `ended`: why
    training is over ("epochs", "max_steps", "early_stopping"), or "" while it is not. `aside`: where the end
    was measured out of turn, what a longer run would have had there instead (see `gone_on`)."""

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
    best_metrics: dict[str, Any] = field(default_factory=dict)
    aside: dict[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(data: dict[str, Any]) -> RunState:
        return RunState(**{**data, "plateau": PlateauState(**data["plateau"])})


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


def less_is_better(metric: str) -> bool:
    return metric.endswith(_LESS_IS_BETTER)


def after_evaluation(
    state: RunState, job: TrainingJob, metric: str | None, values: dict[str, Any], epoch: int, step: int
) -> tuple[RunState, bool]:
    """The state after an epoch was measured, and whether it was the best so far. Pure."""
    state = replace(state, last_metrics=values)
    plateau = plateau_of(job.optimizer.schedule)
    if plateau is not None and plateau.metric in values:
        rate = job.optimizer.learning_rate
        state = replace(state, plateau=plateau.observe(state.plateau, rate, values[plateau.metric]))
    if metric is None or metric not in values:
        return state, False
    value = float(values[metric])
    delta = job.early_stopping.min_delta if job.early_stopping else 0.0
    sign = 1.0 if less_is_better(metric) else -1.0
    better = not math.isnan(value) and (state.best is None or sign * value < sign * state.best - delta)
    if better:
        return replace(
            state, best=value, best_epoch=epoch, best_step=step, waited=0, best_metrics=values
        ), True
    return replace(state, waited=state.waited + 1), False


def out_of_patience(state: RunState, job: TrainingJob) -> bool:
    return job.early_stopping is not None and state.waited >= job.early_stopping.patience
