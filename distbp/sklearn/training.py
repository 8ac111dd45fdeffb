"""Trains for an estimator: takes checked rows, and returns a result and a model in memory."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from distbp.core.arrays import Array
from distbp.core.storage import Disk
from distbp.data.preprocessing import Preprocessing, exponents
from distbp.job import TrainingJob
from distbp.model.predictor import Model
from distbp.run.result import Result
from distbp.run.train import train
from distbp.run.warm_start import keep_init, kept_init

Scales = tuple[Array, Array]  # for each column: the number to subtract, and the divisor


@dataclass(frozen=True)
class Rows:
    """Some rows. x: (n, features). y: (n,) or (n, outputs). weights: (n,), or None if all rows weigh 1."""

    x: Array
    y: Array
    weights: Array | None

    def data(self) -> tuple[Array, ...]:
        return (self.x, self.y) if self.weights is None else (self.x, self.y, self.weights)

    def moments(self, values: Array) -> Scales:
        """The weighted mean and standard deviation of each column, float64. A deviation of 0 is returned as
        1."""
        wide = values.astype(np.float64, order="C")  # sums depend on the order in memory
        exponent = exponents(wide)  # scaled by it, no square overflows
        wide = np.ldexp(wide, -exponent)
        mean = np.average(wide, axis=0, weights=self.weights)
        deviation = np.sqrt(np.average(np.square(wide - mean), axis=0, weights=self.weights))
        # A constant has a deviation above 0 by rounding alone.
        constant = deviation <= 10 * np.finfo(np.float64).eps * np.abs(mean)
        return np.ldexp(mean, exponent), np.where(constant, 1.0, np.ldexp(deviation, exponent))

    def quartiles(self) -> Scales:
        """The median of each input, and the distance between its quartiles, float64, without weights. If the
        distance is 0, it is half the range; if that is 0, it is 1."""
        low, median, high = np.quantile(self.x.astype(np.float64), [0.25, 0.5, 0.75], axis=0)
        spread = np.where(high > low, high - low, np.ptp(self.x.astype(np.float64), axis=0) / 2)
        return median, np.where(spread > 0, spread, 1.0)


class _Passing(Disk):
    """The disk of runs that nobody resumes, so nothing needs to survive a power cut."""

    def fsync(self, fd: int) -> None:
        pass


@dataclass(frozen=True)
class Before:
    """The state with which training continues. files: of the run's `init/`. inputs, targets: the scales of
    the rows of the first training; None: not scaled."""

    files: Mapping[str, bytes]
    inputs: Scales | None = None
    targets: Scales | None = None

    @property
    def keeps(self) -> tuple[str, ...]:
        """The job's `init_keeps` for arrays."""
        return ("optimizer",) if any("/" in name for name in self.files) else ()

    @staticmethod
    def after(run: Path, room: Path, optimizer: bool) -> Before:
        """The state after a finished run. room: an empty folder for temporary files."""
        keep_init(run / "model", room, optimizer=optimizer, disk=_Passing())
        kept = kept_init(room)
        assert kept is not None
        paths = [path for path in kept.rglob("*") if path.is_file()]
        return Before({str(path.relative_to(kept)): path.read_bytes() for path in paths})

    def write(self, folder: Path) -> None:
        for name, content in self.files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)


@dataclass(frozen=True)
class Trained:
    result: Result
    model: Model
    after: Before


def trained(job: TrainingJob, data: Any, before: Before | None, *, shown: bool) -> Trained:
    """Trains; waits. Leaves nothing on disk. shown: whether to show progress."""
    with tempfile.TemporaryDirectory(prefix="distbp-fit-") as folder:
        run, init = Path(folder) / "run", None
        if before is not None:
            init = Path(folder) / "before"
            before.write(init)
        disk = _Passing()
        result = train(job, data=data, output=run, init=init, progress=shown, draws=False, disk=disk)
        model, rows = result.model(), result.history.rows
        after = Before.after(run, Path(folder), not job.optimizer.whole_batch)
    return _kept(result, model, rows, after)


def trained_on_arrays(
    job: TrainingJob,
    training: Rows,
    validation: Rows | None,
    before: Before | None,
    *,
    standardize: bool,
    values: bool,
    robust: bool = False,
    shown: bool = False,
) -> Trained:
    """As `trained`, for arrays. standardize: scales inputs to mean 0 and deviation 1 (weighted), or by median
    and quartiles if `robust`; and targets, if they are `values`, to mean 0 and deviation 1. The scales in
    `before` are kept. The model takes inputs and returns predictions in the caller's units."""
    if before is not None:
        inputs, targets = before.inputs, before.targets
    else:
        inputs = (training.quartiles() if robust else training.moments(training.x)) if standardize else None
        targets = training.moments(training.y) if standardize and values else None
    data = {"train": _scaled(training, inputs, targets).data()}
    if validation is not None:
        data["validation"] = _scaled(validation, inputs, targets).data()
    found = trained(job, data, before, shown=shown)
    model = found.model
    if inputs is not None:
        model = replace(model, preprocessing=Preprocessing(mean=inputs[0], std=inputs[1]))
    if targets is not None:
        model = _unscaled(model, *targets)
    return _kept(
        found.result, model, found.result.history.rows, replace(found.after, inputs=inputs, targets=targets)
    )


def _kept(result: Result, model: Model, rows: Any, after: Before) -> Trained:
    same: Any = partial(_itself, model)
    return Trained(replace(result, fetch=same, measured=partial(_itself, rows)), model, after)


def _scaled(rows: Rows, inputs: Any, targets: Any) -> Rows:
    x = rows.x if inputs is None else ((rows.x - inputs[0]) / inputs[1]).astype(rows.x.dtype)
    y = rows.y if targets is None else ((rows.y - targets[0]) / targets[1]).astype(rows.y.dtype)
    return Rows(x, y, rows.weights)


def _unscaled(model: Model, mean: Array, deviation: Array) -> Model:
    """The model with a last layer that gives values in the units of the targets, not in deviations."""
    vectors = [vector.copy() for vector in model.vectors]
    last = len(model.network.layers) - 1
    for vector in vectors:
        for tensor in model.network.tensors:
            if tensor.layer == last:
                place = vector[tensor.start : tensor.stop].reshape(len(mean), -1)  # a row for each output
                place *= deviation[:, None]
                if tensor.name == "bias":
                    place += mean[:, None]
        vector.setflags(write=False)
    return replace(model, vector=vectors[0], others=tuple(vectors[1:]))


def _itself(value: Any) -> Any:
    return value
