"""Cross-entropy of independent yes-or-no outputs; one output is binary, many are multi-label.

Targets t are values from 0 to 1. A row's loss is the mean over its outputs, as in PyTorch, or with
`outputs: sum` their sum, as in Nielsen, "Neural Networks and Deep Learning", chapter 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from distbp.nn.arrays import Array, Shape
from distbp.nn.kernels import Kernels
from distbp.nn.losses.base import (
    LossFunction,
    Takes,
    TargetKind,
    Targets,
    Task,
    bind_elementwise,
    common_faults,
)
from distbp.options import option

_OUTPUTS_HELP = "how the outputs of one row combine"


@dataclass(frozen=True)
class SigmoidCrossEntropy:
    """-t log s(z) - (1 - t) log(1 - s(z)) on logits z, s the sigmoid; derivative s(z) - t.

    Neither overflows, nor loses small losses and derivatives: PyTorch's BCEWithLogitsLoss.
    """

    type: Literal["sigmoid_cross_entropy"] = "sigmoid_cross_entropy"
    outputs: Literal["mean", "sum"] = option("mean", help=_OUTPUTS_HELP)

    targets: ClassVar[TargetKind] = "values"
    takes: ClassVar[Takes] = "logits"
    task: ClassVar[Task] = "binary"
    allowed: ClassVar[tuple[float, float]] = (0, 1)

    def faults(self, output_shape: Shape, activation: str | None, targets: Targets) -> tuple[str, ...]:
        return common_faults(self, output_shape, activation, targets)

    def predictions(self, outputs: Array) -> Array:
        with np.errstate(under="ignore"):
            e = np.exp(-np.absolute(outputs))  # which cannot overflow
        return np.asarray(np.where(outputs < 0, e, 1) / (1 + e), outputs.dtype)

    def constant(self, mean: Array, median: Array) -> Array:
        p = np.clip(mean, SMALLEST, 1 - SMALLEST)
        return np.asarray(np.log(p) - np.log1p(-p))

    def bind(self, rows: int, output_shape: Shape, dtype: np.dtype[Any], kernels: Kernels) -> LossFunction:
        h = np.empty((rows, *output_shape), dtype)

        def formula(z: Array, t: Array, losses: Array, d: Array) -> None:
            # With the tail q = s(-|z|) and h = 1 for z >= 0, else 0: s(z) - t = (h - t) -+ q, so that a
            # derivative that is nearly 0 keeps its digits; the loss is log(1 + exp(-|z|)) + z (h - t), both
            # terms at least 0.
            np.copysign(z, -1, out=losses)
            np.exp(losses, out=losses)
            np.add(losses, 1, out=d)
            np.divide(losses, d, out=d)
            np.copysign(d, z, out=d)
            np.log1p(losses, out=losses)
            np.copysign(0.5, z, out=h)
            np.add(h, 0.5, out=h)
            np.subtract(h, t, out=h)
            np.subtract(h, d, out=d)
            np.multiply(h, z, out=h)
            np.add(losses, h, out=losses)

        factor = _factor(self.outputs, output_shape)
        return bind_elementwise(rows, output_shape, dtype, formula, factor, factor)


def _factor(outputs: str, output_shape: Shape) -> float:
    return 1 / output_shape[0] if outputs == "mean" else 1.0


# PyTorch's bounds: no logarithm under -100, no derivative divided by less than 1e-12.
_LOWEST_LOG = -100
SMALLEST = 1e-12


@dataclass(frozen=True)
class BinaryCrossEntropy:
    """-t log p - (1 - t) log(1 - p) on probabilities p, as a sigmoid layer gives them.

    The logarithms are held at -100 or more, and the derivative is (p - t) / max(p (1 - p), 1e-12): PyTorch's
    BCELoss. Where the sigmoid has saturated the gradient through it is lost; `sigmoid_cross_entropy` on
    a linear last layer has no such limit.
    """

    type: Literal["binary_cross_entropy"] = "binary_cross_entropy"
    outputs: Literal["mean", "sum"] = option("mean", help=_OUTPUTS_HELP)

    targets: ClassVar[TargetKind] = "values"
    takes: ClassVar[Takes] = "probabilities"
    task: ClassVar[Task] = "binary"
    allowed: ClassVar[tuple[float, float]] = (0, 1)

    def faults(self, output_shape: Shape, activation: str | None, targets: Targets) -> tuple[str, ...]:
        faults = common_faults(self, output_shape, activation, targets)
        if activation not in (None, "sigmoid"):
            faults += (
                "binary_cross_entropy takes probabilities of independent outputs, but the last layer ends in"
                f" {activation!r}; make its activation 'sigmoid', or 'linear' with loss"
                " 'sigmoid_cross_entropy'",
            )
        return faults

    def constant(self, mean: Array, median: Array) -> Array:
        return mean

    def predictions(self, outputs: Array) -> Array:
        return outputs

    def bind(self, rows: int, output_shape: Shape, dtype: np.dtype[Any], kernels: Kernels) -> LossFunction:
        scratch = np.empty((rows, *output_shape), dtype)

        def formula(p: Array, t: Array, losses: Array, d: Array) -> None:
            np.subtract(1, p, out=d)
            with np.errstate(divide="ignore"):  # log(0) is -inf, which becomes -100
                np.log(p, out=losses)
                np.log(d, out=d)
            np.maximum(losses, _LOWEST_LOG, out=losses)
            np.multiply(losses, t, out=losses)
            np.maximum(d, _LOWEST_LOG, out=d)
            np.subtract(1, t, out=scratch)
            np.multiply(d, scratch, out=d)
            np.add(losses, d, out=losses)  # the sign is in the factor
            np.subtract(1, p, out=d)
            np.multiply(d, p, out=d)
            np.maximum(d, SMALLEST, out=d)
            np.subtract(p, t, out=scratch)
            np.divide(scratch, d, out=d)

        factor = _factor(self.outputs, output_shape)
        return bind_elementwise(rows, output_shape, dtype, formula, -factor, factor)
