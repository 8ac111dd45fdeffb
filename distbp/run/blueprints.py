"""Makes the blueprint of a run from a job and its opened data, and checks that these fit together."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from distbp.core import settings
from distbp.core.errors import DataError, Fault, JobError, SettingsError
from distbp.data.cutting import real_steps
from distbp.data.several_targets import facts_of
from distbp.data.targets import Meaning
from distbp.engine import numerics
from distbp.engine.blueprint import Blueprint
from distbp.engine.evaluation import loss_weights
from distbp.engine.memory_need import check_memory, needed
from distbp.job import TrainingJob
from distbp.job.data_checks import check_against_data
from distbp.job.graph import drawing_of
from distbp.job.realmlp import GROUPS
from distbp.nn.losses.several import names_of, parts_of
from distbp.nn.metrics import Frame, frame_of
from distbp.nn.network import Network
from distbp.nn.wiring import columns_left, of_columns
from distbp.run.class_weights import class_weights
from distbp.run.splits import Splits


def make_blueprint(job: TrainingJob, splits: Splits) -> Blueprint:
    """The blueprint of a job on its data. Raises JobError, with every fault, if they do not fit together or
    the job needs more memory than there is (NoMemoryError: than is free now), and SettingsError if the kernel
    set in DISTBP_KERNELS is not installed."""
    table = splits.tables["train"]
    class_weights, notes = check_splits(job, splits)
    wanted = str(settings.get("DISTBP_KERNELS"))
    try:
        name = numerics.kernel_set(wanted)
    except ImportError as error:
        raise SettingsError(f"DISTBP_KERNELS={wanted} cannot be used: {error}") from None
    need = needed(
        job,
        table.features,
        splits.rows,
        entry=splits.entry,
        data=splits.copied_bytes(job),
        threads=settings.processors(),
    )
    check_memory(need)
    blueprint = Blueprint(
        job,
        1,
        table.features,
        splits.rows,
        name,
        class_weights,
        notes,
        entry=splits.entry,
        lengths=table.lengths is not None,
        series=table.begins is not None,
    )
    values = any(part.loss.task == "regression" for part in parts_of(job.loss))
    frames = _frames(splits) if values else {}
    shards = job.resolved_shards(blueprint.network(), splits.rows["train"])
    return replace(blueprint, shards=shards, frames=frames)


def of_fold(blueprint: Blueprint, job: TrainingJob, splits: Splits) -> Blueprint:
    """The blueprint of a network that trains and measures on other rows. job: its own. Raises DataError if
    all its rows weigh 0."""
    class_weights, _ = check_splits(job, splits)
    frames = _frames(splits) if blueprint.frames else {}
    return replace(blueprint, job=job, class_weights=class_weights, frames=frames)


def check_splits(job: TrainingJob, splits: Splits) -> tuple[tuple[float, ...] | None, tuple[str, ...]]:
    """Checks that the job fits its data. Returns the class weights (None: none) and notes. Raises JobError
    with every fault, DataError if all rows of a split weigh 0 in the loss."""
    table = splits.tables["train"]
    lengths = table.lengths is not None
    entered = table.features if splits.entry is None else splits.entry.output_shape(table.features)
    facts = dict(facts_of(splits.meaning))
    faults = check_against_data(job, entered, facts, splits.rows, lengths, splits.entry)
    if faults:
        layers, _ = of_columns(job.model.layers, splits.entry)
        raise JobError(faults, drawing=drawing_of(layers, entered, faults, job.loss))
    network = Network(
        job.model.layers, table.features, np.dtype(job.dtype),
        entry=splits.entry, lengths=lengths, outputs=names_of(job.loss),
    )  # fmt: skip
    weights, notes = class_weights(job, _steps_that_count(splits), network.output_shape[-1])
    if left := columns_left(network.layers, network.wiring, splits.entry):
        notes = (*notes, f"no layer takes the columns {', '.join(map(repr, left))}; they have no influence")
    if job.parameter_groups:
        notes = (*notes, *group_notes(job.parameter_groups, [tensor.path for tensor in network.tensors]))
    for split, targets in splits.meaning.targets.items():
        of_rows = loss_weights(weights, targets, splits.tables[split].weights, job.dtype)
        if of_rows is not None and not of_rows.any():
            raise DataError(
                f"{splits.tables[split].name}: all rows of the {split} set weigh 0 in {job.dtype}, so nothing"
                " can be learned or measured; give some row, and its class, a weight"
            )
    return weights, (*splits.notes, *notes)


def group_notes(groups: Mapping[str, Any], paths: Sequence[str]) -> list[str]:
    """Notes on patterns of `parameter_groups` that match no tensor. Patterns of a recipe get none: they are
    for tables with any columns. Raises JobError for names, not patterns, that are not those of tensors."""
    left = [name for name in groups if not any(fnmatchcase(path, name) or path == name for path in paths)]
    faults = []
    for name in left:
        if not any(sign in name for sign in "*?["):
            near = difflib.get_close_matches(name, paths, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"tensors: {', '.join(paths[:20])}"
            faults.append(Fault(f"parameter_groups.{name}", f"is not a tensor of the network; {hint}"))
    if faults:
        raise JobError(faults)
    return [f"parameter_groups: no tensor has a name like {name}" for name in left if name not in GROUPS]


def _frames(splits: Splits) -> dict[str, Frame]:
    """The frames of the targets of all evaluated splits, by split."""
    frames, outputs = {}, splits.meaning.facts.columns
    for name, targets in splits.meaning.targets.items():
        if name == "train" or targets.ndim != 2:
            continue
        table, weights = splits.tables[name], splits.tables[name].weights
        if table.begins is not None:  # windows of series: one row for each step
            targets = targets.reshape(-1, outputs or 1)
            weights = None if weights is None else weights.reshape(-1)
        frames[name] = frame_of(targets, weights)
    return frames


def _steps_that_count(splits: Splits) -> Meaning:
    """For windows of series, the meaning with the training targets of all steps that are not padding; else
    the meaning as it is."""
    table, meaning = splits.tables["train"], splits.meaning
    if table.begins is None or "train" not in meaning.targets or meaning.targets["train"].dtype.kind == "f":
        return meaning
    return replace(meaning, targets={"train": meaning.targets["train"][real_steps(table)]})
