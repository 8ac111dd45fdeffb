"""Losses that choose one of several classes. Targets are labels y: (rows,) intp, from 0 to classes - 1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from distbp.nn.arrays import Array, Shape
from distbp.nn.kernels import Kernels
from distbp.nn.losses.base import (
    ANY_VALUE,
    LossFunction,
    Takes,
    TargetKind,
    Targets,
    Task,
    common_faults,
    softmax,
    weighted_sum,
)
from distbp.options import option

# PyTorch's bounds for probabilities (see BCELoss): no logarithm under -100, no division by less than 1e-12.
_LOWEST_LOG = -100
SMALLEST = 1e-12


@dataclass(frozen=True)
class SoftmaxCrossEntropy:
    """-log softmax(z)_y on logits z; derivative softmax(z) - onehot(y). PyTorch's CrossEntropyLoss.

    With smoothing s the target is (1 - s) onehot(y) + s / classes (Szegedy et al., 2016). A class weight
    weighs the whole row; PyTorch with both `weight` and `label_smoothing` weighs the smoothed part by each
    class's own weight instead.
    """

    type: Literal["softmax_cross_entropy"] = "softmax_cross_entropy"
    label_smoothing: float = option(
        0.0, help="share of the target spread evenly over all classes", ge=0, lt=1
    )

    targets: ClassVar[TargetKind] = "labels"
    takes: ClassVar[Takes] = "logits"
    task: ClassVar[Task] = "classification"
    allowed: ClassVar[tuple[float, float]] = ANY_VALUE

    def faults(self, output_shape: Shape, activation: str | None, targets: Targets) -> tuple[str, ...]:
        return common_faults(self, output_shape, activation, targets)

    def constant(self, mean: Array, median: Array) -> Array:
        s = self.label_smoothing
        return np.log(np.maximum((1 - s) * mean + s / len(mean), SMALLEST))

    def predictions(self, outputs: Array) -> Array:
        return softmax(outputs)

    def bind(self, rows: int, output_shape: Shape, dtype: np.dtype[Any], kernels: Kernels) -> LossFunction:
        scratch = np.empty((rows, *output_shape), dtype)
        if self.label_smoothing:
            return _smoothed(self.label_smoothing, scratch)
        kernel = kernels.softmax_cross_entropy(rows, output_shape[0], dtype)

        def loss(z: Array, labels: Array, weights: Array | None, d_outputs: Array | None) -> float:
            return kernel(z, labels, weights, scratch if d_outputs is None else d_outputs)

        return loss


def _smoothed(smoothing: float, scratch: Array) -> LossFunction:
    rows, classes = scratch.shape
    row = np.arange(rows)
    highest = np.empty((rows, 1), scratch.dtype)
    total = np.empty((rows, 1), scratch.dtype)
    row_loss, part = np.empty(rows), np.empty(rows)
    on, off = 1 - smoothing, smoothing / classes

    def loss(z: Array, labels: Array, weights: Array | None, d_outputs: Array | None) -> float:
        d = scratch if d_outputs is None else d_outputs
        np.maximum.reduce(z, axis=1, keepdims=True, out=highest)
        np.subtract(z, highest, out=d)
        # log(sum of exp) - on * d_y - off * (sum of d)
        np.multiply(d[row, labels], on, out=row_loss)
        np.add.reduce(d, axis=1, dtype=np.float64, out=part)
        np.multiply(part, off, out=part)
        np.add(row_loss, part, out=part)
        np.exp(d, out=d)
        np.add.reduce(d, axis=1, keepdims=True, out=total)
        np.log(total[:, 0], out=row_loss)
        np.subtract(row_loss, part, out=row_loss)
        np.divide(d, total, out=d)
        np.subtract(d, off, out=d)
        d[row, labels] -= on
        if weights is not None:
            np.multiply(row_loss, weights, out=row_loss)
            np.multiply(d, weights[:, None], out=d)
        return float(np.add.reduce(row_loss))

    return loss


@dataclass(frozen=True)
class NLL:
    """-log p_y on probabilities p, as a softmax layer gives them; derivative -1 / p_y, elsewhere 0.

    PyTorch's NLLLoss takes log-probabilities; this one takes the probabilities themselves, because the last
    layer's activation is 'softmax'. The logarithm is held at -100 or more and the divisor at 1e-12 or
    more. `softmax_cross_entropy` on a linear last layer is faster and keeps its gradient everywhere.
    """

    type: Literal["nll"] = "nll"

    targets: ClassVar[TargetKind] = "labels"
    takes: ClassVar[Takes] = "probabilities"
    task: ClassVar[Task] = "classification"
    allowed: ClassVar[tuple[float, float]] = ANY_VALUE

    def faults(self, output_shape: Shape, activation: str | None, targets: Targets) -> tuple[str, ...]:
        faults = common_faults(self, output_shape, activation, targets)
        if activation not in (None, "softmax"):
            faults += (
                f"nll takes the probabilities of a softmax, but the last layer ends in {activation!r};"
                " make its activation 'softmax', or 'linear' with loss 'softmax_cross_entropy'",
            )
        return faults

    def constant(self, mean: Array, median: Array) -> Array:
        return mean

    def predictions(self, outputs: Array) -> Array:
        return outputs

    def bind(self, rows: int, output_shape: Shape, dtype: np.dtype[Any], kernels: Kernels) -> LossFunction:
        row = np.arange(rows)
        row_loss = np.empty(rows)
        derivative = np.empty(rows, dtype)

        def loss(p: Array, labels: Array, weights: Array | None, d_outputs: Array | None) -> float:
            chosen = p[row, labels]
            with np.errstate(divide="ignore"):  # log(0) is -inf, which becomes -100
                np.log(chosen, out=row_loss)
            np.maximum(row_loss, _LOWEST_LOG, out=row_loss)
            if weights is not None:
                np.multiply(row_loss, weights, out=row_loss)
            if d_outputs is not None:
                np.maximum(chosen, SMALLEST, out=derivative)
                np.divide(-1 if weights is None else -weights, derivative, out=derivative)
                d_outputs.fill(0)
                d_outputs[row, labels] = derivative
            return -float(np.add.reduce(row_loss))

        return loss


@dataclass(frozen=True)
class Hinge:
    """max(0, margin - z_y + z_j)^power, summed over the classes j other than y, divided by `classes`.

    The multi-class margin loss of Weston and Watkins (1999) on scores z: PyTorch's MultiMarginLoss. Two
    classes take two outputs. The scores are no logits: their softmax is not a probability.
    """

    type: Literal["hinge"] = "hinge"
    margin: float = option(1.0, help="by how much the right class should lead", gt=0)
    power: Literal[1, 2] = option(1, help="1: linear, 2: squared")

    targets: ClassVar[TargetKind] = "labels"
    takes: ClassVar[Takes] = "scores"
    task: ClassVar[Task] = "classification"
    allowed: ClassVar[tuple[float, float]] = ANY_VALUE

    def faults(self, output_shape: Shape, activation: str | None, targets: Targets) -> tuple[str, ...]:
        return common_faults(self, output_shape, activation, targets)

    def constant(self, mean: Array, median: Array) -> Array:
        return np.where(mean == mean.max(), self.margin, 0.0)

    def predictions(self, outputs: Array) -> Array:
        return outputs

    def bind(self, rows: int, output_shape: Shape, dtype: np.dtype[Any], kernels: Kernels) -> LossFunction:
        margin, squared, mean = self.margin, self.power == 2, 1 / output_shape[0]
        row = np.arange(rows)
        right = np.empty(rows, dtype)
        losses = np.empty((rows, *output_shape), dtype)
        scratch = np.empty((rows, *output_shape), dtype)
        total = weighted_sum(rows)

        def loss(z: Array, labels: Array, weights: Array | None, d_outputs: Array | None) -> float:
            d = scratch if d_outputs is None else d_outputs
            np.subtract(margin, z[row, labels], out=right)
            np.add(z, right[:, None], out=losses)
            np.maximum(losses, 0, out=losses)
            losses[row, labels] = 0
            if squared:
                np.multiply(losses, 2 * mean, out=d)
                np.multiply(losses, losses, out=losses)
            else:
                np.greater(losses, 0, out=d, casting="unsafe")
                np.multiply(d, mean, out=d)
            np.add.reduce(d, axis=1, out=right)
            d[row, labels] -= right
            if weights is not None:
                np.multiply(d, weights[:, None], out=d)
            return mean * total(losses, weights)

        return loss
