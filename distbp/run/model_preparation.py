"""The targets that a job takes from a table, and the preparation of rows that it takes from a model
(`init_keeps: [preparation]`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from distbp.core.errors import Fault, JobError
from distbp.data.columns.choosing import WantedTarget
from distbp.data.columns.plan import Plan
from distbp.data.preprocessing import Preprocessing
from distbp.data.targets import Known
from distbp.job.columns import targets_in
from distbp.nn.losses.several import Heads, parts_of

if TYPE_CHECKING:
    from distbp.job import TrainingJob
    from distbp.model.predictor import Model


def targets_of(job: TrainingJob) -> dict[str, WantedTarget]:
    """The columns to predict, by output. Raises JobError if their outputs are not those of the losses."""
    said, targets = targets_in(job.data.target), {}
    if set(said) != {part.name for part in parts_of(job.loss)}:  # the job's checks leave this out for frames
        text = "names the targets of other outputs than loss; write the same names in both"
        raise JobError([Fault("data.target", text)])
    for part in parts_of(job.loss):
        target, path = said[part.name], f"data.target.{part.name}" if part.name else "data.target"
        labels, scaled = part.loss.targets == "labels", target.scale == "standard"
        targets[part.name] = WantedTarget(target.column, scaled, bool(target.clip), labels, path)
    return targets


def plan_of(model: Model, targets: Mapping[str, WantedTarget], windows: Any) -> Plan:
    """The plan of a model, for the table of a job. targets, windows: the job's. Raises JobError if they
    differ from the model's, or if the model takes arrays."""
    if model.plan is None:
        text = "has preparation, but the model in init takes arrays, and the data is a table"
        raise JobError([Fault("init_keeps", text)])
    theirs = {name: (c.name, c.scaled, bool(c.limits)) for name, c in model.plan.targets.items()}
    # A model does not show that it scales targets whose mean was 0 and standard deviation 1.
    scaled = {name: target.scaled and theirs.get(name, ("", True))[1] for name, target in targets.items()}
    if theirs != {name: (target.column, scaled[name], target.clipped) for name, target in targets.items()}:
        parts = (f"{name}: {_said(*facts)}" if name else _said(*facts) for name, facts in theirs.items())
        raise JobError([Fault("data.target", f"must be that of the model in init: {', '.join(parts)}")])
    series = model.plan.series
    asked = None if windows is None else (windows.length, windows.horizon, windows.difference)
    if asked != (None if series is None else (series.length, series.horizon, series.difference)):
        raise JobError([Fault("data.windows", "must be those of the model in init")])
    return model.plan


def _said(column: str, scaled: bool, clipped: bool) -> str:
    options = f"{', scale: standard' * scaled}{', clip: true' * clipped}"
    return f"{{column: {column}{options}}}"


def scales_of(model: Model) -> Preprocessing:
    """The preprocessing of arrays for a model. Raises JobError if the model takes a table."""
    if model.plan is not None:
        text = "has preparation, but the model in init takes a table, and the data are arrays"
        raise JobError([Fault("init_keeps", text)])
    return model.preprocessing


def known_classes(model: Model | None, heads: Heads | None) -> dict[str, Known]:
    """The model's classes, by output, for each output that both have with the same name and shape."""
    if model is None or heads is None:
        return {}
    theirs = {head.name: head for head in model.heads}
    pairs = ((head, theirs[head.name]) for head in heads if head.name in theirs)
    return {old.name: Known(model.classes_of(old)) for new, old in pairs if old.shape == new.shape}
