"""Describes the inputs of a model for a form, with the columns of its table from the plan in model.json."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np

from distbp.data.several_targets import plain_classes
from distbp.model.predictor import Model
from distbp.nn.network import Network
from distbp_service.api import model_schemas as schemas

MOST_COLUMNS = 1000  # a form cannot have more
MOST_LEVELS = 1000
_DIGITS = 4  # significant digits of an example


def form_of(model: Model) -> schemas.ModelInputs:
    table = None if model.plan is None else model.plan.to_json()
    columns, rows = None, 1
    codes = [] if model.plan is None else [code.name for code in model.plan.targets.values()]
    if table is not None and table.get("series"):
        rows = int(table["series"]["length"])
    elif table is not None and len(table["columns"]) <= MOST_COLUMNS:
        columns = columns_of(table)
    return schemas.ModelInputs(
        task=model.task,
        classes=plain_classes(model.classes),
        target=", ".join(codes) or None,
        shape=list(model.input_shape),
        parts=[] if table is not None else parts_of(model.network),
        is_table=table is not None,
        rows=rows,
        columns=columns,
    )


def parts_of(network: Network) -> list[schemas.InputPart]:
    """The named inputs of a network, or its only input, which has no name."""
    parts = [
        schemas.InputPart(name=one.name, shape=list(one.shape), steps="most" if one.ragged else "all")
        for one in network.named_inputs
    ]
    steps: schemas.Steps = "any" if network.carry is not None else "most" if network.lengths else "all"
    return parts or [schemas.InputPart(name=None, shape=list(network.input_shape), steps=steps)]


def columns_of(table: Mapping[str, Any]) -> list[schemas.InputColumn]:
    """The form's columns. table: the JSON of a plan."""
    return [_COLUMNS[one["type"]](one) for one in table["columns"]]


def _number(one: Mapping[str, Any]) -> schemas.InputColumn:
    ends = _ends(one)
    plain = not (one["log"] or one["ranks"]) and one["center"] == one["fill"]  # both are the mean
    whole = bool(ends) and all(end == round(end) for end in ends)
    return schemas.InputColumn(
        name=one["name"],
        kind="number",
        low=ends[0] if ends else None,
        high=ends[1] if ends else None,
        deviation=one["spread"] if plain else None,
        missing=one["fill"],
        example=round(one["fill"]) if whole else _short(one["fill"]),
    )


def _ends(one: Mapping[str, Any]) -> list[float]:
    """The smallest and the largest number in training; [] if the plan does not have them. They are in its
    ranks, or they are the outer edges of its bins, which are scaled and float32."""
    if one["ranks"]:
        return [one["ranks"][0], one["ranks"][-1]]
    return [_of_edge(one, one["edges"][i]) for i in (0, -1)] if one["edges"] else []


def _of_edge(one: Mapping[str, Any], edge: float) -> float:
    """The unscaled number of an edge, rounded to the digits that float32 keeps."""
    near = edge + float(np.spacing(np.float32(abs(edge))))
    ends = [x * one["spread"] + one["center"] for x in (edge, near)]
    if one["log"]:
        ends = [math.copysign(math.expm1(abs(x)), x) for x in ends]
    lost = 2 * abs(ends[1] - ends[0])
    known = 0 < lost < math.inf
    return float(round(ends[0], -math.ceil(math.log10(lost)))) + 0.0 if known else float(ends[0])


def _category(one: Mapping[str, Any]) -> schemas.InputColumn:
    levels = None if one["buckets"] else one["levels"][:MOST_LEVELS]
    return schemas.InputColumn(
        name=one["name"], kind="category", levels=levels, example=levels[0] if levels else None
    )


def _boolean(one: Mapping[str, Any]) -> schemas.InputColumn:
    return schemas.InputColumn(name=one["name"], kind="boolean", levels=["yes", "no"], example="yes")


def _date(one: Mapping[str, Any]) -> schemas.InputColumn:
    timed = "hour" in one["parts"]
    try:
        moment = datetime.fromtimestamp(one["fill"], UTC)
        example = moment.strftime("%Y-%m-%d %H:%M" if timed else "%Y-%m-%d")
    except (OverflowError, ValueError, OSError):
        example = None
    return schemas.InputColumn(name=one["name"], kind="date", timed=timed, missing=example, example=example)


_COLUMNS = {"number": _number, "category": _category, "boolean": _boolean, "date": _date}


def _short(value: float) -> float:
    """Rounds to `_DIGITS` significant digits."""
    return float(f"{value:.{_DIGITS}g}")
