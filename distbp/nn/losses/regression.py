"""Losses of regression, simplest first. Derivatives are with respect to the output y; t is the target.

As in PyTorch, a row's loss is the mean over its outputs, except for `quadratic`, which is their sum.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from distbp.core.arrays import Array, Shape
from distbp.core.options import option
from distbp.nn.activations import ACTIVATIONS
from distbp.nn.losses.base import LAST, LossFacts, LossOp, Targets
from distbp.nn.ops.losses import POISSON_EPSILON


@dataclass(frozen=True)
class Quadratic(LossFacts):
    """Half the sum of squares over the outputs: (y - t)^2 / 2, derivative y - t.

    The cost in worked examples and textbooks (Rumelhart, Hinton and Williams, 1986). `mse` is this cost times
    2, divided by the number of outputs.
    """

    type: Literal["quadratic"] = "quadratic"

    def op(self, outputs: int) -> LossOp:
        return LossOp("squares", (0.5, 1.0))


@dataclass(frozen=True)
class MSE(LossFacts):
    """The mean over the outputs of (y - t)^2, derivative 2 (y - t) / outputs: PyTorch's MSELoss."""

    type: Literal["mse"] = "mse"

    def op(self, outputs: int) -> LossOp:
        return LossOp("squares", (1 / outputs, 2 / outputs))


@dataclass(frozen=True)
class MAE(LossFacts):
    """The mean over the outputs of |y - t|: PyTorch's L1Loss. The derivative is the sign; 0 where y = t."""

    type: Literal["mae"] = "mae"

    def constant(self, mean: Array, median: Array) -> Array:
        return median

    def op(self, outputs: int) -> LossOp:
        return LossOp("absolute", (1 / outputs, 1 / outputs))


@dataclass(frozen=True)
class Huber(LossFacts):
    """Squares near the target, straight lines beyond `delta` (Huber, 1964); the mean over the outputs.

    (y - t)^2 / 2 if |y - t| <= delta, else delta (|y - t| - delta / 2). This is PyTorch's HuberLoss; its
    SmoothL1Loss is this loss divided by delta.
    """

    type: Literal["huber"] = "huber"
    delta: float = option(1.0, help="errors beyond this size count linearly", gt=0)

    def constant(self, mean: Array, median: Array) -> Array:
        return median

    def op(self, outputs: int) -> LossOp:
        return LossOp("huber", (1 / (2 * outputs), 1 / outputs, self.delta))


@dataclass(frozen=True)
class Poisson(LossFacts):
    """The negative log-likelihood of counts t, without the constant log t!; the mean over the outputs. With
    `log_input` the output is the logarithm of the rate: exp(y) - t y, derivative exp(y) - t. Without, it is
    the rate: y - t log(y + 1e-8), derivative 1 - t / (y + 1e-8).

    PyTorch's PoissonNLLLoss(full=False).
    """

    type: Literal["poisson"] = "poisson"
    log_input: bool = option(True, help="the network gives the logarithm of the rate, not the rate")

    allowed: ClassVar[tuple[float, float]] = (0, math.inf)

    def faults(
        self, output_shape: Shape, activation: str | None, targets: Targets, layer: str = LAST
    ) -> tuple[str, ...]:
        faults = super().faults(output_shape, activation, targets, layer)
        if not self.log_input and activation is not None and not ACTIVATIONS[activation].positive:
            faults += (
                f"poisson with log_input: false takes rates, which are positive, but {layer} ends in"
                f" {activation!r}; make its activation 'softplus', or set log_input: true",
            )
        return faults

    def constant(self, mean: Array, median: Array) -> Array:
        return np.log(mean + POISSON_EPSILON) if self.log_input else mean

    def predictions(self, outputs: Array) -> Array:
        return np.exp(outputs) if self.log_input else outputs

    def outputs_for(self, predictions: Array) -> Array:
        if not self.log_input:
            return predictions
        return np.asarray(np.log(np.maximum(predictions, np.finfo(predictions.dtype).tiny)))

    def op(self, outputs: int) -> LossOp:
        return LossOp("poisson_log" if self.log_input else "poisson", (1 / outputs, 1 / outputs))
