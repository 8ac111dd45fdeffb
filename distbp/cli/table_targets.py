"""The columns of a table with which predictions are compared: its targets and weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from distbp.core.arrays import Array
from distbp.core.errors import DataError
from distbp.data.columns.cells import truth, truths
from distbp.data.columns.loading import Use
from distbp.data.columns.reading import RawTable
from distbp.data.columns.store import Column

if TYPE_CHECKING:
    from distbp.model.predictor import Model
    from distbp.nn.losses.several import Head


def compared_with(model: Model, table: RawTable) -> dict[str, Use]:
    """The uses of a table's target columns, and of its weight column if it has one. Raises DataError if a
    target is missing."""
    assert model.plan is not None
    uses = {}
    for head in model.heads:
        name, classes = model.plan.targets[head.name].name, model.classes_of(head)
        kind = int if classes is None else type(classes[0])
        if name not in table.names:
            raise DataError(f"{table.name}: has no column {name!r}, the target to compare with")
        uses[name] = Use({str: "level", bool: "boolean"}.get(kind, "number"), False, "target")
    if model.plan.weight in table.names:
        uses[model.plan.weight] = Use("number", role="weight")
    return uses


def targets_of(model: Model, head: Head, columns: Mapping[str, Column]) -> Array:
    """The targets of one output, as the network was trained on them."""
    assert model.plan is not None
    code, classes = model.plan.targets[head.name], model.classes_of(head)
    column = columns[code.name]
    targets = np.asarray(column.values)
    if column.levels is not None:
        said = truths(classes or ())  # "True" in CSV equals true in a typed file
        names = [one if one in (classes or ()) else said.get(truth(one), one) for one in column.levels]
        return np.asarray(np.array(names)[targets])
    if classes is not None and isinstance(classes[0], bool):
        return targets.astype(bool)
    if head.is_label:  # numbers, which are checked later
        return targets[:, None]
    return code.scale(targets) if code.scaled else targets
