"""The contract of a loss, before any loss.

A loss is a frozen dataclass that says what it is (its options) and, for validation and metrics, these facts:

    targets   "labels": (rows,) intp class numbers; "values": (rows, outputs) floats of the network's dtype
    takes     what the last layer must give: "logits" (any number; the loss applies the sigmoid or softmax),
              "scores" (any number, compared with each other only), "probabilities" (0 to 1), or "outputs"
              (the numbers themselves)
    task      "classification" (one of several classes), "binary" (one or many independent yes-or-no
              outputs), "regression"
    allowed   (lowest, highest) target that it takes
    applies   the activation that it applies itself, or ""
    predictions(outputs)
              what outputs of the network say in the unit of the targets: probabilities, rates, values.
              Metrics, `predict` and evaluation go by it.
    outputs_for(predictions)
              the way back: outputs whose predictions are these. By it the mean of several networks'
              predictions is made the outputs of one.

It holds no arrays. `op(outputs)` says which op of `distbp.nn.ops.losses` computes it, and with which numbers:

- The op gives the weighted SUM over the rows, added up in float64, and the gradient of that same sum. The
  server adds up the weights and divides once. So a weighted mean divides by the sum of the weights, as
  PyTorch's `weight=` does; Keras divides by the number of rows.
- A row's loss over several outputs is their sum or their mean: each loss says which.
- Where a loss overflows it is inf, and the trainer stops before the update.
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
    """The op that computes a loss: its name, its whole numbers, and its real numbers: (loss factor,
    gradient factor, ...)."""

    name: str
    real: tuple[float, ...]
    whole: tuple[int, ...] = ()


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


LAST = "the last layer"
ANY_VALUE = (-math.inf, math.inf)


class LayerFault(str):
    """A fault of the layer, which has another number of units than the targets ask for."""


class Loss(Protocol):
    """What every loss dataclass offers. `type` is its name in a job."""

    targets: ClassVar[TargetKind]
    takes: ClassVar[Takes]
    task: ClassVar[Task]
    allowed: ClassVar[tuple[float, float]]
    applies: ClassVar[str]

    @property
    def type(self) -> str: ...

    def predictions(self, outputs: Array) -> Array:
        """(rows, outputs) of what the network gives -> the same shape and dtype; may be `outputs` itself."""
        ...

    def outputs_for(self, predictions: Array) -> Array:
        """The inverse of `predictions`, of the same shape and dtype; finite where these are. Where several
        outputs have the same predictions, one of them."""
        ...

    def faults(
        self, output_shape: Shape, activation: str | None, targets: Targets, layer: str = LAST
    ) -> tuple[str, ...]:
        """Every reason why this loss does not fit, each saying how to mend it; empty where it fits. What is
        to be mended in the layer is a LayerFault.

        `output_shape`: of one row of the network's outputs. `activation`: the name of the activation that
        makes them ("linear" for none); None where it is not known. `layer`: the one that gives them, in
        words.
        """
        ...

    def constant(self, mean: Array, median: Array) -> Array:
        """The best outputs (outputs,) that are the same for every row, or nearly. `mean`, `median`: of the
        targets, float64; for labels both are the share of each class."""
        ...

    def op(self, outputs: int) -> LossOp: ...


# An activation that already does what the loss will do, and the loss that goes with it.
_SQUASHES = {"softmax": "nll", "sigmoid": "binary_cross_entropy"}


def common_faults(
    loss: Loss, output_shape: Shape, activation: str | None, targets: Targets, layer: str
) -> tuple[str, ...]:
    """The faults that follow from the facts of `loss` alone; a loss adds its own to them."""
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
    """Row by row, shifted by each row's maximum, so that exp cannot overflow."""
    with np.errstate(under="ignore"):
        e = np.exp(z - z.max(axis=1, keepdims=True))
        return np.asarray(e / e.sum(axis=1, keepdims=True))


class LossFacts:
    """The facts of most losses; a loss states those that differ."""

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
    """Emits the loss of outputs y (rows, outputs), which adds to `totals`: the loss sum and the sum of the
    weights. Where y has several rows for each row of the slice, so have targets and weights. Returns the
    gradient with respect to y, and the loss of each output (of labels: of each row). targets: left out where
    they are all that the space of targets has."""
    op = loss.op(y.columns)
    labels = loss.targets == "labels"
    columns = 1 if labels else y.columns
    losses, d = tape.work(columns, y.times), tape.like(y)
    targets = Ref(Space.TARGETS, 0, columns, y.times) if targets is None else targets
    weights = Ref(Space.WEIGHTS, 0, 1, y.times)
    tape.emit(op.name, y, targets, d, losses, whole=op.whole, real=op.real)
    tape.emit("add_losses", losses, weights, d, *totals, real=op.real[:1])
    return d, losses
