"""Folds of the rows: each network of a job can measure on other rows, and train on the rest.

The rows are put in an order: the validation rows first, then the training rows as they are drawn. Fold k has
the rows at the places [k * v, (k + 1) * v) of this order, where v is the number of validation rows. Places
past the end count on from the start. So fold 0 is the validation set, and each fold leaves the same number of
training rows. The order is the same for all seeds of a job.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from distbp.core.arrays import Array
from distbp.core.errors import DataError
from distbp.core.streams import Purpose, generator
from distbp.data.table import Table


def fold_rows(train: int, validation: int, number: int, labels: Array | None = None) -> tuple[Array, Array]:
    """The rows that train and those that measure in fold `number`, sorted, int64. train, validation: how many
    rows the sets have; rows are counted through both, training rows first. labels: of the training rows,
    (train,); the rows of each label are spread evenly over the order."""
    order = np.argsort(generator(0, Purpose.FOLD).random(train), kind="stable")
    if labels is not None:
        _, label, counts = np.unique(labels, return_inverse=True, return_counts=True)
        by_label = order[np.argsort(label[order], kind="stable")]
        rank = np.empty(train, np.int64)  # of a row among those with its label
        rank[by_label] = np.arange(train) - (np.cumsum(counts) - counts)[label[by_label]]
        place = (rank + 0.5) / counts[label]
        order = order[np.argsort(place[order], kind="stable")]
    places = np.concatenate((np.arange(train, train + validation), order))
    own = places[np.arange(number * validation, (number + 1) * validation) % len(places)]
    measures = np.zeros(train + validation, bool)
    measures[own] = True
    return np.flatnonzero(~measures), np.flatnonzero(measures)


def fold_splits(
    tables: Mapping[str, Table], targets: Mapping[str, Array], number: int, most_bytes: int
) -> tuple[dict[str, Table], dict[str, Array]]:
    """The tables and targets of a job (as its loss takes them) in fold `number`. Training and validation
    rows are copied. Raises DataError if the inputs of these have more than `most_bytes`."""
    train, validation = tables["train"], tables["validation"]
    size = train.inputs.nbytes + validation.inputs.nbytes
    if size > most_bytes:
        raise DataError(
            f"early_stopping.fold copies the rows for every network, {size / 1e6:,.0f} MB, and"
            f" DISTBP_PREPARE_BYTES allows {most_bytes / 1e6:,.0f} MB; leave fold out, or raise the setting"
        )
    whole, both = _joined(train, validation), np.concatenate([targets["train"], targets["validation"]])
    parts = fold_rows(len(train), len(validation), number, _labels(targets["train"]))
    tables, targets = dict(tables), dict(targets)
    for name, rows in zip(("train", "validation"), parts, strict=True):
        targets[name] = both[rows]
        tables[name] = replace(whole.some(rows), targets=targets[name], skipped=tables[name].skipped)
    return tables, targets


def _labels(targets: Array) -> Array | None:
    """The labels by which rows are spread: classes, or the two values of one output; None: there are none."""
    if targets.ndim == 1:
        return targets
    two = targets.shape[1] == 1 and len(np.unique(targets)) <= 2
    return targets[:, 0] if two else None


def _joined(one: Table, other: Table) -> Table:
    """The rows of two tables, without targets. Rows of one file keep their numbers; rows of two are counted
    through both."""
    joined: dict[str, Array | None] = {"targets": None, "inputs": np.concatenate((one.inputs, other.inputs))}
    if one.lengths is not None and other.lengths is not None:
        joined["lengths"] = np.concatenate((one.lengths, other.lengths))
    weights = [np.ones(len(t)) if t.weights is None else t.weights for t in (one, other)]
    joined["weights"] = None if one.weights is other.weights is None else np.concatenate(weights)
    named: dict[str, object] = {"first_row": 0, "row_numbers": None}
    if one.name == other.name:
        named["row_numbers"] = np.array([t.row_number(row) for t in (one, other) for row in range(len(t))])
    else:
        named["name"] = f"{one.name}, then {other.name}"
    return replace(one, marks=(), row_names=None, **joined, **named)  # type: ignore[arg-type]
