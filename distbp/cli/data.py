"""The data that `evaluate` and `predict` read, and the tables of predictions that they write."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from distbp.cli.table_targets import compared_with, targets_of
from distbp.core.arrays import Array, Shape
from distbp.core.errors import DataError, Fault, JobError
from distbp.core.storage import commit_file, explained, user_path
from distbp.data.addresses import is_address, shown
from distbp.data.checks import Allowed
from distbp.data.columns.files import looks_like_table
from distbp.data.columns.loading import load_columns
from distbp.data.columns.reading import open_raw
from distbp.data.columns.rows import EncodedRows, encode_file, encode_good
from distbp.data.formats import Idx, Images, Npy, Npz, Source, TableFiles, load
from distbp.data.formats.images import SUFFIXES
from distbp.data.given import arranged
from distbp.data.sequences import Samples
from distbp.data.table import Table
from distbp.job.faults import details, located
from distbp.job.schema import KINDS
from distbp.job.text import read_yaml
from distbp.nn.losses.several import by_output, names_of, without_names
from distbp.run.run_directory import read_job
from distbp.run.splits import open_splits

if TYPE_CHECKING:
    from distbp.job import TrainingJob
    from distbp.model.predictor import Model


@dataclass(frozen=True)
class Given:
    """The rows for a command. `numbers`: those of the rows in their file. `skipped`: the number of rows left
    out, by reason. `notes`: remarks for the user. `names`: of the rows' files, if each row is a file."""

    inputs: Array | EncodedRows | Samples
    numbers: Array
    name: str
    targets: Any = None
    weights: Array | None = None
    skipped: Mapping[str, int] = field(default_factory=dict)
    notes: Sequence[str] = ()
    names: Array | None = None

    def __len__(self) -> int:
        return len(self.numbers)


def given_for(
    model: Model, model_dir: Path, words: Sequence[str], split: str, *, with_targets: bool
) -> Given:
    """The rows that the words name; without words, the split of the run's own job. Raises JobError,
    DataError."""
    if model.plan is not None:
        return _rows_of(model, model_dir, words, split, with_targets=with_targets)
    named = model.network.named_inputs
    with_targets = with_targets and not model.compares_with_inputs
    if words:
        source = source_of(words, with_targets=with_targets, model=model)
        table = load(source, Path(), bad_rows=None, named=named)
    else:
        table = split_of(model_dir, split, model)
    if model.compares_with_inputs:
        table = replace(table, targets=None)  # training did not use labels of the data
    return _of_table(table, np.asarray(arranged(table.inputs, table.columns, model.columns, table.name)))


def _of_table(table: Table, inputs: Array | EncodedRows | Samples) -> Given:
    if table.lengths is not None:
        assert isinstance(inputs, np.ndarray)
        inputs = Samples(inputs, table.lengths)
    numbers = np.array([table.row_number(i) for i in range(len(table))], dtype=np.int64)
    names = None if table.row_names is None else np.array(table.row_names)[numbers]
    return Given(inputs, numbers, table.name, table.targets, table.weights, table.skipped, names=names)


