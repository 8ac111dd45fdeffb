"""Checks of `data`: tables have columns and a target, arrays have neither."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from distbp.core.errors import Fault, JobError
from distbp.data.formats import TableFiles
from distbp.job.columns import targets_in
from distbp.job.faults import unknown
from distbp.nn.losses.several import names_of, parts_of
from distbp.nn.wiring import data_facts

if TYPE_CHECKING:
    from distbp.job.training_job import TrainingJob

_OF_TABLES = ("target", "columns", "missing", "weight", "group", "time", "split", "windows")
_WRITE_TABLE = "write data.train: {format: table, path: ...}"


def has_table(job: TrainingJob) -> bool:
    return isinstance(job.data.train, TableFiles)


def splits_off(job: TrainingJob, split: str) -> bool:
    """Whether a share of the training rows becomes this split."""
    return job.data.split is not None and getattr(job.data.split, split) > 0


def tables_are_whole(job: TrainingJob) -> Iterator[Fault]:
    if job.data.train is not None:  # data given from Python is checked by `given_data_fits`
        yield from _data_fits(job, has_table(job), frozenset())


def given_data_fits(job: TrainingJob, frames: bool, given: Collection[str]) -> None:
    """Raises JobError if the job does not fit data given from Python, which was not known when the job was
    made. frames: whether the data is a table with named columns. given: the splits that are given."""
    if faults := [*_data_fits(job, frames, frozenset(given))]:
        raise JobError(faults)


def _data_fits(job: TrainingJob, table: bool, given: frozenset[str]) -> Iterator[Fault]:
    """table: whether the training rows have named columns. given: splits that come from Python."""
    data = job.data
    if not table:
        for name in _OF_TABLES:
            if getattr(data, name) is not None:
                how = "give a frame: train(job, data=frame)" if given else _WRITE_TABLE
                yield Fault(f"data.{name}", f"is for tables; {how}")
        for split in ("validation", "test"):
            if isinstance(getattr(data, split), TableFiles):
                yield Fault(
                    f"data.{split}", "is a table, but data.train is none; give all sets in one format"
                )
        for index, layer in enumerate(job.model.layers):
            if layer.table_columns:
                yield Fault(f"model.layers.{index}.columns", "is for tables; write start and stop")
        if data.targets is not None and data_facts(job.model.layers).ids_below is not None:
            yield Fault("data.targets", "is for inputs that are numbers, and these are ids; leave it out")
        return
    if data.targets is not None:
        yield Fault("data.targets", "is for arrays; a table names the column to predict in data.target")
    if data.target is None:
        yield Fault("data.target", "is required for a table (the column to predict)")
    yield from _a_target_for_each_output(job)
    for index, layer in enumerate(job.model.layers):
        if layer.enters:
            text = "is for arrays; of a table name columns in a layer of the type slice"
            yield Fault(f"model.layers.{index}", text)
    if data.standardize:
        yield Fault(
            "data.standardize", "is for arrays; the columns of a table have a scale each (data.columns)"
        )
    if data.scale != 1:
        yield Fault("data.scale", "is for arrays; the columns of a table have a scale each (data.columns)")
    for split in ("validation", "test"):
        source = getattr(data, split)
        if split not in given and source is not None and not isinstance(source, TableFiles):
            yield Fault(f"data.{split}", f"is of the format {source.type}, but data.train is a table")
        if split in given and splits_off(job, split):
            yield Fault(f"data.split.{split}", f"must be 0, as a {split} frame is given")
        elif source is not None and splits_off(job, split):
            yield Fault(f"data.split.{split}", f"must be 0, as data.{split} names the rows")
    by = data.split.by if data.split is not None else "auto"
    for way in ("group", "time"):
        if by == way and getattr(data, way) is None:
            yield Fault(f"data.{way}", f"is required by data.split.by: {way} (the column)")
    if data.windows is not None:
        yield from _windows_fit(job)
    yield from _one_role_each(job)


def _a_target_for_each_output(job: TrainingJob) -> Iterator[Fault]:
    targets, outputs = targets_in(job.data.target), names_of(job.loss)
    if not targets:
        return
    if outputs and "" in targets:
        text = f"names one column, but there are the outputs {', '.join(outputs)}; write a mapping from each"
        yield Fault("data.target", f"{text} to its column")
    elif not outputs and "" not in targets:
        text = "has no column, so it is a mapping from outputs, but loss is one; name the column"
        yield Fault("data.target", f"{text}, or write a mapping in loss, too")
    elif outputs:
        for name in targets:
            if name not in outputs:
                yield Fault(f"data.target.{name}", f"is of no output: {unknown(name, outputs)}")
        for name in outputs:
            if name not in targets:
                yield Fault(f"data.target.{name}", "is required (the column of this output)")


def values_are_scaled(job: TrainingJob) -> Iterator[Fault]:
    """Checks `scale` and `clip` of targets: classes have neither, and scaled values can be below 0."""
    losses = {part.name: part.loss for part in parts_of(job.loss)}
    for name, target in targets_in(job.data.target).items():
        if name not in losses:
            continue
        loss, scaled = losses[name], target.scale == "standard"
        path = f"data.target.{name}" if name else "data.target"
        if loss.task != "regression":
            for option, asked in (("scale", scaled), ("clip", target.clip)):
                if asked:
                    yield Fault(
                        f"{path}.{option}", f"is for values, and {loss.type} takes classes; leave it out"
                    )
        elif scaled and loss.allowed[0] == 0:
            text = f"gives values below 0, and {loss.type} takes none; leave it out"
            yield Fault(f"{path}.scale", text)


def _windows_fit(job: TrainingJob) -> Iterator[Fault]:
    data = job.data
    by = "auto" if data.split is None else data.split.by
    if data.time is None:
        yield Fault("data.time", "is required by data.windows (the column that puts the rows in order)")
    if by in ("random", "stratified"):
        yield Fault("data.split.by", f"must be time or group with data.windows, not {by}: windows overlap")
    scaled = all(target.scale == "standard" for target in targets_in(data.target).values())
    if data.windows is not None and data.windows.difference and not scaled:
        yield Fault("data.windows.difference", "needs data.target: {column: ..., scale: standard}")
    if data.bad_rows == "skip":
        yield Fault("data.bad_rows", "must be refuse with data.windows: a row left out would tear a series")


def _one_role_each(job: TrainingJob) -> Iterator[Fault]:
    data = job.data
    targets = {target.column for target in targets_in(data.target).values()}
    roles = dict.fromkeys(targets, "target")
    for role in ("weight", "group", "time"):
        name = getattr(data, role)
        if name is not None and name in roles:
            yield Fault(f"data.{role}", f"names the column {name!r}, which is data.{roles[name]} already")
        elif name is not None:
            roles[name] = role
    for name in data.columns or {}:
        if name in targets:
            yield Fault(f"data.columns.{name}", "is the target, which cannot be an input too; leave it out")
