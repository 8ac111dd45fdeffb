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
from distbp.core.errors import ArgumentError
from distbp.data.columns.rows import as_arrow
from distbp.data.frames import frame_kind
from distbp.data.preprocessing import Preprocessing, exponents
from distbp.job import TrainingJob, realmlp, recipes
from distbp.job.training_job import takes_whole_batches
from distbp.model.predictor import Model
from distbp.optim import OPTIMIZERS
from distbp.run.result import Result
from distbp.run.train import train

FEW_ROWS = 1000


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
        wide = values.astype(np.float64, order="C")  # sums depend on the order in memory
        exponent = exponents(wide)  # with which no square leaves float64
        wide = np.ldexp(wide, -exponent)
        mean = np.average(wide, axis=0, weights=self.weights)
        deviation = np.sqrt(np.average(np.square(wide - mean), axis=0, weights=self.weights))
        # What rounding leaves of a constant is no deviation.
        constant = deviation <= 10 * np.finfo(np.float64).eps * np.abs(mean)
        return np.ldexp(mean, exponent), np.where(constant, 1.0, np.ldexp(deviation, exponent))

    def quartiles(self) -> tuple[Array, Array]:
        """The median of each input, and what lies between its quartiles, half its range where these are one,
        1 where that is 0; float64, of all rows alike."""
        low, median, high = np.quantile(self.x.astype(np.float64), [0.25, 0.5, 0.75], axis=0)
        spread = np.where(high > low, high - low, np.ptp(self.x.astype(np.float64), axis=0) / 2)
        return median, np.where(spread > 0, spread, 1.0)


def whole(x: Any) -> Any:
    """Inputs as scikit-learn takes them: batches and streams of Arrow as a table, which has names. Raises
    ArgumentError for a frame without rows."""
    kind = frame_kind(x)
    if kind == "lazy":
        raise ArgumentError(f"a {type(x).__name__} has no rows yet; give what its .collect() returns")
    return as_arrow(x) if kind in ("arrow", "stream") else x


def job_of(
    settings: Mapping[str, Any], outputs: int, loss: str, rows: int, dtype: str, seed: int
) -> TrainingJob:
    """The job that an estimator's settings mean. Raises JobError."""
    usual = usual_settings(settings)
    hidden = _said(settings["hidden"], usual["hidden"])
    units = [*map(_plain, hidden if isinstance(hidden, Sequence | np.ndarray) else (hidden,))]
    activation = _said(settings["activation"], "relu")
    epochs = _plain(_said(settings["epochs"], usual["epochs"]))
    layers = [{"type": "dense", "units": n, "activation": activation} for n in units]
    layers.append({"type": "dense", "units": outputs})
    rate, update = _plain(_said(settings["learning_rate"], 1e-3)), settings["optimizer"]
    classes, more = loss != "mse", {}
    stopping = {"patience": _plain(_said(settings["patience"], usual["patience"]))}
    if settings["recipe"] == "realmlp":
        own = _said(settings["activation"], None)
        layers = [*realmlp.entered(), *realmlp.layers(outputs, units, classes, own)]
        if isinstance(update, str) and update == "auto":
            update = realmlp.optimizer(classes)
            update["learning_rate"] = _plain(_said(settings["learning_rate"], update["learning_rate"]))
        more = {"drop_last": True, "parameter_groups": realmlp.GROUPS, "loss": realmlp.smoothed(loss)}
        stopping = {**realmlp.stopping(epochs, classes), **stopping}
    elif settings["recipe"] is not None:
        layers = recipes.layers(outputs, units, activation)
        if isinstance(update, str) and update == "auto" and type(epochs) is int:
            update = {**recipes.optimizer(epochs), "learning_rate": rate}
    if isinstance(update, str):
        update = {"type": _said(update, "adam")}
        kind = OPTIMIZERS.get(update["type"])  # of a name that is not known the job says so
        if kind is not None and any(field.name == "learning_rate" for field in fields(kind)):
            update["learning_rate"] = rate
    batch = {"batch_size": _plain(_said(settings["batch_size"], usual["batch_size"](rows)))}
    if takes_whole_batches(update) and isinstance(settings["batch_size"], str):
        batch = {}  # all rows
    return TrainingJob.from_mapping(
        {
            "name": "estimator",
            "data": {},
            "model": {"layers": layers},
            "loss": loss,
            "optimizer": update,
            **batch,
            "epochs": epochs,
            "early_stopping": stopping if stops_early(settings) else None,
            "seed": seed,
            "members": _plain(settings["members"]),
            "workers": _plain(settings["workers"]),
            "dtype": dtype,
            "checkpoint": {"every_seconds": None},
            **more,
        },
        "the estimator's settings",
    )


