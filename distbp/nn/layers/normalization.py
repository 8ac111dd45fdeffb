"""Batch and layer normalization: y = scale * n + shift, with n = (x - mean) / sqrt(variance + epsilon).

Features lie on the last axis, or are the channels of images. With g = dy * scale, the gradient of both layers
is dx = (g - average(g) - n * average(g * n)) / sqrt(variance + epsilon). Averages run over the same numbers
as mean and variance (Ioffe and Szegedy, ICML 2015, section 3). The variance that normalizes is biased.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from distbp.core.options import option
from distbp.nn.initializers import Constant, Zeros
from distbp.nn.layers.base import (
    ABSENT,
    Backward,
    Channels,
    LayerFacts,
    Lengths,
    Lowering,
    ParameterSpec,
    Shape,
    StatisticSpec,
    Value,
    no_backward,
)
from distbp.nn.tape import Ref


def _features(kind: str, input_shape: Shape, axis: int = -1) -> int:
    if not input_shape:
        raise ValueError(f"{kind} needs features on the last axis, but a sample is a single number")
    axes = len(input_shape)
    if axis not in (-1, axes - 1) and (axes, axis) not in ((3, 0), (3, -3)):
        raise ValueError(
            f"axis is {axis}, but must be -1, the last axis, or 0, the channels of images; the input has"
            f" shape {list(input_shape)}"
        )
    return input_shape[axis]


def _scale_and_shift(features: int) -> tuple[ParameterSpec, ...]:
    ones, shape = Constant(value=1.0), (features,)
    return (
        ParameterSpec("scale", shape, ones, features, features, decays=False),
        ParameterSpec("shift", shape, Zeros(), features, features, decays=False),
    )


@dataclass(frozen=True, kw_only=True)
class BatchNormalization(LayerFacts):
    """Each feature is normalized over the rows (and positions) of the slice that one shard computes. With
    `axis: 0` the features are the channels of images, as of `torch.nn.BatchNorm2d`.

    So the statistics depend on `batch_size` and `shards`, which belong to the job, and never on the
    workers. The conventions are PyTorch's: running <- (1 - momentum) * running + momentum * new (Keras:
    momentum is the share kept), epsilon inside the root, the running variance unbiased. A slice of one row
    (in PyTorch an error) has no unbiased variance, so it adds nothing to the running statistics. A single
    value of a feature is normalized to 0. Evaluation normalizes with the running statistics, which the server
    averages over the shards, weighted by rows.
    """

    trains: ClassVar[bool] = True
    rescales: ClassVar[bool] = True
    rows_needed: ClassVar[int] = 2

    type: Literal["batch_normalization"] = "batch_normalization"
    momentum: float = option(0.1, help="share of the new batch in the running statistics", gt=0, le=1)
    epsilon: float = option(1e-5, help="added to the variance", gt=0)
    axis: int = option(-1, help="of the features: -1, the last one, or 0, the channels of images")

    @property
    def channels(self) -> Channels:
        return "first" if self.axis in (-1, 2) else "last"

    def _features(self, input_shape: Shape) -> int:
        return _features(self.type, input_shape, self.axis)

    def output_shape(self, input_shape: Shape) -> Shape:
        self._features(input_shape)
        return input_shape

    def parameters(self, input_shape: Shape) -> tuple[ParameterSpec, ...]:
        return _scale_and_shift(self._features(input_shape))

    def statistics(self, input_shape: Shape) -> tuple[StatisticSpec, ...]:
        shape = (self._features(input_shape),)
        return (
            StatisticSpec("mean", shape, 0.0, self.momentum),
            StatisticSpec("variance", shape, 1.0, self.momentum),
        )

    def flops(self, input_shape: Shape) -> float:
        return 12.0 * math.prod(input_shape)

    def lower(self, low: Lowering, x: Value) -> tuple[Value, Backward]:
        flat, features = _by_feature(x, self.axis)
        y = low.tape.like(flat)
        scale, shift = low.parameters["scale"], low.parameters["shift"]
        if not low.training:
            low.tape.emit(
                "batch_norm_running", flat, scale, shift,
                low.statistics["mean"], low.statistics["variance"], y, real=(self.epsilon,),
            )  # fmt: skip
            return x._replace(ref=y.reshaped(x.ref.columns, 1)), no_backward
        normalized, root = low.tape.like(flat), low.tape.work(features, 0, 1)
        low.tape.emit(
            "batch_norm", flat, scale, shift, normalized, root, y,
            low.statistic_sums["mean"], low.statistic_sums["variance"],
            whole=(flat.times,), real=(self.epsilon,),
        )  # fmt: skip
        return x._replace(ref=y.reshaped(x.ref.columns, 1)), _backward("batch_norm", low, normalized, root)


@dataclass(frozen=True, kw_only=True)
class LayerNormalization(LayerFacts):
    """Each sample is normalized over its last axis (Ba, Kiros and Hinton, 2016): of (steps, features) each
    step over its features.

    As `torch.nn.LayerNorm(features)`: epsilon inside the root, one scale and shift for each feature. A row
    does not depend on other rows, so training and evaluation compute the same.
    """

    trains: ClassVar[bool] = True
    rescales: ClassVar[bool] = True

    type: Literal["layer_normalization"] = "layer_normalization"
    epsilon: float = option(1e-5, help="added to the variance", gt=0)

    @property
    def lengths(self) -> Lengths:
        return "keep"

    def output_shape(self, input_shape: Shape) -> Shape:
        _features("layer_normalization", input_shape)
        return input_shape

    def parameters(self, input_shape: Shape) -> tuple[ParameterSpec, ...]:
        return _scale_and_shift(_features("layer_normalization", input_shape))

    def flops(self, input_shape: Shape) -> float:
        return 12.0 * math.prod(input_shape)

    def lower(self, low: Lowering, x: Value) -> tuple[Value, Backward]:
        flat, _ = _by_feature(x, -1)
        y, normalized, root = low.tape.like(flat), low.tape.like(flat), low.tape.work(1, flat.times)
        scale, shift = low.parameters["scale"], low.parameters["shift"]
        low.tape.emit("layer_norm", flat, scale, shift, normalized, root, y, real=(self.epsilon,))
        return Value(y.reshaped(x.ref.columns, 1), x.shape), _backward("layer_norm", low, normalized, root)


def _by_feature(x: Value, axis: int) -> tuple[Ref, int]:
    """Returns the matrix whose columns are the features, and their number. axis: that of the features, which
    lies last in memory."""
    features = x.shape[axis]
    return x.ref.reshaped(features, x.ref.columns // features), features


def _backward(kind: str, low: Lowering, normalized: Ref, root: Ref) -> Backward:
    def backward(dy: Ref) -> tuple[Ref | None]:
        flat = dy.reshaped(normalized.columns, normalized.times)
        low.tape.emit(
            f"{kind}_backward", flat, normalized, root, low.parameters["scale"],
            low.gradients["scale"], low.gradients["shift"], flat if low.wanted[0] else ABSENT,
        )  # fmt: skip
        return (dy if low.wanted[0] else None,)

    return backward
