"""A trained model in memory: outputs, predictions, probabilities, evaluation. `model.folder` loads models."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from distbp.core.arguments import check_kind
from distbp.core.arrays import Array, Shape
from distbp.core.errors import DataError, ModelError
from distbp.data.checks import Allowed, first_bad
from distbp.data.columns.given import GivenTable
from distbp.data.columns.loading import weights_of
from distbp.data.columns.plan import Plan
from distbp.data.columns.rows import EncodedRows, encode_given
from distbp.data.ids import as_ids
from distbp.data.prepared import tail
from distbp.data.preprocessing import Preprocessing
from distbp.data.sequences import Samples
from distbp.data.several_targets import AllClasses
from distbp.data.table import ColumnNames
from distbp.engine.evaluation import Measures
from distbp.engine.numerics import one_blas_thread, quiet
from distbp.model.answers import as_trained, predicted, probabilities, task_of, with_probabilities
from distbp.model.given import plain_rows, rows_of_inputs, rows_with_lengths, whole_series
from distbp.model.joined import Joined, kernels_named, measured
from distbp.model.rows import frame_of_rows, itself, rows_to_evaluate
from distbp.model.series import each_step, outputs_of_series
from distbp.model.summary import summary
from distbp.nn.head_metrics import metrics_of
from distbp.nn.kernels import NUMPY
from distbp.nn.losses.base import Loss
from distbp.nn.losses.several import Head, Heads, Losses, heads_of, without_names
from distbp.nn.network import Network

ROWS = 1024  # of one forward pass
Predicted = Any  # an array (n, ...); with several outputs a mapping from their names to arrays


@dataclass(frozen=True, eq=False)
class Model:
    """A model in memory. Immutable, and safe to use from several threads.

    `vector` is the flat vector of `network`. `classes`: the names of the classes, in the order of the outputs
    (of no and yes, for one yes-or-no output); None: numbers. `class_weights`: those of training, used in the
    loss of `evaluate`. `facts`: the rest of model.json (`job_digest`, `distbp`, `numerics`, ...). `columns`:
    the names of the inputs, if training had a frame. `shards`, `kernels`: those of training's evaluations.
    `plan`: of the training table; inputs are then rows with named columns. `others`: the vectors of the
    members after the first. Every method predicts the mean over all members (of probabilities, values or
    scores).

    With several outputs, `loss` is `Losses`, and `classes` is a mapping from the outputs' names to their
    classes. Results and targets of the methods are then mappings from these names, too.
    """

    network: Network
    vector: Array
    loss: Loss | Losses
    preprocessing: Preprocessing
    classes: AllClasses
    class_weights: tuple[float, ...] | None
    metrics: tuple[str, ...] | None
    facts: Mapping[str, Any]
    columns: ColumnNames | None = None
    shards: int = 1
    kernels: str = "numpy"
    plan: Plan | None = None
    others: tuple[Array, ...] = ()

    @property
    def vectors(self) -> tuple[Array, ...]:
        """The flat vectors of all members; most models have one."""
        return (self.vector, *self.others)

    @property
    def input_shape(self) -> Shape:
        return self.network.input_shape

    @property
    def output_shape(self) -> Shape:
        return self.network.output_shape

    @property
    def heads(self) -> Heads:
        """The outputs with their losses."""
        return heads_of(self.loss, self.network.answer_shapes)

    @property
    def compares_with_inputs(self) -> bool:
        """Whether training compared each row with itself (`data.targets: inputs`)."""
        return self.facts.get("targets") == "inputs"

    @property
    def task(self) -> str:
        """ "classification", "binary", "regression", or "several" of these."""
        return task_of(self.heads)

    def classes_of(self, head: Head) -> tuple[Any, ...] | None:
        """The names of the classes of one output; None: numbers."""
        return self.classes.get(head.name) if isinstance(self.classes, Mapping) else self.classes

    @quiet()
    def outputs(self, x: Any, *, lengths: Any = None) -> Predicted:
        """The outputs of the last layer, (n, *output_shape), for unprepared inputs x (n, *input_shape).

        If a row is flat, rows of any shape with as many numbers are accepted. The columns of a frame are
        found by their names if training had names. Raises ModelError for another shape, a column that is
        missing or unknown, or inputs that are not finite numbers.

        If training had a table, x is raw rows with named columns in any order: a frame of pandas or Polars,
        a table of Arrow, a mapping of columns, or a list of mappings. Cells may be missing. Columns that the
        model does not know are ignored; a warning names them and the levels that training did not see.

        If training had rows with lengths, x is a list of arrays (steps, ...) of different lengths, or padded
        rows together with `lengths` (n,). If training cut series into windows, x is whole series of any
        length, (n, steps, ...) or as above; the outputs are (n, steps, outputs), 0 past the end of each.
        """
        y = self._outputs(self.checked(x, lengths))
        return without_names({head.name: head.outputs_of(y) for head in self.heads})

    def _outputs(self, x: Samples) -> Array:
        """All outputs side by side."""
        if self.network.carry is not None:
            with one_blas_thread():
                return outputs_of_series(self.network, self.heads, self.vectors, x, ROWS, self.prepare)
        result = np.empty((len(x), *self.output_shape), self.network.dtype)
        for start, y in self._forward(x):
            result[start : start + len(y)] = y
        return result

    @quiet()
    def predict(self, x: Any, *, lengths: Any = None) -> Predicted:
        """Class names (n,) if the model has names. Else classification: class numbers (n,); yes-or-no: 0 or
        1; regression: values in the unit of the targets. The last two are (n, outputs), or (n,) for one
        output. With series the shape is (n, steps, ...); past the end values are NaN and classes the first
        class. x, `lengths`: see `outputs`. Raises ModelError, also if no class follows from the outputs."""
        x = self.checked(x, lengths)
        y = self._outputs(x)
        return without_names({head.name: self._says(head, y, x) for head in self.heads})

    def _says(self, head: Head, y: Array, x: Samples) -> Array:
        """The predictions of one head. y: all outputs for x."""
        classes = self.classes_of(head)
        if self.network.carry is not None:
            return each_step(y, x, lambda steps: predicted(head, steps, classes, None, x))
        return predicted(head, head.outputs_of(y), classes, self.plan, x)

    @quiet()
    def predict_proba(self, x: Any, *, lengths: Any = None) -> Predicted:
        """Probabilities: (n, classes) for classification; for yes-or-no outputs those of yes, (n, outputs) or
        (n,). With several outputs only those that have probabilities. NaN past the end of a series. Raises
        ModelError if the model has no probabilities or outputs overflow."""
        likely = with_probabilities(self.heads)
        x = self.checked(x, lengths)
        y = self._outputs(x)
        if self.network.carry is not None:
            return each_step(y, x, lambda steps: probabilities(likely[0], steps, len(x)))
        found = {head.name: probabilities(head, head.outputs_of(y), len(x)) for head in likely}
        return without_names(found)

    @quiet()
    def evaluate(
        self,
        x: Any,
        y: Any = None,
        *,
        weights: Any = None,
        metrics: Sequence[str] | None = None,
        lengths: Any = None,
    ) -> dict[str, float]:
        """The loss and metrics of predictions for x against targets y, by name, as floats. They equal those
        of training for the same rows.

        y: classes (n,) as `predict` returns them (or class numbers, if the names are texts); or values (n,
        outputs), or (n,) for one output; with several outputs a mapping. Leave y out if each row is compared
        with itself (`compares_with_inputs`). x, `lengths`: see `outputs`. `weights`: (n,), of the rows; None:
        those in the column `data.weight` of the training job, if x has it. `metrics`: names; None: those of
        the training job. Raises ModelError for x, DataError for y and `weights`, JobError for `metrics`.
        """
        given, x = x, self.checked(x, lengths)
        check_kind(metrics, (list, tuple, type(None)), "metrics", "a list of names")
        for name in metrics or ():
            check_kind(name, str, "each of metrics", "a name, as text")
        names, heads = self.metrics if metrics is None else metrics, self.heads
        if not len(x):
            measures = Measures(heads, metrics_of(heads, names), self.class_weights)
            return dict.fromkeys(measures.names, math.nan)
        if self.compares_with_inputs:
            y = itself(x, y, self.preprocessing, self.network.dtype)
        if y is None:
            raise DataError("evaluate compares with targets; give y")
        if not isinstance(given, EncodedRows):
            y = as_trained(self.plan, y, x)
            if weights is None and self.plan is not None and self.plan.series is None and self.plan.weight:
                weights = weights_of(GivenTable(given, "the data"), self.plan.weight, self.plan.missing)
        rows = rows_to_evaluate(self.network, heads, self.loss, self.classes, x, y, weights, self.prepare)
        values = any(head.loss.task == "regression" for head in heads)
        frame = frame_of_rows(self.network, rows) if values else None
        measures = Measures(heads, metrics_of(heads, names, frame), self.class_weights)
        kernels, count = kernels_named(self.kernels), len(rows.targets)
        with one_blas_thread(), quiet():
            return measured(measures, self.network, self.vectors, kernels, rows, count, self.shards)

    def score(self, x: Any, y: Any = None, *, weights: Any = None, lengths: Any = None) -> float:
        """The accuracy of predictions for x against y; for regression R2. NaN if outputs overflow. Raises as
        `evaluate` does, and ModelError for a model with several outputs."""
        if self.heads.several:
            raise ModelError("this model has several outputs, and no score is that of all; use evaluate")
        metric = "r2" if self.task == "regression" else "accuracy"
        return self.evaluate(x, y, weights=weights, metrics=[metric], lengths=lengths)[metric]

    def summary(self) -> str:
        """A table of the layers with their output shapes and parameters, and of the members, as text."""
        return summary(self.network, len(self.vectors))

    def __repr__(self) -> str:
        layers = ", ".join(layer.type for layer in self.network.layers)
        shapes = " to ".join("x".join(map(str, shape)) for shape in (self.input_shape, self.output_shape))
        members = f"{len(self.vectors)} members of " if self.others else ""
        tasks = ", ".join(f"{head.name} ({head.loss.task})" for head in self.heads)
        task, count = tasks if self.heads.several else self.task, self.network.parameter_count
        return f"<Model for {task}: {shapes}, {members}{count:,} parameters ({layers})>"

    def prepare(self, rows: Samples, first: int, out: Array) -> None:
        """Writes rows into `out` (rows, *row_shape), as the network takes them. first: the number of the
        first row. Raises ModelError for values that are not finite or too large for the dtype."""
        x, below = rows.inputs, self.network.ids_below
        if rows.lengths is not None:
            out = tail(rows, out).reshape(len(x), *self.input_shape)  # a view: an axis is split
        if below is not None:
            try:
                out[:] = as_ids(x.reshape(out.shape), below, "the inputs", first.__add__)
            except DataError as error:
                raise ModelError(str(error)) from None
            return
        features = self.input_shape if self.preprocessing.mean is None else self.preprocessing.mean.shape
        raw, allowed = x.reshape(len(x), *features), Allowed(self.network.dtype, self.preprocessing)
        if problem := first_bad(raw, allowed, first, self.network.named_inputs):
            raise ModelError(f"{problem}; mend or leave out that row")
        self.preprocessing.apply(raw, out.reshape(raw.shape))

    def _forward(self, x: Samples) -> Iterator[tuple[int, Array]]:
        """Yields (number of the first row, outputs of at most ROWS rows), valid until the next ones."""
        if not len(x):
            return
        joined = Joined(self.heads, self.network, self.vectors, min(ROWS, len(x)), NUMPY)
        prepared = np.empty((min(ROWS, len(x)), *self.network.row_shape), self.network.input_dtype)
        with one_blas_thread():
            for start in range(0, len(x), ROWS):
                raw = x.take(slice(start, start + ROWS))
                self.prepare(raw, start, prepared[: len(raw)])
                yield start, joined.outputs(prepared[: len(raw)])

    def encoded(self, rows: Any) -> EncodedRows:
        """Encodes raw rows of a table as inputs (names: `plan.names`), with notes on them. Every method takes
        the result in place of the rows. Raises ModelError."""
        if isinstance(rows, EncodedRows):
            return rows
        if self.plan is None:
            why = "this model was not trained on a table with named columns; give an array of inputs"
            raise ModelError(why)
        try:
            return encode_given(self.plan, rows, self.network.dtype)
        except DataError as error:
            raise ModelError(str(error)) from None

    def checked(self, given: Any, lengths: Any = None) -> Samples:
        """Checks inputs and converts them to samples, which every method takes in place of x and `lengths`.
        Raises ModelError."""
        if isinstance(given, Samples):
            return given
        if self.plan is not None or isinstance(given, EncodedRows):
            return self._of_table(given)
        if self.network.carry is not None:
            return whole_series(self.network, given, lengths)
        if self.network.lengths:
            return rows_with_lengths(self.network, given, lengths)
        named = self.network.named_inputs
        if lengths is not None:
            what = "was trained on rows without lengths; leave `lengths` out"
            if named:
                what = "has several inputs; give lengths with their input, as {inputs: ..., lengths: ...}"
            raise ModelError(f"this model {what}")
        if named:
            return Samples(rows_of_inputs(named, self.columns, given))
        return Samples(plain_rows(self.input_shape, self.columns, given))

    def _of_table(self, given: Any) -> Samples:
        found = self.encoded(given)
        if found is not given:
            for note in found.seen.notes:
                warnings.warn(note, stacklevel=5)
        return Samples(found.inputs, windows=found.windows)
