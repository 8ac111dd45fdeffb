"""One training for an estimator: from checked arrays to a result and a model in memory."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from distbp.core.arrays import Array
from distbp.data.preprocessing import Preprocessing
from distbp.job import TrainingJob
from distbp.job.training_job import takes_whole_batches
from distbp.model.predictor import Model
from distbp.optim import OPTIMIZERS
from distbp.run.result import Result
from distbp.run.train import train


@dataclass(frozen=True)
class Rows:
    """Inputs, targets and weights of some rows; no weights: all alike."""

    x: Array
    y: Array
    weights: Array | None

    def data(self) -> tuple[Array, ...]:
        return (self.x, self.y) if self.weights is None else (self.x, self.y, self.weights)

    def moments(self, values: Array) -> tuple[Array, Array]:
        """Mean and deviation of each column, float64, by weight; a deviation of 0 is 1."""
        wide = values.astype(np.float64)
        mean = np.average(wide, axis=0, weights=self.weights)
        deviation = np.sqrt(np.average(np.square(wide - mean), axis=0, weights=self.weights))
        # What rounding leaves of a constant is no deviation.
        constant = deviation <= 10 * np.finfo(np.float64).eps * np.abs(mean)
        return mean, np.where(constant, 1.0, deviation)


def job_of(
    settings: Mapping[str, Any], outputs: int, loss: str, rows: int, dtype: str, seed: int
) -> TrainingJob:
    """The job that an estimator's settings mean. Raises JobError."""
    hidden = settings["hidden"]
    units: Any = hidden if isinstance(hidden, Sequence | np.ndarray) else (hidden,)
    layers = [{"type": "dense", "units": n, "activation": settings["activation"]} for n in map(_plain, units)]
    optimizer, batch = settings["optimizer"], settings["batch_size"]
    # Of a name that is not known the job says so.
    kind = OPTIMIZERS.get(optimizer) if isinstance(optimizer, str) else None
    update: Any = optimizer
    if kind is not None and any(field.name == "learning_rate" for field in fields(kind)):
        update = {"type": optimizer, "learning_rate": _plain(settings["learning_rate"])}
    size = {} if isinstance(batch, str) and batch == "auto" else {"batch_size": _plain(batch)}
    if not size and not takes_whole_batches(optimizer):
        size = {"batch_size": min(200, rows)}
    stopping = {"patience": _plain(settings["patience"])} if settings["early_stopping"] else None
    return TrainingJob.from_mapping(
        {
            "name": "estimator",
            "data": {},
            "model": {"layers": [*layers, {"type": "dense", "units": outputs}]},
            "loss": loss,
            "optimizer": update,
            **size,
            "epochs": _plain(settings["epochs"]),
            "early_stopping": stopping,
            "seed": seed,
            "workers": _plain(settings["workers"]),
            "dtype": dtype,
            "checkpoint": {"every_seconds": None},
        },
        "the estimator's settings",
    )


def fitted(
    job: TrainingJob, training: Rows, validation: Rows | None, *, standardize: bool, values: bool
) -> tuple[Result, Model]:
    """Trains, and keeps nothing on disk. standardize: inputs get mean 0 and deviation 1 by the weights of
    the training rows; so do targets that are `values`. The model takes and gives the units of the caller."""
    inputs = training.moments(training.x) if standardize else None
    targets = training.moments(training.y) if standardize and values else None
    data = {"train": _scaled(training, inputs, targets).data()}
    if validation is not None:
        data["validation"] = _scaled(validation, inputs, targets).data()
    with tempfile.TemporaryDirectory(prefix="distbp-fit-") as folder:
        result = train(job, data=data, output=Path(folder) / "run")
        model, rows = result.model(), result.history.rows
    if inputs is not None:
        model = replace(model, preprocessing=Preprocessing(mean=inputs[0], std=inputs[1]))
    if targets is not None:
        model = _unscaled(model, *targets)
    same: Any = partial(_itself, model)
    return replace(result, fetch=same, measured=partial(_itself, rows)), model


def _scaled(rows: Rows, inputs: Any, targets: Any) -> Rows:
    x = rows.x if inputs is None else ((rows.x - inputs[0]) / inputs[1]).astype(rows.x.dtype)
    y = rows.y if targets is None else ((rows.y - targets[0]) / targets[1]).astype(rows.y.dtype)
    return Rows(x, y, rows.weights)


def _unscaled(model: Model, mean: Array, deviation: Array) -> Model:
    """The model whose last layer gives values in the unit of the targets."""
    vector = model.vector.copy()
    last = len(model.network.layers) - 1
    for tensor in model.network.tensors:
        if tensor.layer == last:
            place = vector[tensor.start : tensor.stop].reshape(len(mean), -1)  # a row for each output
            place *= deviation[:, None]
            if tensor.name == "bias":
                place += mean[:, None]
    vector.setflags(write=False)
    return replace(model, vector=vector)


def _itself(value: Any) -> Any:
    return value


def _plain(value: Any) -> Any:
    """A NumPy number, as a search over parameters gives it, as a plain one."""
    return value.item() if isinstance(value, np.generic) else value
