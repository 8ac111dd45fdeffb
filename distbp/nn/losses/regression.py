"""Losses between numbers and numbers, simplest first. Derivatives with respect to the output y, target t.

PyTorch's conventions: mean over the outputs of a row, except `quadratic`, which sums them.
"""

from __future__ import annotations

import math
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
    bind_elementwise,
    common_faults,
)
from distbp.options import option


@dataclass(frozen=True)
class Quadratic:
    """Half the sum of squares over the outputs: (y - t)^2 / 2, derivative y - t.

    The cost of the worked examples and textbooks (Rumelhart, Hinton and Williams, 1986). `mse` is this, times
    two, divided by the number of outputs.
    """

    type: Literal["quadratic"] = "quadratic"

    targets: ClassVar[TargetKind] = "values"
    takes: ClassVar[Takes] = "outputs"
    task: ClassVar[Task] = "regression"
    allowed: ClassVar[tuple[float, float]] = ANY_VALUE

    def faults(self, output_shape: Shape, activation: str | None, targets: Targets) -> tuple[str, ...]:
        return common_faults(self, output_shape, activation, targets)

    def constant(self, mean: Array, median: Array) -> Array:
        return mean

    def predictions(self, outputs: Array) -> Array:
        return outputs

    def bind(self, rows: int, output_shape: Shape, dtype: np.dtype[Any], kernels: Kernels) -> LossFunction:
        return bind_elementwise(rows, output_shape, dtype, _squares, 0.5)


@dataclass(frozen=True)
class MSE:
    """The mean over the outputs of (y - t)^2, derivative 2 (y - t) / outputs: PyTorch's MSELoss."""

    type: Literal["mse"] = "mse"

    targets: ClassVar[TargetKind] = "values"
    takes: ClassVar[Takes] = "outputs"
    task: ClassVar[Task] = "regression"
    allowed: ClassVar[tuple[float, float]] = ANY_VALUE

    def faults(self, output_shape: Shape, activation: str | None, targets: Targets) -> tuple[str, ...]:
        return common_faults(self, output_shape, activation, targets)

    def constant(self, mean: Array, median: Array) -> Array:
        return mean

    def predictions(self, outputs: Array) -> Array:
        return outputs

    def bind(self, rows: int, output_shape: Shape, dtype: np.dtype[Any], kernels: Kernels) -> LossFunction:
        outputs = output_shape[0]
        return bind_elementwise(rows, output_shape, dtype, _squares, 1 / outputs, 2 / outputs)


def _squares(y: Array, t: Array, losses: Array, d: Array) -> None:
    np.subtract(y, t, out=d)
    np.multiply(d, d, out=losses)


@dataclass(frozen=True)
class MAE:
    """The mean over the outputs of |y - t|: PyTorch's L1Loss. The derivative is the sign; 0 where y = t."""

    type: Literal["mae"] = "mae"

    targets: ClassVar[TargetKind] = "values"
    takes: ClassVar[Takes] = "outputs"
    task: ClassVar[Task] = "regression"
    allowed: ClassVar[tuple[float, float]] = ANY_VALUE

    def faults(self, output_shape: Shape, activation: str | None, targets: Targets) -> tuple[str, ...]:
        return common_faults(self, output_shape, activation, targets)

    def constant(self, mean: Array, median: Array) -> Array:
        return median

    def predictions(self, outputs: Array) -> Array:
        return outputs

    def bind(self, rows: int, output_shape: Shape, dtype: np.dtype[Any], kernels: Kernels) -> LossFunction:
        def formula(y: Array, t: Array, losses: Array, d: Array) -> None:
            np.subtract(y, t, out=d)
            np.absolute(d, out=losses)
            np.sign(d, out=d)

        mean = 1 / output_shape[0]
        return bind_elementwise(rows, output_shape, dtype, formula, mean, mean)


