"""Losses that choose one of several classes. Targets are labels y: (rows,) intp, from 0 to classes - 1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from distbp.core.arrays import Array, Shape
from distbp.core.options import option
from distbp.nn.losses.base import LAST, LossFacts, LossOp, Takes, TargetKind, Targets, Task, softmax
from distbp.nn.ops.losses import SMALLEST_DIVISOR as SMALLEST


@dataclass(frozen=True)
class SoftmaxCrossEntropy(LossFacts):
    """-log softmax(z)_y on logits z; derivative softmax(z) - onehot(y). PyTorch's CrossEntropyLoss.

    With smoothing s the target is (1 - s) onehot(y) + s / classes (Szegedy et al., 2016). A class weight
    multiplies the loss of the whole row. PyTorch, given both `weight` and `label_smoothing`, multiplies the
    smoothed part of each class by that class's weight instead.
    """

    type: Literal["softmax_cross_entropy"] = "softmax_cross_entropy"
    label_smoothing: float = option(
        0.0, help="share of the target spread evenly over all classes", ge=0, lt=1
    )

    targets: ClassVar[TargetKind] = "labels"
    takes: ClassVar[Takes] = "logits"
    task: ClassVar[Task] = "classification"
    applies: ClassVar[str] = "softmax"

    def constant(self, mean: Array, median: Array) -> Array:
        s = self.label_smoothing
        return np.log(np.maximum((1 - s) * mean + s / len(mean), SMALLEST))

    def predictions(self, outputs: Array) -> Array:
        return softmax(outputs)

    def outputs_for(self, predictions: Array) -> Array:
        return np.asarray(np.log(np.maximum(predictions, np.finfo(predictions.dtype).tiny)))

    def op(self, outputs: int) -> LossOp:
        return LossOp("softmax_cross_entropy", (1.0, 1.0, self.label_smoothing))


@dataclass(frozen=True)
class NLL(LossFacts):
    """-log p_y on probabilities p, as a softmax layer gives them; derivative -1 / p_y, elsewhere 0.

    PyTorch's NLLLoss takes log-probabilities. This loss takes probabilities, because the last layer's
    activation is 'softmax'. The logarithm is at least -100, and the divisor at least 1e-12.
    `softmax_cross_entropy` on a linear last layer is faster and keeps its gradient everywhere.
    """

    type: Literal["nll"] = "nll"

    targets: ClassVar[TargetKind] = "labels"
    takes: ClassVar[Takes] = "probabilities"
    task: ClassVar[Task] = "classification"

    def faults(
        self, output_shape: Shape, activation: str | None, targets: Targets, layer: str = LAST
    ) -> tuple[str, ...]:
        faults = super().faults(output_shape, activation, targets, layer)
        if activation not in (None, "softmax"):
            faults += (
                f"nll takes the probabilities of a softmax, but {layer} ends in {activation!r};"
                " make its activation 'softmax', or 'linear' with loss 'softmax_cross_entropy'",
            )
        return faults

    def op(self, outputs: int) -> LossOp:
        return LossOp("nll", (1.0, 1.0))


@dataclass(frozen=True)
class Hinge(LossFacts):
    """max(0, margin - z_y + z_j)^power, summed over the classes j other than y, divided by `classes`.

    The multi-class margin loss of Weston and Watkins (1999) on scores z: PyTorch's MultiMarginLoss. Two
    classes need two outputs. The scores are not logits: their softmax is not a probability.
    """

    type: Literal["hinge"] = "hinge"
    margin: float = option(1.0, help="by how much the right class should lead", gt=0)
    power: Literal[1, 2] = option(1, help="1: linear, 2: squared")

    targets: ClassVar[TargetKind] = "labels"
    takes: ClassVar[Takes] = "scores"
    task: ClassVar[Task] = "classification"

    def constant(self, mean: Array, median: Array) -> Array:
        return np.where(mean == mean.max(), self.margin, 0.0)

    def op(self, outputs: int) -> LossOp:
        return LossOp("hinge", (1 / outputs, 1 / outputs, self.margin), (self.power,))
