"""The contract of a loss, before any loss.

A loss is a frozen dataclass that says what it is (its options) and, for validation and metrics, these facts:

    targets   "labels": (rows,) intp class numbers; "values": (rows, outputs) floats of the network's dtype
    takes     what the last layer must give: "logits" (any number; the loss applies the sigmoid or softmax),
              "scores" (any number, compared with each other only), "probabilities" (0 to 1), or "outputs"
              (the numbers themselves)
    task      "classification" (one of several classes), "binary" (one or many independent yes-or-no
              outputs), "regression"
    allowed   (lowest, highest) target that it takes
    predictions(outputs)
              what outputs of the network say in the unit of the targets: probabilities, rates, values.
              Metrics, `predict` and evaluation go by it.

It holds no arrays. `bind` gives a function over buffers that are allocated once:

    loss(outputs, targets, weights, d_outputs) -> float
        outputs    (rows, outputs), never written to
        weights    (rows,) of the network's dtype, class weight times sample weight; None: all are 1
        d_outputs  like outputs, another buffer: takes the gradient; None where no gradient is wanted

- It returns the weighted SUM over the rows, added up in float64, and writes the gradient of that same sum.
  The caller adds up the weights and divides once. So a weighted mean divides by the sum of the weights, as
  PyTorch's `weight=` does; Keras divides by the number of rows.
- A row's loss over several outputs is their sum or their mean: each loss says which.
- Nothing is allocated that grows. Where a loss overflows it returns inf, and the trainer stops before the
  update; NumPy's own warnings follow the caller's `np.errstate`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

import numpy as np

from distbp.nn.arrays import Array, Shape
from distbp.nn.kernels import Kernels

TargetKind = Literal["labels", "values"]
Takes = Literal["logits", "scores", "probabilities", "outputs"]
Task = Literal["classification", "binary", "regression"]

LossFunction = Callable[[Array, Array, Array | None, Array | None], float]


@dataclass(frozen=True)
class Targets:
    """What validation knows about the training targets, as the loss takes them; None means not known.

    `classes`: for labels, how many outputs they need. `names`: their names in the order of the outputs; None:
    their numbers. `labels`: the labels, in words, where they do not fit the outputs. `columns`: for values,
    how many numbers a row has.
    """

    kind: TargetKind | None = None
    classes: int | None = None
    names: tuple[Any, ...] | None = None
    labels: str = ""
    columns: int | None = None


class Loss(Protocol):
    """What every loss dataclass offers. `type` is its name in a job."""

    targets: ClassVar[TargetKind]
    takes: ClassVar[Takes]
    task: ClassVar[Task]
    allowed: ClassVar[tuple[float, float]]

    @property
    def type(self) -> str: ...

    def predictions(self, outputs: Array) -> Array:
        """(rows, outputs) of what the network gives -> the same shape and dtype; may be `outputs` itself."""
        ...

    def faults(self, output_shape: Shape, activation: str | None, targets: Targets) -> tuple[str, ...]:
        """Every reason why this loss does not fit, each saying how to mend it; empty where it fits.

        `output_shape`: of one row of the network's outputs. `activation`: the name of the activation that
        makes them ("linear" for none); None where it is not known.
        """
        ...

    def constant(self, mean: Array, median: Array) -> Array:
        """The best outputs (outputs,) that are the same for every row, or nearly. `mean`, `median`: of the
        targets, float64; for labels both are the share of each class."""
        ...

    def bind(
        self, rows: int, output_shape: Shape, dtype: np.dtype[Any], kernels: Kernels
    ) -> LossFunction: ...


# An activation that already does what the loss will do, and the loss that goes with it.
_SQUASHES = {"softmax": "nll", "sigmoid": "binary_cross_entropy"}


def common_faults(
    loss: Loss, output_shape: Shape, activation: str | None, targets: Targets
) -> tuple[str, ...]:
    """The faults that follow from the facts of `loss` alone; a loss adds its own to them."""
    name = loss.type
    if len(output_shape) != 1:
        return (
            f"{name} takes one row of numbers for each sample, but the last layer gives shape"
            f" {output_shape}; put a {{type: flatten}} layer at the end",
        )
    faults = []
    if loss.takes in ("logits", "scores") and activation in _SQUASHES:
        applied = f" and applies the {_SQUASHED[name]} itself" if name in _SQUASHED else ""
        faults.append(
            f"{name} takes {loss.takes}{applied}, but the last layer ends in {activation!r};"
            f" make that layer's activation 'linear', or use loss {_SQUASHES[activation]!r}"
        )
    if targets.kind is not None and targets.kind != loss.targets:
        faults.append(_KIND_FAULTS[loss.targets].format(name=name))
    elif loss.targets == "labels":
        faults += _label_faults(name, output_shape[0], targets)
    elif targets.columns is not None and targets.columns != output_shape[0]:
        faults.append(
            f"the last layer has {output_shape[0]} outputs, but the targets have {targets.columns} columns;"
            f" give the last layer {targets.columns} units"
        )
    return tuple(faults)


ANY_VALUE = (-math.inf, math.inf)


def softmax(z: Array) -> Array:
    """Row by row, shifted by each row's maximum, so that exp cannot overflow."""
    with np.errstate(under="ignore"):
        e = np.exp(z - z.max(axis=1, keepdims=True))
        return np.asarray(e / e.sum(axis=1, keepdims=True))


