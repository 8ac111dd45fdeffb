"""The kinds of columns and the options of the target that a recipe chooses if the job does not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distbp.data.columns.kinds import Auto
from distbp.data.formats import TableFiles
from distbp.nn.losses import LOSSES


def is_table(data: Any) -> bool:
    """Whether a job's data, as an unchecked mapping, are a table."""
    if not isinstance(data, Mapping):
        return False
    train = data.get("train")
    named = isinstance(train, Mapping) and train.get("format") == "table"
    return named or isinstance(train, TableFiles) or (train is None and data.get("target") is not None)


def predicts_values(loss: Any) -> bool:
    """Whether a loss, unchecked and in any spelling, is for regression."""
    kind = _kind(loss)
    return kind is not None and kind.task == "regression"


def scale_for(loss: Any) -> dict[str, str]:
    """The target's option `scale: standard` if the loss takes values below 0, else no option."""
    return {"scale": "standard"} if predicts_values(loss) and _kind(loss).allowed[0] != 0 else {}


def _is_open(others: Any) -> bool:
    if isinstance(others, Mapping):
        return list(others.items()) == [("kind", "auto")]
    return others is None or (isinstance(others, str | Auto) and others in ("auto", Auto()))


def _kind(loss: Any) -> Any:
    name = loss.get("type") if isinstance(loss, Mapping) else getattr(loss, "type", loss)
    return LOSSES.get(name) if isinstance(name, str) else None


def completed(
    data: Mapping[str, Any], others: Mapping[str, Any] | None, target: Mapping[str, Any]
) -> dict[str, Any]:
    """The data of a table with the recipe's kinds of columns and options of the target. The job's own
    settings stay, except `others: auto`. others: the kind in its place; None: kinds stay as they are."""
    completed_data = dict(data)
    columns = data.get("columns")
    if others is not None and (columns is None or isinstance(columns, Mapping)):
        said = dict(columns or {})
        completed_data["columns"] = {**said, "others": others} if _is_open(said.get("others")) else said
    given = data.get("target")
    own = given if isinstance(given, Mapping) else {"column": given}
    if target and own.get("column") is not None:
        completed_data["target"] = {**target, **own}
    return completed_data