def _rows_of(model: Model, model_dir: Path, words: Sequence[str], split: str, *, with_targets: bool) -> Given:
    """The raw rows for a model that was trained on a table. Raises JobError, DataError."""
    plan = model.plan
    assert plan is not None
    if not words:
        job = _job_of(model_dir)
        splits = open_splits(job, model_dir)
        if split not in splits.tables:
            raise _no_split(model_dir, split)
        own = splits.tables[split]
        if splits.plan is None or splits.plan.to_json() != plan.to_json():
            raise DataError(f"{own.name}: the rows are not those that the model was trained on")
        return _of_table(own, EncodedRows(own.inputs, windows=own.windows))
    source = source_of(words, with_targets=with_targets, reading=plan.reading)
    if not isinstance(source, TableFiles):
        raise _no_data("the model takes a table: CSV, Parquet, Arrow, JSON lines")
    skip = with_targets and _leaves_out_bad_rows(model_dir)
    table = open_raw(source, Path(), skip=skip, header=plan.header)
    ahead = plan.series.horizon if plan.series is not None and with_targets else 0
    targets, weights, kept = None, None, None
    skipped: Mapping[str, int] = {}
    if skip:
        good = encode_good(plan, table, model.network.dtype, compared_with(model, table))
        rows, columns, skipped, kept = good.rows, good.columns, good.skipped, good.kept
    else:
        rows, columns = encode_file(plan, table, model.network.dtype, ahead), {}
        if with_targets:
            uses = compared_with(model, table)
            columns = load_columns(table, uses, plan.missing, skip=None).columns
    notes = rows.seen.notes
    if with_targets:
        targets = without_names({head.name: targets_of(model, head, columns) for head in model.heads})
        weights = np.asarray(columns[plan.weight].values) if plan.weight in columns else None
        if plan.weight and weights is None:
            notes.append(f"there is no column {plan.weight!r}, the weight of the job: all rows count alike")
    if plan.reading and source.reading == plan.reading and table.dialect is not None:
        notes.append(f"read as in training: {', '.join(f'{k} {v!r}' for k, v in plan.reading.items())}")
    numbers = np.arange(len(rows)) if rows.windows is None else rows.windows.last
    numbers = numbers if kept is None else kept
    if rows.windows is not None and targets is not None:
        change = plan.series is not None and plan.series.difference
        targets = targets[numbers + ahead] - targets[numbers] if change else targets[numbers + ahead]
        weights = None if weights is None else weights[numbers + ahead]
    return Given(rows, numbers, table.name, targets, weights, skipped, notes)


def _leaves_out_bad_rows(model_dir: Path) -> bool:
    """Whether the job of a run skips bad rows."""
    return (model_dir / "job.yaml").exists() and read_job(model_dir).data.bad_rows == "skip"


def source_of(
    words: Sequence[str], *, with_targets: bool, reading: Any = None, model: Model | None = None
) -> Source:
    """The source that the words name: one or two files (inputs, then targets), a folder of images or one
    image, or a source as a job writes it. `reading`: how the model's training table was read (see
    `TableFiles.reading`); None: the model takes no tables. model: takes the data; its inputs' and outputs'
    names are used to find them in an archive.

    Raises JobError if there is no such source.
    """
    first, *rest = (word if "{" in word or is_address(word) else str(user_path(word)) for word in words)
    if is_address(first):
        if rest or reading is None:
            raise _no_data(f"{shown(first)}: only a table is fetched, alone; download it, and name the file")
        return TableFiles(path=first, **reading)
    if not Path(first).exists():
        if rest:
            raise _no_data(f"there is no file {first!r}")
        return _written_out(first)
    if len(rest) > 1:
        raise _no_data(f"takes at most two files (inputs, targets), not {len(words)}")
    target = rest[0] if rest else None
    if target is not None and not Path(target).exists():
        raise _no_data(f"there is no file {target!r}")
    suffix = Path(first).suffix.lower()
    if reading is not None:
        if target is not None:
            raise _no_data("a table holds its targets; name no second file")
        return TableFiles(path=first, **reading)
    if Path(first).is_dir() or suffix in SUFFIXES:
        return _images(first, target, None if model is None else model.input_shape)
    if looks_like_table(Path(first)):
        raise _no_data(
            f"{first} is a table, alone for a model that was trained on one; give arrays as .npy or .npz"
        )
    if suffix == ".npz":
        if target is not None:
            raise _no_data("an .npz file holds inputs and targets; name no second file")
        outputs = () if model is None else names_of(model.loss)
        named = () if model is None else model.network.named_inputs
        targets = {name: name for name in outputs} or "targets"
        inputs = {one.name: one.name for one in named} or "inputs"
        lengths = {one.name: f"{one.name}_lengths" for one in named if one.ragged} or None
        return Npz(path=first, inputs=inputs, lengths=lengths, targets=targets if with_targets else None)
    if suffix == ".npy":
        return Npy(inputs=first, targets=target)
    return Idx(images=first, labels=target)