_SQUASHED = {"softmax_cross_entropy": "softmax", "sigmoid_cross_entropy": "sigmoid"}
_KIND_FAULTS = {
    "labels": "{name} takes one class label for each row, but the targets are values;"
    " for values use 'mse' or 'mae', for yes-or-no values 'sigmoid_cross_entropy'",
    "values": "{name} takes values, but the targets are class labels;"
    " for labels use 'softmax_cross_entropy', or make the labels one-hot",
}


def _label_faults(name: str, outputs: int, targets: Targets) -> list[str]:
    if outputs < 2:
        return [
            f"{name} chooses between classes, but the last layer has 1 output; give it one unit for each"
            " class, or use 'sigmoid_cross_entropy' for one yes-or-no output"
        ]
    if targets.labels:
        return [
            f"the last layer has {outputs} outputs, but the labels are of {targets.labels};"
            f" give the last layer {targets.classes} units, or number the classes from 0 to {outputs - 1}"
        ]
    return []


def weighted_sum(rows: int) -> Callable[[Array, Array | None], float]:
    """A function (losses: (rows, n), weights) -> the sum of weights * losses, in float64."""
    row_losses = np.empty(rows)
    add_up, multiply = np.add.reduce, np.multiply

    def total(losses: Array, weights: Array | None) -> float:
        if weights is None:
            return float(add_up(losses, axis=None, dtype=np.float64))
        add_up(losses, axis=1, dtype=np.float64, out=row_losses)
        multiply(row_losses, weights, out=row_losses)
        return float(add_up(row_losses))

    return total


# (outputs, targets, losses, d): writes each element's loss and its derivative, both up to a constant factor.
Formula = Callable[[Array, Array, Array, Array], None]


def bind_elementwise(
    rows: int,
    output_shape: Shape,
    dtype: np.dtype[Any],
    formula: Formula,
    loss_factor: float = 1.0,
    gradient_factor: float = 1.0,
) -> LossFunction:
    """The function of a loss that is a sum over elements. The factors of `formula` are applied here:
    the loss's once to the sum, the gradient's only where it is not 1."""
    losses = np.empty((rows, *output_shape), dtype)
    scratch = np.empty((rows, *output_shape), dtype)
    total, multiply = weighted_sum(rows), np.multiply

    def loss(outputs: Array, targets: Array, weights: Array | None, d_outputs: Array | None) -> float:
        formula(outputs, targets, losses, scratch if d_outputs is None else d_outputs)
        if d_outputs is not None:
            if gradient_factor != 1:
                multiply(d_outputs, gradient_factor, out=d_outputs)
            if weights is not None:
                multiply(d_outputs, weights[:, None], out=d_outputs)
        return loss_factor * total(losses, weights)

    return loss
