"""What a model takes, as a form asks for it: the columns of its table, from the plan in its model.json."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from distbp.model.predictor import Model
from distbp_service.api import model_schemas as schemas

MOST_COLUMNS = 1000  # more are no form
MOST_LEVELS = 1000
_DIGITS = 4


def form_of(model: Model) -> schemas.ModelInputs:
    table = None if model.plan is None else model.plan.to_json()
    columns, rows = None, 1
    if table is not None and table.get("series"):
        rows = int(table["series"]["length"])
    elif table is not None and len(table["columns"]) <= MOST_COLUMNS:
        columns = [_COLUMNS[one["type"]](one) for one in table["columns"]]
    return schemas.ModelInputs(
        task=model.task,
        classes=None if model.classes is None else list(model.classes),
        target=None if table is None else table["target"]["name"],
        shape=list(model.input_shape),
        is_table=table is not None,
        rows=rows,
        columns=columns,
    )


def _number(one: Mapping[str, Any]) -> schemas.InputColumn:
    ends = one["edges"] or one["ranks"]
    plain = not (one["log"] or one["ranks"]) and one["center"] == one["fill"]  # both are the mean
    whole = bool(one["edges"]) and all(edge == round(edge) for edge in one["edges"])
    return schemas.InputColumn(
        name=one["name"],
        kind="number",
        low=ends[0] if ends else None,
        high=ends[-1] if ends else None,
        deviation=one["spread"] if plain else None,
        missing=one["fill"],
        example=round(one["fill"]) if whole else _short(one["fill"]),
    )


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
    """With few digits."""
    if value == 0:
        return 0.0
    return round(value, max(0, _DIGITS - 1 - math.floor(math.log10(abs(value)))))
