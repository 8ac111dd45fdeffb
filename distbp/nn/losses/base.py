"""The contract of a loss, before any loss.

A loss is a frozen dataclass. Its fields are its options. Validation and metrics read these facts:

    targets   "labels": (rows,) intp class numbers; "values": (rows, outputs) floats of the network's dtype
    takes     the kind of outputs: "logits" (any number; the loss applies the sigmoid or softmax), "scores"
              (any number; they are only compared), "probabilities" (0 to 1), or "outputs" (values)
    task      "classification" (one of several classes), "binary" (one or many independent yes-or-no
              outputs), or "regression"
    allowed   the lowest and the highest target
    applies   the activation that the loss applies itself, or ""
    predictions(outputs)
              turns outputs of the network into the unit of the targets: probabilities, rates, values.
              Metrics, `predict` and evaluation use it.
    outputs_for(predictions)
              the inverse: outputs with these predictions, such as the mean of several networks' predictions

A loss holds no arrays. `op(outputs)` names the op of `distbp.nn.ops.losses` that computes it, and the op's
numbers. The contract of the result:

- The loss is the weighted SUM over the rows, added up in float64, and the gradient is that of the same sum.
  The server adds up the weights and divides once. So a weighted mean divides by the sum of the weights, as
  PyTorch's `weight=` does; Keras divides by the number of rows.
- A row's loss over several outputs is their sum or their mean. The docstring of each loss says which.
- A loss that overflows is inf. The trainer then stops before the update.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

import numpy as np

from distbp.core.arrays import Array, Shape
from distbp.core.words import counted
from distbp.nn.tape import LOSS_TOTAL, WEIGHT_TOTAL, Ref, Space, Tape

TargetKind = Literal["labels", "values"]
Takes = Literal["logits", "scores", "probabilities", "outputs"]
Task = Literal["classification", "binary", "regression"]


class LossOp(NamedTuple):
    """The op that computes a loss, with its numbers. `real`: (loss factor, gradient factor, ...)."""

    name: str
    real: tuple[float, ...]
    whole: tuple[int, ...] = ()


@dataclass(frozen=True)
class Targets:
    """The facts about the training targets that validation knows; None: not known.

    `classes`: for labels, the number of outputs that they need. `names`: the names of the classes in the
    order of the outputs; None: their numbers. `labels`: the labels, in words, if they do not fit the outputs,
    else "". `columns`: for values, the number of numbers in a row.
    """

    kind: TargetKind | None = None
    classes: int | None = None
    names: tuple[Any, ...] | None = None
    labels: str = ""
    columns: int | None = None


LAST = "the last layer"
ANY_VALUE = (-math.inf, math.inf)


class LayerFault(str):
    """A fault of the layer: its number of units is not the one that the targets need."""


class Loss(Protocol):
    """The interface of all losses. `type`: the name in a job."""

    targets: ClassVar[TargetKind]
    takes: ClassVar[Takes]
    task: ClassVar[Task]
    allowed: ClassVar[tuple[float, float]]
    applies: ClassVar[str]

    @property
    def type(self) -> str: ...

    def predictions(self, outputs: Array) -> Array:
        """The predictions of outputs (rows, outputs), in the same shape and dtype; may return `outputs`."""
        ...

    def outputs_for(self, predictions: Array) -> Array:
        """Outputs with these predictions, in the same shape and dtype; finite if the predictions are."""
        ...

    def faults(
        self, output_shape: Shape, activation: str | None, targets: Targets, layer: str = LAST
    ) -> tuple[str, ...]:
        """Every reason why this loss does not fit, with a way to mend it; () if the loss fits. A number of
        units to mend in the layer is a LayerFault.

        `output_shape`: the shape of one row of the outputs. `activation`: the name of the activation that
        makes the outputs ("linear": none does); None: not known. `layer`: the output layer, in words.
        """
        ...

    def constant(self, mean: Array, median: Array) -> Array:
        """The outputs (outputs,) with the least, or nearly the least, loss if all rows have the same. `mean`,
        `median`: of the targets, (outputs,) float64; for labels, both are the share of each class."""
        ...

    def op(self, outputs: int) -> LossOp: ...


# Activations that a loss on logits applies itself, and for each the loss on its outputs.
_SQUASHES = {"softmax": "nll", "sigmoid": "binary_cross_entropy"}


def common_faults(
    loss: Loss, output_shape: Shape, activation: str | None, targets: Targets, layer: str
) -> tuple[str, ...]:
    """The faults that follow from the facts of `loss`, see `Loss.faults`. A loss may add its own faults."""
    name = loss.type
    if len(output_shape) != 1:
        steps = ", or set data.truncated_bptt_steps, where each step has a target"
        return (
            f"{name} takes one row of numbers for each sample, but {layer} gives shape"
            f" {output_shape}; put a {{type: flatten}} layer at the end{steps * (len(output_shape) == 2)}",
        )
    faults = []
    if loss.takes in ("logits", "scores") and activation in _SQUASHES:
        applied = f" and applies the {loss.applies} itself" if loss.applies else ""
        faults.append(
            f"{name} takes {loss.takes}{applied}, but {layer} ends in {activation!r};"
            f" make that layer's activation 'linear', or use loss {_SQUASHES[activation]!r}"
        )
    if targets.kind is not None and targets.kind != loss.targets:
        faults.append(_KIND_FAULTS[loss.targets].format(name=name))
    elif loss.targets == "labels":
        faults += _label_faults(name, output_shape[0], targets, layer)
    elif targets.columns is not None and targets.columns != output_shape[0]:
        has, wanted = counted(output_shape[0], "output"), targets.columns
        text = f"{layer} has {has}, but the targets have {counted(wanted, 'column')};"
        faults.append(LayerFault(f"{text} give {layer} {counted(wanted, 'unit')}"))
    return tuple(faults)


def softmax(z: Array) -> Array:
    """The softmax of each row of z (rows, outputs), shifted by its maximum, so that exp cannot overflow."""
    with np.errstate(under="ignore"):
        e = np.exp(z - z.max(axis=1, keepdims=True))
        return np.asarray(e / e.sum(axis=1, keepdims=True))


class LossFacts:
    """The facts of most losses. A loss overrides the facts that differ."""

    targets: ClassVar[TargetKind] = "values"
    takes: ClassVar[Takes] = "outputs"
    task: ClassVar[Task] = "regression"
    allowed: ClassVar[tuple[float, float]] = ANY_VALUE
    applies: ClassVar[str] = ""

    def faults(
        self: Loss, output_shape: Shape, activation: str | None, targets: Targets, layer: str = LAST
    ) -> tuple[str, ...]:
        return common_faults(self, output_shape, activation, targets, layer)

    def constant(self, mean: Array, median: Array) -> Array:
        return mean

    def predictions(self, outputs: Array) -> Array:
        return outputs

    def outputs_for(self, predictions: Array) -> Array:
        return predictions


_KIND_FAULTS = {
    "labels": "{name} takes one class label for each row, but the targets are values;"
    " for values use 'mse' or 'mae', for yes-or-no values 'sigmoid_cross_entropy'",
    "values": "{name} takes values, but the targets are class labels;"
    " for labels use 'softmax_cross_entropy', or make the labels one-hot",
}


def _label_faults(name: str, outputs: int, targets: Targets, layer: str) -> list[str]:
    if outputs < 2:
        return [
            f"{name} chooses between classes, but {layer} has 1 output; give it one unit for each"
            " class, or use 'sigmoid_cross_entropy' for one yes-or-no output"
        ]
    if targets.labels:
        text = f"{layer} has {outputs} outputs, but the labels are of {targets.labels}; give {layer}"
        return [LayerFault(f"{text} {targets.classes} units, or number the classes from 0 to {outputs - 1}")]
    return []


def lower_loss(
    tape: Tape,
    loss: Loss,
    y: Ref,
    targets: Ref | None = None,
    totals: tuple[Ref, Ref] = (LOSS_TOTAL, WEIGHT_TOTAL),
) -> tuple[Ref, Ref]:
    """Emits the loss of outputs y (rows, outputs). The ops add the loss sum and the sum of the weights to
    `totals`. If y has several rows for each row of the slice, targets and weights have them, too. targets:
    their place; None: all numbers of the space TARGETS. Returns the gradient with respect to y, and the loss
    of each output (for labels: of each row)."""
    op = loss.op(y.columns)
    labels = loss.targets == "labels"
    columns = 1 if labels else y.columns
    losses, d = tape.work(columns, y.times), tape.like(y)
    targets = Ref(Space.TARGETS, 0, columns, y.times) if targets is None else targets
    weights = Ref(Space.WEIGHTS, 0, 1, y.times)
    tape.emit(op.name, y, targets, d, losses, whole=op.whole, real=op.real)
    tape.emit("add_losses", losses, weights, d, *totals, real=op.real[:1])
    return d, losses
