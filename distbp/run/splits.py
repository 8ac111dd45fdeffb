"""Opens the data of a job: its splits as tables, checked and prepared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from distbp.core import settings
from distbp.core.arrays import Shape
from distbp.core.errors import DataError, Fault, JobError
from distbp.core.metric_names import SPLITS
from distbp.core.storage import user_path
from distbp.core.words import counted
from distbp.data.batches import WholeData
from distbp.data.checks import Allowed, check_rows
from distbp.data.columns.cells import MISSING
from distbp.data.columns.choosing import Wanted, Window
from distbp.data.columns.given import GivenTable
from distbp.data.columns.noticing import absent_classes
from distbp.data.columns.opening import open_table
from distbp.data.columns.plan import Plan
from distbp.data.columns.series import windowed
from distbp.data.cutting import cut, in_a_row, understand_steps
from distbp.data.digest import table_record
from distbp.data.duplicates import shared_rows
from distbp.data.folds import fold_splits
from distbp.data.formats import TableFiles, from_arrays, load
from distbp.data.frames import is_frame
from distbp.data.given import arranged
from distbp.data.ids import with_ids
from distbp.data.named_inputs import fit_each
from distbp.data.prepared import PreparedRows, prepare
from distbp.data.preprocessing import Preprocessing, fit
from distbp.data.several_targets import understand_all
from distbp.data.table import Table
from distbp.data.targets import Meaning
from distbp.job.members import fold_of
from distbp.job.table_checks import given_data_fits
from distbp.nn.layers.columns import Columns
from distbp.nn.losses.several import Heads, heads_of, names_of, parts_of
from distbp.nn.named_inputs import named_inputs
from distbp.nn.network import Network
from distbp.nn.wiring import data_facts
from distbp.run.model_preparation import known_classes, plan_of, scales_of, targets_of
from distbp.run.warm_start import began_with

if TYPE_CHECKING:
    from distbp.engine.blueprint import Blueprint
    from distbp.job import TrainingJob
    from distbp.model.predictor import Model


@dataclass(frozen=True)
class Splits:
    """The tables of a job, by the name of the split; there is always a "train". `meaning`: of the targets, as
    the loss takes them. `plan`: of the columns of a table with named columns, else None. `notes`: for the
    user."""

    tables: Mapping[str, Table]
    preprocessing: Preprocessing
    meaning: Meaning
    plan: Plan | None = None
    notes: tuple[str, ...] = ()

    @property
    def skipped(self) -> dict[str, dict[str, int]]:
        """How many rows were left out of each split, by reason. Splits without such rows are left out."""
        return {name: dict(table.skipped) for name, table in self.tables.items() if table.skipped}

    @property
    def entry(self) -> Columns | None:
        """The layer by which the rows of a table enter the network; None for arrays."""
        return None if self.plan is None else self.plan.entry

    @property
    def rows(self) -> dict[str, int]:
        return {name: len(table) for name, table in self.tables.items()}

    def record(self, known: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The digests of all rows of each split (see `table_record`), by which changed data is noticed.
        `known`: an earlier record, whose digests count for files that are unchanged since."""
        return {name: table_record(table, (known or {}).get(name)) for name, table in self.tables.items()}

    def of_fold(self, number: int) -> Splits:
        """The splits in which fold `number` measures (see `distbp.data.folds`). Raises DataError."""
        if number == 0 or "validation" not in self.tables:  # the latter is a fault of the job, found later
            return self
        most = settings.get("DISTBP_PREPARE_BYTES")
        tables, targets = fold_splits(self.tables, self.meaning.targets, number, most)
        return replace(self, tables=tables, meaning=replace(self.meaning, targets=targets))

    def prepare(self, job: TrainingJob) -> dict[str, PreparedRows]:
        """The splits, ready for batches: targets as the loss takes them, inputs preprocessed. Inputs of more
        than DISTBP_PREPARE_BYTES are preprocessed batch by batch. Raises DataError."""
        limit = settings.get("DISTBP_PREPARE_BYTES")
        prepared = {}
        for name, table in self.tables.items():
            self.preprocessing.check(table.features, table.name)
            targets = self.meaning.targets[name]
            prepared[name] = prepare(table, targets, self.preprocessing, input_dtype(job), limit)
        return prepared

    def copied_bytes(self, job: TrainingJob) -> int:
        """The bytes of the inputs that `prepare` copies."""
        dtype, limit = input_dtype(job), settings.get("DISTBP_PREPARE_BYTES")
        sizes = [
            table.inputs.size * dtype.itemsize
            for table in self.tables.values()
            if table.inputs.dtype != dtype or not self.preprocessing.is_identity(dtype)
        ]
        return sum(size for size in sizes if size <= limit)

    def ready(self, blueprint: Blueprint) -> WholeData:
        """All rows, prepared for training. The weights of the training rows include the class weights, so no
        step multiplies them. Evaluation keeps the two apart, because class weights do not count in metrics.
        Raises DataError."""
        prepared = self.prepare(blueprint.job)
        train = prepared["train"]
        train.weights = blueprint.weights_of(train.targets, train.weights)
        return WholeData(prepared, blueprint.rows, blueprint.sharding())


