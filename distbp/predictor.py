"""A trained model in memory: outputs, predictions, probabilities, evaluation. `distbp.model` loads one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from distbp.data.checks import check_rows, with_labels, with_values
from distbp.data.ids import as_ids
from distbp.data.preprocessing import Preprocessing
from distbp.data.table import Table
from distbp.errors import DataError, ModelError
from distbp.metrics import metrics_for
from distbp.nn.arrays import Array, Shape
from distbp.nn.kernels import NUMPY
from distbp.nn.losses.base import Loss
from distbp.nn.network import Network
from distbp.nn.program import Program
from distbp.numerics import one_blas_thread

ROWS = 1024  # of one forward pass


@dataclass(frozen=True, eq=False)
class Model:
    """A model in memory. Immutable, and safe to use from several threads.

    `vector` is the flat vector of `network`. `classes`: the names of the classes, or None: their numbers.
    `class_weights`: those of training, used in the loss of `evaluate`. `facts`: the rest of model.json
    (`job_digest`, `distbp`, `numerics`, ...).
    """

    network: Network
    vector: Array
    loss: Loss
    preprocessing: Preprocessing
    classes: tuple[Any, ...] | None
    class_weights: tuple[float, ...] | None
    metrics: tuple[str, ...] | None
    facts: Mapping[str, Any]

    @property
    def input_shape(self) -> Shape:
        return self.network.input_shape

    @property
    def output_shape(self) -> Shape:
        return self.network.output_shape

    @property
    def task(self) -> str:
        """ "classification", "binary" or "regression"."""
        return self.loss.task

    def outputs(self, x: Array) -> Array:
        """What the last layer gives, (n, *output_shape), for unprepared inputs x, (n, *input_shape).

        Where the network takes one row of numbers, rows of any shape with as many numbers are taken too.
        Raises ModelError for another shape, or for inputs that are not finite numbers.
        """
        x = self._checked(x)
        result = np.empty((len(x), *self.output_shape), self.network.dtype)
        for start, y in self._forward(x):
            result[start : start + len(y)] = y
        return result

    def predict(self, x: Array) -> Array:
        """Classification: (n,) class names or, without names, numbers. Yes-or-no: 0 or 1. Regression:
        values. The last two are (n, outputs), or (n,) for a single output."""
        y = self.outputs(x)
        if self.task == "classification":
            numbers = y.argmax(axis=1)
            return numbers if self.classes is None else np.asarray(np.array(self.classes)[numbers])
        if self.task == "binary":
            y = (y > (0.5 if self.loss.takes == "probabilities" else 0)).astype(np.intp)
        return y[:, 0] if y.shape[1:] == (1,) else y

    def predict_proba(self, x: Array) -> Array:
        """Probabilities: (n, classes) for classification; for yes-or-no outputs, of yes, (n, outputs) or
        (n,). Raises ModelError where the model has none."""
        if self.task == "regression" or self.loss.takes in ("scores", "outputs"):
            raise ModelError(
                f"a model trained with the loss {self.loss.type!r} gives {self.loss.takes}, no probabilities;"
                " use predict"
            )
        y = self.outputs(x)
        if self.loss.takes == "logits":
            y = _softmax(y) if self.task == "classification" else 0.5 + 0.5 * np.tanh(0.5 * y)
        return y[:, 0] if self.task == "binary" and y.shape[1:] == (1,) else y

    def evaluate(
        self, x: Array, y: Array, *, weights: Array | None = None, metrics: Sequence[str] | None = None
    ) -> dict[str, float]:
        """The loss and metrics of predictions for x against targets y, by name, as plain floats.

        y: classes (n,) as `predict` gives them (class numbers do too where the classes are named by text); or
        values (n, outputs), or (n,) for one output. `weights`: (n,), of the rows. `metrics`: names; None:
        those of the training job. Raises ModelError for x, DataError for y and `weights`, JobError for
        `metrics`.
        """
        x = self._checked(x)
        bound = metrics_for(self.loss, self.output_shape, self.metrics if metrics is None else metrics)
        table = self._targets(x, y, weights)
        targets, row_weights = table.targets, table.weights
        assert targets is not None
        sums = [np.zeros(metric.size) for metric in bound]
        total, weight = 0.0, 0.0
        everything = np.empty((len(x), *self.output_shape), self.network.dtype)
        for start, outputs in self._forward(x):
            part = slice(start, start + len(outputs))
            everything[part] = outputs
            some = None if row_weights is None else row_weights[part]
            loss_weights = self._loss_weights(targets[part], some)
            loss = self.loss.bind(len(outputs), self.output_shape, self.network.dtype, NUMPY)
            total += loss(outputs, targets[part], loss_weights, None)
            weight += len(outputs) if loss_weights is None else float(loss_weights.sum(dtype=np.float64))
            for metric, place in zip(bound, sums, strict=True):
                if not metric.collect:
                    metric.accumulate(outputs, targets[part], some, place)
        found = {"loss": total / weight if weight else math.nan}
        for metric, place in zip(bound, sums, strict=True):
            if metric.collect:
                found[metric.name] = float(metric.finish_collected(everything, targets, row_weights))
            else:
                found[metric.name] = float(metric.finish(place))
        return found

    def _forward(self, x: Array) -> Iterator[tuple[int, Array]]:
        """(first row, outputs of up to ROWS rows); the outputs are valid until the next ones."""
        features = self.input_shape if self.preprocessing.mean is None else self.preprocessing.mean.shape
        if self.network.ids_below is not None:
            x = self._ids(x)
        program = Program(self.network, min(ROWS, len(x)), self.vector, kernels=NUMPY)
        with one_blas_thread():
            for start in range(0, len(x), ROWS):
                raw = x[start : start + ROWS]
                prepared = np.empty((len(raw), *features), self.network.input_dtype)
                self.preprocessing.apply(raw.reshape(prepared.shape), prepared)
                _check_finite(prepared, start)
                with np.errstate(invalid="ignore"):  # which may be wrong, see `numerics.quiet`
                    program.run(prepared)
                yield start, program.outputs(len(raw))

    def _ids(self, x: Array) -> Array:
        try:
            return as_ids(x, self.network.ids_below or 0, "the inputs")
        except DataError as error:
            raise ModelError(str(error)) from None

    def _checked(self, x: Array) -> Array:
        x = np.asarray(x)
        if x.dtype.kind not in "fiub":
            raise ModelError(f"expected numbers as inputs, got an array of dtype {x.dtype}")
        wanted = self.input_shape
        flat = len(wanted) == 1 and x.ndim > 1 and math.prod(x.shape[1:]) == wanted[0]
        if x.shape[1:] == wanted or flat:
            return x
        expected = f"expected inputs of shape (rows, {', '.join(map(str, wanted))}), got {x.shape}"
        if x.shape == wanted:
            raise ModelError(f"{expected}; for a single row give x[None]")
        raise ModelError(f"{expected}; give the same columns as in training")

    def _targets(self, x: Array, y: Array, weights: Array | None) -> Table:
        y = np.asarray(y)
        if self.classes is not None and (y.dtype.kind in "UO" or not isinstance(self.classes[0], str)):
            y = _numbers_of(y, self.classes)
        if y.dtype.kind not in "fiub" or y.ndim not in (1, 2):
            raise DataError(
                f"expected numbers as targets, one row each, got dtype {y.dtype}, shape {y.shape}"
            )
        row_weights = None if weights is None else np.asarray(weights, np.float64)
        for array, name in ((y, "targets"), (row_weights, "weights")):
            if array is not None and len(array) != len(x):
                raise DataError(f"{len(x)} rows of inputs, but {len(array)} of {name}; give as many of both")
        outputs = self.output_shape[0]
        single = self.loss.targets == "values" and outputs == 1
        if y.ndim == 1:  # float labels are checked to be whole numbers in one column
            y = y.astype(np.float64)[:, None] if single or y.dtype.kind == "f" else y.astype(np.intp)
        table = Table(np.zeros((len(x), 0)), y, row_weights, name="evaluate", targets_name="the targets")
        table = check_rows(table) if len(x) else table
        if self.loss.targets == "labels":
            return with_labels(table, outputs)
        table = with_values(table, outputs)
        assert table.targets is not None
        return Table(table.inputs, np.asarray(table.targets, self.network.dtype), row_weights)

    def _loss_weights(self, targets: Array, weights: Array | None) -> Array | None:
        if self.class_weights is not None:
            by_class = np.asarray(self.class_weights)[targets]
            weights = by_class if weights is None else by_class * weights
        return None if weights is None else np.ascontiguousarray(weights, self.network.dtype)


def _softmax(z: Array) -> Array:
    """Row by row, shifted by each row's maximum, so that exp cannot overflow."""
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return np.asarray(e / e.sum(axis=1, keepdims=True))


def _check_finite(x: Array, first: int) -> None:
    good = np.isfinite(x)
    if not good.all():
        place = np.unravel_index(int(good.argmin()), x.shape)
        column = ", ".join(str(int(p)) for p in place[1:])
        raise ModelError(
            f"row {first + int(place[0])}, column {column} of the inputs is {x[place]}: every input must be a"
            " finite number; mend or leave out that row"
        )


def _numbers_of(names: Array, classes: tuple[Any, ...]) -> Array:
    numbers = {name: number for number, name in enumerate(classes)}
    strange = sorted({str(name) for name in names.ravel().tolist() if name not in numbers})
    if strange:
        known = ", ".join(map(str, classes[:10])) + (", ..." if len(classes) > 10 else "")
        raise DataError(
            f"the targets name a class that the model does not have: {strange[0]}; it has {known}"
        )
    return np.array([numbers[name] for name in names.ravel().tolist()], dtype=np.intp)
