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

    Computed as max(z, 0) - z t + log(1 + exp(-|z|)), which neither overflows nor loses the small losses:
    PyTorch's BCEWithLogitsLoss.
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

    def bind(self, rows: int, output_shape: Shape, dtype: np.dtype[Any], kernels: Kernels) -> LossFunction:
        factor = _factor(self.outputs, output_shape)
        return bind_elementwise(rows, output_shape, dtype, _on_logits, factor, factor)


def _factor(outputs: str, output_shape: Shape) -> float:
    return 1 / output_shape[0] if outputs == "mean" else 1.0


def _on_logits(z: Array, t: Array, losses: Array, d: Array) -> None:
    np.copysign(z, -1, out=losses)
    np.exp(losses, out=losses)
    np.log1p(losses, out=losses)
    np.maximum(z, 0, out=d)
    np.add(losses, d, out=losses)
    np.multiply(z, t, out=d)
    np.subtract(losses, d, out=losses)
    # s(z) = (1 + tanh(z / 2)) / 2, which cannot overflow.
    np.multiply(z, 0.5, out=d)
    np.tanh(d, out=d)
    np.multiply(d, 0.5, out=d)
    np.add(d, 0.5, out=d)
    np.subtract(d, t, out=d)


# PyTorch's bounds: no logarithm under -100, no derivative divided by less than 1e-12.
_LOWEST_LOG = -100
_SMALLEST_DIVISOR = 1e-12


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
            np.maximum(d, _SMALLEST_DIVISOR, out=d)
            np.subtract(p, t, out=scratch)
            np.divide(scratch, d, out=d)

        factor = _factor(self.outputs, output_shape)
        return bind_elementwise(rows, output_shape, dtype, formula, -factor, factor)
