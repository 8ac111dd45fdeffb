"""How the rows of a job are prepared that goes on with the preparation of a model: `init_keeps`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from distbp.core.errors import Fault, JobError
from distbp.data.columns.choosing import WantedTarget
from distbp.data.columns.plan import Plan
from distbp.data.preprocessing import Preprocessing
from distbp.data.targets import Known
from distbp.nn.losses.several import Heads

if TYPE_CHECKING:
    from distbp.model.predictor import Model


def plan_of(model: Model, targets: Mapping[str, WantedTarget], windows: Any) -> Plan:
    """The plan of a model for the table of a job. targets, windows: what the job says of them. Raises
    JobError where that is not what the model has."""
    if model.plan is None:
        text = "names the preparation, but the model in init takes arrays, and the data is a table"
        raise JobError([Fault("init_keeps", text)])
    theirs = {name: (c.name, c.scaled, bool(c.limits)) for name, c in model.plan.targets.items()}
    # Values whose mean was 0 and deviation 1 are scaled without a trace.
    scaled = {name: one.scaled and theirs.get(name, ("", True))[1] for name, one in targets.items()}
    if theirs != {name: (one.column, scaled[name], one.clipped) for name, one in targets.items()}:
        parts = (f"{name}: {_said(*one)}" if name else _said(*one) for name, one in theirs.items())
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
    """How arrays are prepared for a model. Raises JobError where it takes a table."""
    if model.plan is not None:
        text = "names the preparation, but the model in init takes a table, and the data is arrays"
        raise JobError([Fault("init_keeps", text)])
    return model.preprocessing


def known_classes(model: Model | None, heads: Heads | None) -> dict[str, Known]:
    """The classes of the outputs that the network has like the model, by name."""
    if model is None or heads is None:
        return {}
    theirs = {head.name: head for head in model.heads}
    same = (theirs[one.name] for one in heads if one.name in theirs and theirs[one.name].shape == one.shape)
    return {head.name: Known(model.classes_of(head)) for head in same}
