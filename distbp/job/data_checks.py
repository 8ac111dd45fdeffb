"""Checks that a job fits its data: shapes, the number of classes, labels or values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from distbp.core.arrays import Shape
from distbp.core.errors import Fault, JobError
from distbp.core.words import counted
from distbp.data.targets import label_text, shown
from distbp.job.checks import (
    lengths_dropped,
    neediest,
    tensors_fit,
)
from distbp.job.faults import unknown
from distbp.job.layer_shapes import output_shapes, shapes
from distbp.job.loss_checks import head_faults, lengths_left
from distbp.job.members import names_folds, networks
from distbp.job.training_job import TrainingJob
from distbp.nn.head_metrics import metrics_of
from distbp.nn.layers.columns import Columns
from distbp.nn.losses.base import Targets
from distbp.nn.losses.several import MOST_CLASSES, Heads, by_output, heads_of
from distbp.nn.wiring import of_columns
from distbp.optim.schedules import WarmUp


def check_against_data(
    job: TrainingJob,
    input_shape: Shape,
    targets: Targets | Mapping[str, Targets],
    rows: Mapping[str, int] | None = None,
    lengths: bool = False,
    entry: Columns | None = None,
) -> list[Fault]:
    """The faults between a job and its data; none if the job can be trained.

    `input_shape`: of one row of the training set, as the layers take it, () for a single number. `targets`:
    the training targets as the loss takes them; of several outputs by name. `rows`: of each split by name, if
    known. `lengths`: whether rows have lengths. `entry`: the layer by which the rows of a table enter.
    """
    layers, strange = of_columns(job.model.layers, entry, unknown)
    faults = [Fault(f"model.layers.{at}", message) for at, message in strange]
    if faults:  # no shape below is known
        return faults
    faults = [
        Fault(f"model.layers.{index}", problem)
        for index, _, problem in shapes(layers, input_shape)
        if problem
    ]
    faults += tensors_fit(layers, input_shape)
    if lengths:
        faults += lengths_dropped(layers, True, input_shape)
    if job.data.truncated_bptt_steps is None:  # in windows of series, steps past the end weigh 0
        faults += lengths_left(layers, job.loss, lengths)
    if faults:
        return faults
    # The input shape is known, and every layer took it.
    known = [shape for shape in output_shapes(layers, job.loss, input_shape) if shape is not None]
    if job.data.truncated_bptt_steps is not None:  # each step has a target
        known = [shape[1:] for shape in known]
    facts = by_output(targets)
    faults += _loss_and_metrics(job, heads_of(job.loss, known), facts)
    faults += _class_weights(job, facts.get("", Targets()))
    faults += _splits(job, rows or {})
    return faults


def notes_about(
    job: TrainingJob, rows: Mapping[str, int], shards: int, workers: int | str | None = None
) -> list[str]:
    """Notes on settings that are allowed but may surprise. `shards`: resolved. `workers`: in place of the
    job's."""
    wanted = job.workers if workers is None else workers
    notes, several = [], networks(job)  # each network has its own shards
    if isinstance(wanted, int) and wanted > (most := several * shards):
        hosts = "1 worker has" if most == 1 else f"{most} workers have"
        each = f" for each of {several} networks" if several > 1 else ""
        notes.append(
            f"{wanted} workers were asked for, but only {hosts} work: the job has"
            f" {counted(shards, 'shard')}{each}"
        )
    if job.audit and several > 1:
        notes.append("audit compares two workers of one network; it does nothing with several networks")
    elif job.audit and wanted in (0, 1):
        notes.append("audit compares two workers with each other; it does nothing with fewer")
    notes += _warm_up_that_never_ends(job)
    return notes + _notes_about_batches(job, rows.get("train", 0), shards)


def _warm_up_that_never_ends(job: TrainingJob) -> Iterator[str]:
    schedule: Any = job.optimizer.schedule
    if not isinstance(schedule, WarmUp):
        return
    for wanted, length, unit in (
        (schedule.warmup_steps, job.max_steps, "steps"),
        (schedule.warmup_epochs, job.epochs, "epochs"),
    ):
        if wanted is not None and length is not None and wanted > length:
            yield (
                f"the warm-up of {wanted:g} {unit} does not end: training ends after {length}, below the"
                " base rate"
            )


def _notes_about_batches(job: TrainingJob, train: int, shards: int) -> list[str]:
    if not train or job.batch_size == "full":
        return []
    notes = []
    if train < job.batch_size:
        rows = counted(train, "row")
        notes.append(
            f"batch_size is {job.batch_size}, but the training set has {rows}: every epoch is one step"
            f" of {rows}"
        )
        return notes + _notes_about_states(job, train)
    rest = train % job.batch_size
    if rest and job.drop_last:
        notes.append(f"drop_last leaves out {rest:,} of {train:,} rows in every epoch (others each time)")
    elif rest:
        notes.append(f"the last batch of every epoch has {counted(rest, 'row')} instead of {job.batch_size}")
        layer = neediest(job.model.layers)
        if rest < layer.rows_needed * shards and layer.rows_needed > 1:
            notes.append(
                f"some slices of that last batch have one row, which {layer.type} turns into its shift"
                " alone; drop_last: true leaves that batch out"
            )
    return notes + _notes_about_states(job, train)


def _notes_about_states(job: TrainingJob, train: int) -> list[str]:
    if job.data.truncated_bptt_steps is None or job.batch_size == "full" or train > job.batch_size:
        return []
    return [
        f"no state is carried: all {counted(train, 'window')} of the training set are in one batch; lower"
        " batch_size"
    ]


def _loss_and_metrics(job: TrainingJob, heads: Heads, targets: dict[str, Targets]) -> Iterator[Fault]:
    yield from head_faults(job, heads, targets, at_layers=True)
    for head in heads:
        if heads.several and head.is_label and head.outputs[1] > MOST_CLASSES:
            yield Fault(f"loss.{head.name}", f"chooses between at most {MOST_CLASSES:,} classes")
    try:
        metrics_of(heads, job.metrics)
    except JobError as error:
        yield from error.faults


def _class_weights(job: TrainingJob, targets: Targets) -> Iterator[Fault]:
    if isinstance(job.class_weight, Mapping) and targets.classes is not None:
        names = targets.names or tuple(range(targets.classes))
        written: dict[int, int | str] = {}
        for label in job.class_weight:
            path, number = f"class_weight.{label}", class_number(label, names)
            if number is None:
                yield Fault(path, f"is not a class of the training set, which has {shown(names)}")
            elif number in written:
                yield Fault(path, f"is the class that {written[number]!r} names too; write it once")
            else:
                written[number] = label


def class_number(label: int | str, names: Sequence[Any]) -> int | None:
    """The number of the class that a key of `class_weight` names; None if there is no such class."""
    text = str(label)
    if names and isinstance(names[0], bool):
        text = {"0": "false", "1": "true"}.get(text, text.lower())
    texts = [label_text(name) for name in names]
    return texts.index(text) if text in texts else None


def _splits(job: TrainingJob, rows: Mapping[str, int]) -> Iterator[Fault]:
    if not rows or "validation" in rows:
        return
    if job.early_stopping is not None and job.early_stopping.metric.startswith("validation_"):
        yield Fault(
            "early_stopping.metric",
            f"watches {job.early_stopping.metric!r}, but there is no validation set; give one, or"
            " watch 'train_loss'",
        )
    elif names_folds(job):
        text = "cuts the validation set and the training set into folds, but there is no validation set"
        yield Fault("early_stopping.fold", f"{text}; give one, or leave fold out")