def input_dtype(job: TrainingJob) -> np.dtype[Any]:
    """The dtype of the network's inputs: int64 if they are ids, else the job's."""
    return np.dtype(job.dtype if data_facts(job.model.layers).ids_below is None else np.int64)


def open_splits(
    job: TrainingJob,
    folder: Path,
    given: Mapping[str, Any] | None = None,
    *,
    confined: bool = False,
    init: Path | None = None,
) -> Splits:
    """Opens the data of a job. given: for a split, arrays (inputs, targets) or (inputs, targets, weights), or
    a frame, in place of the data that the job names. folder: what the job's paths are relative to; confined:
    they may not leave it. init: the folder of the model that the job begins with, if it is not where the job
    says. Raises DataError, JobError."""
    model = began_with(job, folder, init, confined) if "preparation" in (job.init_keeps or ()) else None
    if job.data.folder is not None:
        if confined:
            raise DataError("data.folder may not be given here: paths are relative to the job's own data")
        folder = folder / user_path(job.data.folder)
    train = (given or {}).get("train")
    if train is not None:
        there = [name for name, values in (given or {}).items() if values is not None]
        given_data_fits(job, is_frame(train), there)
    if is_frame(train) or (train is None and isinstance(job.data.train, TableFiles)):
        return _open_table(job, folder, given or {}, model, confined=confined)
    tables: dict[str, Table] = {}
    first, steps = data_facts(job.model.layers), job.data.truncated_bptt_steps
    named = named_inputs(job.model.layers)
    known = not job.data.standardize and all(entry.scale == 1 for entry in named)
    plain = Preprocessing(job.data.scale) if known else None
    if model is not None:
        plain = scales_of(model)
    for name in SPLITS:
        source = getattr(job.data, name)
        allowed = Allowed(np.dtype(job.dtype), plain, name)
        if given and given.get(name) is not None:
            arrays = given[name] if steps is None else in_a_row(given[name], f"the {name} arrays")
            table = from_arrays(
                *arrays,
                bad_rows=job.data.bad_rows,
                name=f"the {name} arrays",
                allowed=allowed,
                outputs=names_of(job.loss),
                named=named,
            )
        elif source is not None:
            table = load(
                source, folder, confined=confined, bad_rows=job.data.bad_rows, allowed=allowed, named=named
            )
        else:
            continue
        if first.takes == {"row"} and table.lengths is None:  # an image becomes a row: a view, not a copy
            table = replace(table, inputs=table.inputs.reshape(len(table), -1))
        if first.ids_below is not None:
            table = with_ids(table, first.ids_below)
        if steps is not None:
            table = cut(table, steps)
        if tables and table.columns is not None:
            wanted = tables["train"].columns
            inputs = arranged(table.inputs, table.columns, wanted, table.name)
            table = replace(table, inputs=inputs, columns=wanted)
        if tables and (table.lengths is None) != (tables["train"].lengths is None):
            raise DataError(f"{table.name}: some splits have lengths and others do not; give them for all")
        if tables and table.features != tables["train"].features:
            raise DataError(
                f"{table.name}: one row has the shape {table.features}, but the training rows have"
                f" {tables['train'].features}; give the same columns"
            )
        if name == "train":
            if model is not None:
                preprocessing = model.preprocessing
            elif named:
                preprocessing = fit_each(table, named, job.data.standardize)
            else:
                preprocessing = fit(table, job.data.scale, job.data.standardize)
        elif tables and plain is None:  # the preprocessing fitted to the training rows may overflow here
            table = check_rows(table, job.data.bad_rows, replace(allowed, preprocessing=preprocessing))
        if job.data.targets == "inputs":
            table = replace(table, targets=preprocessing.as_targets(table.inputs, np.dtype(job.dtype)))
        tables[name] = table
    if "train" not in tables:
        raise DataError(
            "there is nothing to train on: name data.train in the job, or give arrays:"
            " train(job, data=(x, y))"
        )
    heads = _heads(job, tables["train"].features)
    classes, dtype = known_classes(model, heads), np.dtype(job.dtype)
    if steps is None:
        meaning = understand_all(tables, job.loss, heads, dtype, classes)
    else:
        outputs, loss = None if heads is None else heads.all[0].outputs[1], parts_of(job.loss)[0].loss
        meaning = understand_steps(tables, loss, outputs, dtype, classes.get(""))
    return Splits(tables, preprocessing, meaning).of_fold(fold_of(job))


