"""The rows and targets on which a model is evaluated."""

from __future__ import annotations

from typing import Any

import numpy as np

from distbp.core.arrays import Array
from distbp.core.errors import DataError
from distbp.data.batches import Rows
from distbp.data.checks import Allowed
from distbp.data.cutting import cut, in_a_row, steps_as_taken
from distbp.data.formats.arrays import from_arrays
from distbp.data.prepared import PreparedRows
from distbp.data.preprocessing import Preprocessing
from distbp.data.sequences import Samples
from distbp.data.several_targets import all_as_taken, check_names
from distbp.engine.evaluation import step_by_step
from distbp.model.series import Prepare
from distbp.nn.losses.base import Loss
from distbp.nn.losses.several import Heads, Losses, names_of
from distbp.nn.metrics import Frame, frame_of
from distbp.nn.network import Network


class _Rows:
    """The rows of an evaluation, prepared batch by batch (see `distbp.data.batches.Rows`)."""

    def __init__(
        self, network: Network, x: Samples, targets: Array, weights: Array | None, prepare: Prepare
    ) -> None:
        self._x, self._prepare = x, prepare
        self.input_shape, self.targets, self.weights = network.row_shape, targets, weights

    def gather(self, rows: Array, out: Array) -> None:
        self._prepare(self._x.take(rows), int(rows[0]), out)


def itself(x: Samples, y: Any, preprocessing: Preprocessing, dtype: np.dtype[Any]) -> Array:
    """The targets of rows that are compared with themselves, prepared as in training. y: None, or equal to x.
    Raises DataError for another y."""
    if y is not None and not np.array_equal(np.asarray(y), x.inputs):
        raise DataError(
            "this model compares each row with itself, as the first layer takes it (data.targets: inputs);"
            " leave y out"
        )
    return preprocessing.as_targets(x.inputs, dtype)


def rows_to_evaluate(
    network: Network,
    heads: Heads,
    loss: Loss | Losses,
    classes: Any,
    x: Samples,
    y: Any,
    weights: Any,
    prepare: Prepare,
) -> Rows:
    """The rows x with their targets y as the losses take them. prepare: writes rows as the network takes
    them. Raises DataError."""
    if network.carry is not None:
        return _windows(network, heads.all[0].loss, classes, x, y, weights, prepare)
    allowed = Allowed(network.dtype)
    nothing, outputs = np.zeros((len(x), 1), np.uint8), names_of(loss)
    table = from_arrays(nothing, y, weights, bad_rows=None, name="the data", allowed=allowed, outputs=outputs)
    check_names(table, loss)
    targets = all_as_taken(table, heads, network.dtype, classes)
    return _Rows(network, x, targets, table.weights, prepare)


def frame_of_rows(network: Network, rows: Rows) -> Frame:
    """The frame (center and size) of the targets of `rows_to_evaluate`, which must be values."""
    if network.carry is None:
        return frame_of(rows.targets, rows.weights)
    nothing = np.empty((0, *network.answer_shapes[0]))
    _, targets, weights = step_by_step(nothing, rows.targets, rows.weights)
    return frame_of(targets, weights)


def _windows(
    network: Network, loss: Loss, classes: Any, x: Samples, y: Any, weights: Any, prepare: Prepare
) -> PreparedRows:
    """The windows of series with their targets and weights, as in training. Raises DataError."""
    given, targets, *_ = in_a_row(({"inputs": x.inputs, "lengths": x.lengths}, y), "the data")
    table = from_arrays(given, targets, weights, name="the data", allowed=Allowed(network.dtype))
    table = cut(table, network.input_shape[0])
    assert table.lengths is not None
    taken = steps_as_taken(table, loss, network.answer_shapes[0][0], network.dtype, classes)
    inputs = np.empty((len(table), *network.row_shape), network.input_dtype)
    prepare(Samples(table.inputs, table.lengths, begins=table.begins), 0, inputs)
    return PreparedRows(inputs, taken, table.weights)