def _images(path: str, target: str | None, shape: Shape | None) -> Images:
    if target is not None:
        raise _no_data("folders are the classes of images; name no second file")
    if shape is None:
        return Images(path=path)
    if len(shape) != 3:
        text = f"the model takes rows of {shape[0]} numbers, not images; say of which size they are:"
        raise _no_data(f"{text} '{{format: images, path: {path}, resize: [28, 28]}}'")
    return Images(path=path, resize=shape[1:], color=shape[0] == 3)


def _written_out(text: str) -> Source:
    from pydantic import ValidationError

    try:
        found: Source = KINDS["formats"].validate(read_yaml(text, "DATA"))
    except ValidationError as error:
        faults = located(details(error))
        if not any(c in text for c in "{:"):  # probably a file was meant
            faults = (Fault("", f"there is no file {text!r}, and as a data format {faults[0].message}"),)
        raise JobError(faults, "DATA") from None
    return found


def open_model(path: Path) -> Model:
    """The model in a model folder or run directory. Raises ModelError."""
    from distbp.model.folder import load_model

    return load_model(path)


def split_of(run_dir: Path, split: str, model: Model) -> Table:
    """A split of the job in a run directory, with the rows that training would use. Raises JobError,
    DataError."""
    job = _job_of(run_dir)
    source = getattr(job.data, split)
    if source is None:
        raise _no_split(run_dir, split)
    allowed = Allowed(model.network.dtype, model.preprocessing, split)
    folder = run_dir / user_path(job.data.folder or "")
    named = model.network.named_inputs
    return load(source, folder, bad_rows=job.data.bad_rows, allowed=allowed, named=named)


def _job_of(run_dir: Path) -> TrainingJob:
    if not (run_dir / "job.yaml").exists():
        raise _no_data(f"{run_dir} is not a run directory (it has no job.yaml); name the data")
    return read_job(run_dir)


def _no_data(why: str) -> JobError:
    return JobError([Fault("", why)], "DATA")


def _no_split(run_dir: Path, split: str) -> JobError:
    fault = Fault(f"data.{split}", "is not in this job; choose another --split, or name the data")
    return JobError([fault], str(run_dir / "job.yaml"))


def predictions(model: Model, given: Given, *, probabilities: bool) -> dict[str, Array]:
    """The columns of a table of predictions, by name: `row` (number in the file) or `file`, `prediction` (or
    one column for each output) and, with `probabilities`, one for each class. With several outputs a column's
    name begins with the output's: `digit.prediction`. Series have a line for each step, numbered in
    `step`."""
    x = model.checked(given.inputs)
    columns: dict[str, Array] = {"row": given.numbers} if given.names is None else {"file": given.names}
    own: Any = slice(None)
    if model.network.carry is not None:
        assert x.lengths is not None
        own = np.arange(x.inputs.shape[1]) < x.lengths[:, None]
        rows, steps = np.nonzero(own)
        columns = {"row": given.numbers[rows], "step": steps}
    predicted = by_output(model.predict(x))
    likely = by_output(model.predict_proba(x)) if probabilities else {}
    for head in model.heads:
        columns |= _columns(head.metric("prediction"), predicted[head.name][own])
        if head.name in likely:
            names = model.classes_of(head) if head.loss.task == "classification" else None
            columns |= _columns(head.metric("probability"), likely[head.name][own], names)
    return columns


def _columns(name: str, values: Array, names: Sequence[Any] | None = None) -> dict[str, Array]:
    if values.ndim == 1:
        return {name: values}
    flat = values.reshape(len(values), -1)
    return {f"{name}_{names[i] if names else i}": flat[:, i] for i in range(flat.shape[1])}


def csv_text(columns: dict[str, Array]) -> str:
    """The columns as CSV. Floats have enough digits to read the same value back."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*(column.tolist() for column in columns.values()), strict=True))
    return file.getvalue()


def write_predictions(columns: dict[str, Array], path: Path) -> None:
    """Writes the columns as `.npz` or CSV, by the file's suffix, whole or not at all. Raises StorageError."""
    file = io.BytesIO()
    if path.suffix.lower() == ".npz":
        arrays: dict[str, Any] = dict(columns)
        np.savez_compressed(file, **arrays)
    else:
        file.write(csv_text(columns).encode())
    with explained(path):
        commit_file(path, file.getvalue())
