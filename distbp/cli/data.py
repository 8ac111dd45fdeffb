"""What `evaluate` and `predict` read and write: data named on the command line, tables of predictions."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from distbp.core.arrays import Array
from distbp.core.errors import Fault, JobError
from distbp.core.storage import commit_file, explained, user_path
from distbp.data.checks import Allowed
from distbp.data.formats import Idx, Npy, Npz, Source, arranged, load
from distbp.data.table import Table
from distbp.job.faults import details, located
from distbp.job.schema import KINDS
from distbp.job.text import read_yaml
from distbp.run.run_directory import read_job

if TYPE_CHECKING:
    from distbp.model.predictor import Model


def source_of(words: Sequence[str], *, with_targets: bool) -> Source:
    """What the words name: one or two files (inputs, then targets), or a source as a job writes it.

    Raises JobError where it is neither.
    """
    first, *rest = (word if "{" in word else str(user_path(word)) for word in words)
    if not Path(first).exists():
        if rest:
            raise JobError([Fault("", f"there is no file {first!r}")], "DATA")
        return _written_out(first)
    if len(rest) > 1:
        raise JobError([Fault("", f"takes at most two files (inputs, targets), not {len(words)}")], "DATA")
    target = rest[0] if rest else None
    if target is not None and not Path(target).exists():
        raise JobError([Fault("", f"there is no file {target!r}")], "DATA")
    suffix = Path(first).suffix.lower()
    if suffix == ".npz":
        if target is not None:
            raise JobError([Fault("", "an .npz file holds inputs and targets; name no second file")], "DATA")
        return Npz(path=first, targets="targets" if with_targets else None)
    if suffix == ".npy":
        return Npy(inputs=first, targets=target)
    return Idx(images=first, labels=target)


def _written_out(text: str) -> Source:
    from pydantic import ValidationError

    try:
        found: Source = KINDS["formats"].validate(read_yaml(text, "DATA"))
    except ValidationError as error:
        faults = located(details(error))
        if not any(c in text for c in "{:"):  # more likely meant to be a file
            faults = (Fault("", f"there is no file {text!r}, and as a data format {faults[0].message}"),)
        raise JobError(faults, "DATA") from None
    return found


def open_model(path: Path) -> Model:
    """The model in a folder, or in the run directory that has one. Raises ModelError."""
    from distbp.model.folder import load_model
    from distbp.run.warm_start import model_folder

    return load_model(model_folder(path))


def split_of(run_dir: Path, split: str, model: Model) -> Table:
    """A split of the data of the job in a run directory, with the rows that training would take. Raises
    JobError, DataError."""
    file = run_dir / "job.yaml"
    if not file.exists():
        raise JobError(
            [Fault("", f"{run_dir} is not a run directory (it has no job.yaml); name the data")], "DATA"
        )
    job = read_job(run_dir)
    source = getattr(job.data, split)
    if source is None:
        raise JobError(
            [Fault(f"data.{split}", "is not in this job; choose another --split, or name the data")],
            str(file),
        )
    allowed = Allowed(model.network.dtype, model.preprocessing, split)
    folder = run_dir / user_path(job.data.folder or "")
    return load(source, folder, bad_rows=job.data.bad_rows, allowed=allowed)


def inputs_for(model: Model, table: Table) -> Array:
    """The inputs of a table, with named columns in the order of the model's. Raises DataError."""
    return np.asarray(arranged(table.inputs, table.columns, model.columns, table.name))


def predictions(model: Model, table: Table, *, probabilities: bool) -> dict[str, Array]:
    """Columns by name: `row` (number in the file), `prediction` (or one column for each output), and, where
    wanted, the probability of each class."""
    columns: dict[str, Array] = {
        "row": np.array([table.row_number(i) for i in range(len(table))], dtype=np.int64)
    }
    inputs = inputs_for(model, table)
    columns |= _columns("prediction", model.predict(inputs))
    if probabilities:
        names = model.classes if model.task == "classification" else None
        columns |= _columns("probability", model.predict_proba(inputs), names)
    return columns


def _columns(name: str, values: Array, names: Sequence[Any] | None = None) -> dict[str, Array]:
    if values.ndim == 1:
        return {name: values}
    flat = values.reshape(len(values), -1)
    return {f"{name}_{names[i] if names else i}": flat[:, i] for i in range(flat.shape[1])}


def csv_text(columns: dict[str, Array]) -> str:
    """Numbers with as many digits as it takes to read the same float back."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*(column.tolist() for column in columns.values()), strict=True))
    return file.getvalue()


def write_predictions(columns: dict[str, Array], path: Path) -> None:
    """`.npz` or `.csv`, by the name, whole or not at all. Raises StorageError."""
    file = io.BytesIO()
    if path.suffix.lower() == ".npz":
        arrays: dict[str, Any] = dict(columns)
        np.savez_compressed(file, **arrays)
    else:
        file.write(csv_text(columns).encode())
    with explained(path):
        commit_file(path, file.getvalue())
