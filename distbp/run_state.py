"""What the trainer remembers between epochs, as JSON in every checkpoint."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from distbp.job import TrainingJob
from distbp.metric_names import less_is_better
from distbp.schedules import PlateauState, plateau_of


@dataclass(frozen=True)
class RunState:
    """`waited`: evaluations since the best one. `metrics_offset`: length of metrics.jsonl in bytes.
    `ended`: why training is over ("epochs", "max_steps", "early_stopping"), or "" while it is not."""

    attempt: int = 1
    metrics_offset: int = 0
    best: float | None = None
    best_epoch: int = 0
    best_step: int = 0
    waited: int = 0
    plateau: PlateauState = field(default_factory=PlateauState)
    last_metrics: dict[str, Any] = field(default_factory=dict)
    ended: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(data: dict[str, Any]) -> RunState:
        return RunState(**{**data, "plateau": PlateauState(**data["plateau"])})


def watched(job: TrainingJob, splits: set[str]) -> str | None:
    """The metric by which epochs are compared: early stopping's, else the validation loss if there is one."""
    if job.early_stopping is not None:
        return str(job.early_stopping.metric)
    return "validation_loss" if "validation" in splits else None


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
        return replace(state, best=value, best_epoch=epoch, best_step=step, waited=0), True
    return replace(state, waited=state.waited + 1), False


def out_of_patience(state: RunState, job: TrainingJob) -> bool:
    return job.early_stopping is not None and state.waited >= job.early_stopping.patience