def _open_table(
    job: TrainingJob, folder: Path, given: Mapping[str, Any], model: Model | None, *, confined: bool
) -> Splits:
    """Opens the splits of a table with named columns, from files or from the frames in `given`. model: whose
    preparation the job takes over, if any."""
    data, shares = job.data, {}
    if data.target is None:
        raise JobError([Fault("data.target", "is required for a table (the column to predict)")])
    if data.split is not None:
        shares = {"validation": data.split.validation, "test": data.split.test}
    plan = None if model is None else plan_of(model, targets_of(job), data.windows)
    wanted = Wanted(
        targets=targets_of(job),
        columns=data.columns or {},
        missing=plan.missing if plan is not None else data.missing if data.missing is not None else MISSING,
        weight=data.weight,
        group=data.group,
        time=data.time,
        shares=shares,
        way="auto" if data.split is None else data.split.by,
        seed=0 if data.split is None else data.split.seed,
        bad_rows=data.bad_rows,
        dtype=job.dtype,
        window=None if data.windows is None else Window(**dict(data.windows)),
        plan=plan,
    )
    sources: dict[str, Any] = {}
    for name in SPLITS:
        if given.get(name) is not None:
            if not is_frame(given[name]):
                raise DataError(f"the {name} data is not a frame, unlike the training data; give frames")
            sources[name] = GivenTable(given[name], f"the {name} frame")
        elif getattr(data, name) is not None:
            sources[name] = getattr(data, name)
    opened = open_table(wanted, sources, folder, confined=confined)
    plain = Preprocessing()
    tables = {
        name: check_rows(table, data.bad_rows, Allowed(np.dtype(job.dtype), plain, name))
        for name, table in opened.tables.items()
    }
    flat = data_facts(job.model.layers).takes == {"row"}
    for name, windows in opened.windows.items():
        assert opened.plan.series is not None
        tables[name] = windowed(tables[name], replace(windows, flat=flat), opened.plan.series)
    heads = _heads(job, tables["train"].features, opened.plan.entry)
    meaning = understand_all(tables, job.loss, heads, np.dtype(job.dtype), known_classes(model, heads))
    notes = list(opened.notes)
    if not opened.windows:  # every row of a series has a time of its own
        notes += [*absent_classes(meaning), *shared_rows(tables, meaning.targets)]
    return Splits(tables, plain, meaning, opened.plan, tuple(notes)).of_fold(fold_of(job))


def _heads(job: TrainingJob, features: Shape, entry: Columns | None = None) -> Heads | None:
    """The outputs of the network; None if the network does not fit the data, which `check_splits` reports."""
    try:
        network = Network(job.model.layers, features, entry=entry, outputs=names_of(job.loss))
    except ValueError:
        return None
    shapes = network.output_shapes
    if job.data.truncated_bptt_steps is not None:  # each step has a target
        shapes = [shape[1:] for shape in shapes]
    return heads_of(job.loss, shapes)


def skipped_note(split: str, kept: int, reasons: Mapping[str, int]) -> str:
    """A note on the rows that were left out of a split. kept: the number of the others."""
    counts = ", ".join(f"{count:,}: {reason}" for reason, count in reasons.items())
    count = sum(reasons.values())
    return f"bad_rows: skip left out {count:,} of {counted(kept + count, f'{split} row'.strip())} ({counts})"