def usual_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What "auto" means, by the recipe. Raises ArgumentError for one that is not known."""
    if settings["recipe"] is None:
        batch_size: Any = partial(min, 200)
        return {
            "hidden": (100,), "epochs": 200, "patience": 10, "early_stopping": False, "batch_size": batch_size
        }  # fmt: skip
    if settings["recipe"] not in recipes.RECIPES:
        known = ", ".join(map(repr, recipes.RECIPES))
        raise ArgumentError(f"recipe is {settings['recipe']!r}, not None or one of {known}")
    if settings["recipe"] == "realmlp":
        epochs = _said(settings["epochs"], realmlp.EPOCHS)
        return {
            "hidden": realmlp.HIDDEN, "epochs": realmlp.EPOCHS, "patience": epochs, "early_stopping": True,
            "batch_size": lambda rows: realmlp.BATCH_SIZE,
        }  # fmt: skip
    return {
        "hidden": recipes.HIDDEN,
        "epochs": recipes.EPOCHS,
        "patience": recipes.PATIENCE,
        "early_stopping": True,
        "batch_size": recipes.batch_size,
    }


def stops_early(settings: Mapping[str, Any]) -> bool:
    """Raises ArgumentError for what is neither yes nor no."""
    found = _said(settings["early_stopping"], usual_settings(settings)["early_stopping"])
    if isinstance(found, str):
        raise ArgumentError(f"early_stopping is {found!r}; give True, False or 'auto'")
    return bool(found)


def held_back(settings: Mapping[str, Any], rows: int) -> Any:
    """The share of the rows that early stopping measures on. Of few rows a tenth says too little to choose an
    epoch by."""
    few = settings["recipe"] is not None and rows < FEW_ROWS
    return _said(settings["validation_fraction"], 0.2 if few else 0.1)


def _said(value: Any, usual: Any) -> Any:
    """A setting, or what is usual where it is "auto"."""
    return usual if isinstance(value, str) and value == "auto" else value


def fitted(
    job: TrainingJob,
    training: Rows,
    validation: Rows | None,
    *,
    standardize: bool,
    values: bool,
    robust: bool = False,
) -> tuple[Result, Model]:
    """Trains, and keeps nothing on disk. standardize: inputs get mean 0 and deviation 1 by the weights of
    the training rows, or where `robust`, are scaled by median and quartiles; targets that are `values` get
    mean 0 and deviation 1, too. The model takes and gives the units of the caller."""
    inputs = (training.quartiles() if robust else training.moments(training.x)) if standardize else None
    targets = training.moments(training.y) if standardize and values else None
    data = {"train": _scaled(training, inputs, targets).data()}
    if validation is not None:
        data["validation"] = _scaled(validation, inputs, targets).data()
    with tempfile.TemporaryDirectory(prefix="distbp-fit-") as folder:
        result = train(job, data=data, output=Path(folder) / "run", draws=False)
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


def _plain(value: Any) -> Any:
    """A NumPy number, as a search over parameters gives it, as a plain one."""
    return value.item() if isinstance(value, np.generic) else value