@dataclass(frozen=True)
class Huber:
    """Squares near the target, straight lines beyond `delta` (Huber, 1964); the mean over the outputs.

    (y - t)^2 / 2 where |y - t| <= delta, else delta (|y - t| - delta / 2): PyTorch's HuberLoss (its
    SmoothL1Loss is this divided by delta).
    """

    type: Literal["huber"] = "huber"
    delta: float = option(1.0, help="errors beyond this size count linearly", gt=0)

    targets: ClassVar[TargetKind] = "values"
    takes: ClassVar[Takes] = "outputs"
    task: ClassVar[Task] = "regression"
    allowed: ClassVar[tuple[float, float]] = ANY_VALUE

    def faults(self, output_shape: Shape, activation: str | None, targets: Targets) -> tuple[str, ...]:
        return common_faults(self, output_shape, activation, targets)

    def constant(self, mean: Array, median: Array) -> Array:
        return median

    def predictions(self, outputs: Array) -> Array:
        return outputs

    def bind(self, rows: int, output_shape: Shape, dtype: np.dtype[Any], kernels: Kernels) -> LossFunction:
        delta = self.delta

        def formula(y: Array, t: Array, losses: Array, d: Array) -> None:
            # With e = y - t and c = e clipped to +-delta, both branches are c (2e - c) / 2.
            np.subtract(y, t, out=losses)
            np.maximum(losses, -delta, out=d)
            np.minimum(d, delta, out=d)
            np.multiply(losses, 2, out=losses)
            np.subtract(losses, d, out=losses)
            np.multiply(losses, d, out=losses)

        mean = 1 / output_shape[0]
        return bind_elementwise(rows, output_shape, dtype, formula, mean / 2, mean)


# What keeps log(y) and 1 / y finite at y = 0; PyTorch's default.
_POISSON_EPSILON = 1e-8
_MAY_BE_NEGATIVE = ("linear", "tanh", "leaky_relu", "elu", "gelu", "silu")


@dataclass(frozen=True)
class Poisson:
    """The negative log-likelihood of counts t, without the constant log t!; the mean over the outputs.

    With `log_input` the output is the logarithm of the rate: exp(y) - t y, derivative exp(y) - t. Without,
    it is the rate: y - t log(y + 1e-8), derivative 1 - t / (y + 1e-8). PyTorch's PoissonNLLLoss(full=False).
    """

    type: Literal["poisson"] = "poisson"
    log_input: bool = option(True, help="the network gives the logarithm of the rate, not the rate")

    targets: ClassVar[TargetKind] = "values"
    takes: ClassVar[Takes] = "outputs"
    task: ClassVar[Task] = "regression"
    allowed: ClassVar[tuple[float, float]] = (0, math.inf)

    def faults(self, output_shape: Shape, activation: str | None, targets: Targets) -> tuple[str, ...]:
        faults = common_faults(self, output_shape, activation, targets)
        if not self.log_input and activation in _MAY_BE_NEGATIVE:
            faults += (
                "poisson with log_input: false takes rates, which are positive, but the last layer ends in"
                f" {activation!r}; make its activation 'softplus', or set log_input: true",
            )
        return faults

    def constant(self, mean: Array, median: Array) -> Array:
        return np.log(mean + _POISSON_EPSILON) if self.log_input else mean

    def predictions(self, outputs: Array) -> Array:
        return np.exp(outputs) if self.log_input else outputs

    def bind(self, rows: int, output_shape: Shape, dtype: np.dtype[Any], kernels: Kernels) -> LossFunction:
        mean = 1 / output_shape[0]
        if self.log_input:
            return bind_elementwise(rows, output_shape, dtype, _poisson_of_logs, mean, mean)
        rates = np.empty((rows, *output_shape), dtype)

        def formula(y: Array, t: Array, losses: Array, d: Array) -> None:
            np.add(y, _POISSON_EPSILON, out=rates)
            np.log(rates, out=losses)
            np.multiply(losses, t, out=losses)
            np.subtract(y, losses, out=losses)
            np.divide(t, rates, out=d)
            np.subtract(1, d, out=d)

        return bind_elementwise(rows, output_shape, dtype, formula, mean, mean)


def _poisson_of_logs(y: Array, t: Array, losses: Array, d: Array) -> None:
    np.exp(y, out=d)
    np.multiply(y, t, out=losses)
    np.subtract(d, losses, out=losses)
    np.subtract(d, t, out=d)
