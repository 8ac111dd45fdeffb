"""The state that the trainer keeps between epochs, saved as JSON in every checkpoint."""

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
    """`metrics_offset`, `metrics_sha256`: the length of metrics.jsonl in bytes, and its digest. `best`,
    `best_epoch`, `best_step`, `best_metrics`: the best evaluation. `waited`: evaluations since then. `ended`:
    why training is over ("epochs", "max_steps", "early_stopping", "converged"), or "" if it is not. `aside`:
    if the last line of metrics.jsonl is not the one that a longer run would have, the state and the line of a
    longer run (see `gone_on`). `losses`, `dead`: the facts for the verdict, see `distbp.run.verdict`."""

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
    """Returns the state that an ended run would have if training had not ended there, and the text to add to
    metrics.jsonl after its `metrics_offset`."""
    if state.aside is None:
        return replace(state, ended=""), ""
    return RunState.from_json(state.aside["state"]), state.aside["line"]


def watched(job: TrainingJob, splits: set[str]) -> str | None:
    """The metric by which epochs are compared: that of early stopping, else the validation loss, else
    None."""
    if job.early_stopping is not None:
        return str(job.early_stopping.metric)
    return "validation_loss" if "validation" in splits else None


def after_evaluation(
    state: RunState, job: TrainingJob, metric: str | None, values: dict[str, Any], epoch: int, step: int
) -> tuple[RunState, bool]:
    """Returns the state after an evaluation, and whether the evaluation is the best so far. A pure function.

    metric: see `watched`. A metric that is NaN (see `undefined`) changes neither the learning rate nor the
    count of evaluations since the best.
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
    """Notes on the metrics that control training and are NaN, such as the AUC of rows of a single class."""
    plateau = plateau_of(job.optimizer.schedule)
    names = {metric, plateau.metric if plateau else None} - {None}
    return [
        f"{name} is not defined on this data (an AUC needs rows of both classes), so it decides nothing:"
        " no epoch is the best, nothing stops early and no rate falls by it; watch another metric, or give"
        " other data"
        for name in sorted(map(str, names))
        if math.isnan(values.get(name, 0.0))
    ]


def out_of_patience(state: RunState, job: TrainingJob) -> bool:
    """Whether early stopping ends training."""
    return job.early_stopping is not None and state.waited >= job.early_stopping.patience
