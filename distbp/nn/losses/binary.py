"""Losses of independent yes-or-no outputs: one output for a binary task, several for a multi-label task.

Targets t are values from 0 to 1. A row's cross-entropy is the mean over its outputs, as in PyTorch; with
`outputs: sum` it is their sum, as in Nielsen, "Neural Networks and Deep Learning", chapter 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from distbp.core.arrays import Array, Shape
from distbp.core.options import option
from distbp.nn.losses.base import LAST, LossFacts, LossOp, Takes, Targets, Task
from distbp.nn.ops.losses import SMALLEST_DIVISOR as SMALLEST

_OUTPUTS_HELP = "how the outputs of one row combine"


@dataclass(frozen=True)
class SigmoidCrossEntropy(LossFacts):
    """-t log s(z) - (1 - t) log(1 - s(z)) on logits z, s the sigmoid; derivative s(z) - t.

    PyTorch's BCEWithLogitsLoss. Loss and derivative neither overflow nor lose digits near 0.
    """

    type: Literal["sigmoid_cross_entropy"] = "sigmoid_cross_entropy"
    outputs: Literal["mean", "sum"] = option("mean", help=_OUTPUTS_HELP)

    takes: ClassVar[Takes] = "logits"
    task: ClassVar[Task] = "binary"
    allowed: ClassVar[tuple[float, float]] = (0, 1)
    applies: ClassVar[str] = "sigmoid"

    def predictions(self, outputs: Array) -> Array:
        with np.errstate(under="ignore"):
            e = np.exp(-np.absolute(outputs))  # cannot overflow
        return np.asarray(np.where(outputs < 0, e, 1) / (1 + e), outputs.dtype)

    def constant(self, mean: Array, median: Array) -> Array:
        p = np.clip(mean, SMALLEST, 1 - SMALLEST)
        return np.asarray(np.log(p) - np.log1p(-p))

    def outputs_for(self, predictions: Array) -> Array:
        limits = np.finfo(predictions.dtype)
        p = np.clip(predictions, limits.tiny, 1 - limits.epsneg)
        return np.asarray(np.log(p) - np.log1p(-p))

    def op(self, outputs: int) -> LossOp:
        return LossOp("sigmoid_cross_entropy", _factors(self.outputs, outputs))


def _factors(combine: str, outputs: int) -> tuple[float, float]:
    factor = 1 / outputs if combine == "mean" else 1.0
    return factor, factor


@dataclass(frozen=True)
class BinaryCrossEntropy(LossFacts):
    """-t log p - (1 - t) log(1 - p) on probabilities p, as a sigmoid layer gives them.

    PyTorch's BCELoss: the logarithms are at least -100; the derivative is (p - t) / max(p (1 - p), 1e-12). If
    the sigmoid has saturated, its gradient is 0; `sigmoid_cross_entropy` does not have this limit.
    """

    type: Literal["binary_cross_entropy"] = "binary_cross_entropy"
    outputs: Literal["mean", "sum"] = option("mean", help=_OUTPUTS_HELP)

    takes: ClassVar[Takes] = "probabilities"
    task: ClassVar[Task] = "binary"
    allowed: ClassVar[tuple[float, float]] = (0, 1)

    def faults(
        self, output_shape: Shape, activation: str | None, targets: Targets, layer: str = LAST
    ) -> tuple[str, ...]:
        faults = super().faults(output_shape, activation, targets, layer)
        if activation not in (None, "sigmoid"):
            faults += (
                f"binary_cross_entropy takes probabilities of independent outputs, but {layer} ends in"
                f" {activation!r}; make its activation 'sigmoid', or 'linear' with loss"
                " 'sigmoid_cross_entropy'",
            )
        return faults

    def op(self, outputs: int) -> LossOp:
        return LossOp("binary_cross_entropy", _factors(self.outputs, outputs))


@dataclass(frozen=True)
class Perceptron(LossFacts):
    """(y - t) z, y = 1 where z > 0, else 0: how far a wrong output is on the wrong side; derivative y - t.

    Gradient descent on this loss is Rosenblatt's rule for step units, w <- w + rate (t - y) x (F. Rosenblatt,
    Psychological Review 65, 1958). Descent through the step itself would not learn, because its derivative is
    0. With batches of one row and initial weights of 0, if the classes are linearly separable, all answers
    are right after at most (R / margin)^2 corrections (A. Novikoff, 1962), where the bias counts as the
    weight of one more input, 1. A row's loss is the sum over its outputs.
    """

    type: Literal["perceptron"] = "perceptron"

    takes: ClassVar[Takes] = "scores"
    task: ClassVar[Task] = "binary"
    allowed: ClassVar[tuple[float, float]] = (0, 1)

    def predictions(self, outputs: Array) -> Array:
        return np.asarray(outputs > 0, outputs.dtype)

    def outputs_for(self, predictions: Array) -> Array:
        return predictions - 0.5  # positive if most members of an ensemble predict 1

    def constant(self, mean: Array, median: Array) -> Array:
        # Outputs of 0 would cost nothing, but decide nothing. So only -1 and 1 are compared.
        return np.where(mean > 0.5, 1.0, -1.0)

    def op(self, outputs: int) -> LossOp:
        return LossOp("perceptron", (1.0, 1.0))
