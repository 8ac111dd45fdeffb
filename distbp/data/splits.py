"""Opening the data of a job: its splits as tables, checked and prepared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from distbp import settings
from distbp.data.batches import WholeData
from distbp.data.checks import with_labels, with_values
from distbp.data.formats import from_arrays, load
from distbp.data.ids import with_ids
from distbp.data.prepared import PreparedRows, prepare
from distbp.data.preprocessing import Preprocessing, fit
from distbp.data.table import Table
from distbp.errors import DataError
from distbp.nn.losses.base import Targets
from distbp.nn.wiring import data_facts

if TYPE_CHECKING:  # these stand below the data in the house; here they are only read
    from distbp.blueprint import Blueprint
    from distbp.job import TrainingJob

SPLITS = ("train", "validation", "test")
SAMPLED_ROWS = 4096


@dataclass(frozen=True)
class Splits:
    """The tables of a job, by name; "train" is always there."""

    tables: Mapping[str, Table]
    preprocessing: Preprocessing

    @property
    def rows(self) -> dict[str, int]:
        return {name: len(table) for name, table in self.tables.items()}

    def samples(self) -> dict[str, str]:
        """A digest of up to `SAMPLED_ROWS` rows of each split, evenly spread, by name: tells that other data
        was given, in a time that does not grow with the data."""
        return {name: _sample(table).digest() for name, table in self.tables.items()}

    def targets(self) -> Targets:
        """What the training targets are, for checking the job against them."""
        targets = self.tables["train"].targets
        if targets is None:
            return Targets()
        if targets.ndim == 1:
            return Targets("labels", classes=int(targets.max()) + 1)
        return Targets(
            "values", columns=targets.shape[1], low=float(targets.min()), high=float(targets.max())
        )

    def prepare(self, job: TrainingJob, outputs: int) -> dict[str, PreparedRows]:
        """The splits ready for batches: targets as the loss takes them (labels, or values in the job's
        dtype), inputs preprocessed in memory up to DISTBP_PREPARE_BYTES. Raises DataError."""
        limit = settings.get("DISTBP_PREPARE_BYTES")
        prepared = {}
        for name, table in self.tables.items():
            self.preprocessing.check(table.features, table.name)
            if job.loss.targets == "labels":
                table = with_labels(table, outputs)
                assert table.targets is not None
                targets = table.targets
            else:
                table = with_values(table, outputs)
                assert table.targets is not None
                targets = np.ascontiguousarray(table.targets, np.dtype(job.dtype))
            dtype = np.dtype(job.dtype if data_facts(job.model.layers).ids_below is None else np.int64)
            prepared[name] = prepare(table, targets, self.preprocessing, dtype, limit)
        return prepared

    def ready(self, blueprint: Blueprint) -> WholeData:
        """All rows, prepared for training. The weights of the training rows contain the class weights, so
        that nobody multiplies them in a step; evaluation keeps the two apart, for metrics know no class
        weights. Raises DataError."""
        outputs = blueprint.network().output_shape
        prepared = self.prepare(blueprint.job, outputs[-1] if outputs else 1)
        train = prepared["train"]
        train.weights = blueprint.weights_of(train.targets, train.weights)
        return WholeData(prepared, blueprint.rows, blueprint.sharding())


def open_splits(
    job: TrainingJob, folder: Path, given: Mapping[str, Any] | None = None, *, confined: bool = False
) -> Splits:
    """Opens what the job names, relative to `folder`, or takes the arrays `given` for a split, as (inputs,
    targets) or (inputs, targets, weights). Raises DataError."""
    if job.data.folder is not None:
        if confined:
            raise DataError("data.folder may not be given here: paths are relative to the job's own data")
        folder = folder / job.data.folder
    tables: dict[str, Table] = {}
    first = data_facts(job.model.layers)
    for name in SPLITS:
        source = getattr(job.data, name)
        if given and given.get(name) is not None:
            table = from_arrays(*given[name], bad_rows=job.data.bad_rows, name=f"the {name} arrays")
        elif source is not None:
            table = load(source, folder, confined=confined, bad_rows=job.data.bad_rows)
        else:
            continue
        if first.takes == {"row"}:  # which an image is made; a view, no copy
            table = replace(table, inputs=table.inputs.reshape(len(table), -1))
        if first.ids_below is not None:
            table = with_ids(table, first.ids_below)
        if tables and table.features != tables["train"].features:
            raise DataError(
                f"{table.name}: one row has the shape {table.features}, but the training rows have"
                f" {tables['train'].features}; give the same columns"
            )
        tables[name] = table
    if "train" not in tables:
        raise DataError(
            "there is nothing to train on: name data.train in the job, or give arrays:"
            " train(job, data=(x, y))"
        )
    return Splits(tables, fit(tables["train"], job.data.scale, job.data.standardize))


def _sample(table: Table) -> Table:
    if len(table) <= SAMPLED_ROWS:
        return table
    rows = np.arange(SAMPLED_ROWS) * len(table) // SAMPLED_ROWS
    return replace(
        table,
        inputs=table.inputs[rows],
        targets=None if table.targets is None else table.targets[rows],
        weights=None if table.weights is None else table.weights[rows],
    )
