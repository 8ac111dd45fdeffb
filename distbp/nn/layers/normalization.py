"""Batch and layer normalization. Features stand on the last axis; y = scale * normalized(x) + shift.

With n = (x - mean) / sqrt(variance + epsilon) and g = dy * scale, the gradient in both is
dx = (g - average(g) - n * average(g * n)) / sqrt(variance + epsilon), averaged over what the statistics are
taken over (Ioffe and Szegedy, ICML 2015, section 3). The variance that normalizes is the biased one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from distbp.nn.initializers import Constant, Zeros
from distbp.nn.layers.base import Array, Binding, Bound, ParameterSpec, Shape, StatisticSpec, no_backward
from distbp.options import option


def _features(kind: str, input_shape: Shape) -> int:
    if not input_shape:
        raise ValueError(f"{kind} needs features on the last axis, but a sample is a single number")
    return input_shape[-1]


def _scale_and_shift(features: int) -> tuple[ParameterSpec, ...]:
    ones, shape = Constant(value=1.0), (features,)
    return (
        ParameterSpec("scale", shape, ones, features, features, decays=False),
        ParameterSpec("shift", shape, Zeros(), features, features, decays=False),
    )


@dataclass(frozen=True, kw_only=True)
class BatchNormalization:
    """Each feature is normalized over the rows (and positions) of the slice that one shard computes.

    So the statistics depend on `batch_size` and `shards`, which belong to the job, and never on the
    workers. The conventions are PyTorch's: running <- (1 - momentum) * running + momentum * new (Keras:
    momentum is the share kept), epsilon inside the root, the running variance unbiased. A slice of one row
    (in PyTorch an error) says nothing of a variance: it adds nothing to the running statistics. One value of
    a feature is normalized to 0.
    Evaluation normalizes with the running statistics, which the server averages over the shards by rows.
    """

    type: Literal["batch_normalization"] = "batch_normalization"
    momentum: float = option(0.1, help="share of the new batch in the running statistics", gt=0, le=1)
    epsilon: float = option(1e-5, help="added to the variance", gt=0)

    def output_shape(self, input_shape: Shape) -> Shape:
        _features("batch_normalization", input_shape)
        return input_shape

    def parameters(self, input_shape: Shape) -> tuple[ParameterSpec, ...]:
        return _scale_and_shift(_features("batch_normalization", input_shape))

    def statistics(self, input_shape: Shape) -> tuple[StatisticSpec, ...]:
        shape = (_features("batch_normalization", input_shape),)
        return (
            StatisticSpec("mean", shape, 0.0, self.momentum),
            StatisticSpec("variance", shape, 1.0, self.momentum),
        )

    def bind(self, binding: Binding) -> Bound:
        return _bind_training(self, binding) if binding.training else _bind_evaluation(self, binding)


def _bind_evaluation(layer: BatchNormalization, binding: Binding) -> Bound:
    scale, shift = binding.parameters["scale"], binding.parameters["shift"]
    mean, variance = binding.statistics["mean"], binding.statistics["variance"]
    y = binding.empty(binding.rows, *binding.input_shape)
    factor = binding.empty(*scale.shape)

    def forward(x: Array) -> Array:
        np.add(variance, layer.epsilon, out=factor)
        np.sqrt(factor, out=factor)
        np.divide(scale, factor, out=factor)
        np.subtract(x, mean, out=y)
        np.multiply(y, factor, out=y)
        np.add(y, shift, out=y)
        return y

    return Bound(forward, no_backward)


def _bind_training(layer: BatchNormalization, binding: Binding) -> Bound:
    scale, shift = binding.parameters["scale"], binding.parameters["shift"]
    d_scale, d_shift = binding.gradients["scale"], binding.gradients["shift"]
    mean_sum, variance_sum = binding.statistic_sums["mean"], binding.statistic_sums["variance"]
    rows, shape, features = binding.rows, (binding.rows, *binding.input_shape), binding.input_shape[-1]
    count = math.prod(shape) // features  # values of one feature in the slice
    counted = rows if rows > 1 else 0  # as in `Worker`, whose sum of rows the server divides by
    unbiased = counted * count / max(1, count - 1)
    normalized = binding.empty(count, features)
    y, products = binding.empty(count, features), binding.empty(count, features)
    y_shaped = y.reshape(shape)
    statistic, root = binding.empty(features), binding.empty(features)

    def forward(x: Array) -> Array:
        flat = x.reshape(count, features)
        np.add.reduce(flat, axis=0, out=statistic)
        np.divide(statistic, count, out=statistic)
        np.multiply(statistic, counted, out=mean_sum)
        np.subtract(flat, statistic, out=normalized)
        np.multiply(normalized, normalized, out=y)
        np.add.reduce(y, axis=0, out=statistic)
        np.divide(statistic, count, out=statistic)
        np.multiply(statistic, unbiased, out=variance_sum)
        np.add(statistic, layer.epsilon, out=root)
        np.sqrt(root, out=root)
        np.divide(normalized, root, out=normalized)
        np.multiply(normalized, scale, out=y)
        np.add(y, shift, out=y)
        return y_shaped

    def backward(dy: Array) -> Array | None:
        flat = dy.reshape(count, features)
        np.multiply(flat, normalized, out=products)
        np.add.reduce(products, axis=0, out=d_scale)
        np.add.reduce(flat, axis=0, out=d_shift)
        if not binding.needs_input_gradient:
            return None
        np.divide(d_shift, count, out=statistic)
        np.subtract(flat, statistic, out=flat)
        np.divide(d_scale, count, out=statistic)
        np.multiply(normalized, statistic, out=normalized)
        np.subtract(flat, normalized, out=flat)
        np.divide(scale, root, out=root)
        np.multiply(flat, root, out=flat)
        return dy

    return Bound(forward, backward)


@dataclass(frozen=True, kw_only=True)
class LayerNormalization:
    """Each sample is normalized over its last axis (Ba, Kiros and Hinton, 2016).

    As `torch.nn.LayerNorm(features)`: epsilon inside the root, one scale and shift for each feature. Nothing
    depends on the other rows, so training and evaluation are the same.
    """

    type: Literal["layer_normalization"] = "layer_normalization"
    epsilon: float = option(1e-5, help="added to the variance", gt=0)

    def output_shape(self, input_shape: Shape) -> Shape:
        _features("layer_normalization", input_shape)
        return input_shape

    def parameters(self, input_shape: Shape) -> tuple[ParameterSpec, ...]:
        return _scale_and_shift(_features("layer_normalization", input_shape))

    def statistics(self, input_shape: Shape) -> tuple[StatisticSpec, ...]:
        return ()

    def bind(self, binding: Binding) -> Bound:
        scale, shift = binding.parameters["scale"], binding.parameters["shift"]
        shape, features = (binding.rows, *binding.input_shape), binding.input_shape[-1]
        count = math.prod(shape) // features
        normalized, y = binding.empty(count, features), binding.empty(count, features)
        products = binding.empty(count, features)
        y_shaped = y.reshape(shape)
        statistic, root = binding.empty(count, 1), binding.empty(count, 1)

        def forward(x: Array) -> Array:
            flat = x.reshape(count, features)
            np.add.reduce(flat, axis=1, keepdims=True, out=statistic)
            np.divide(statistic, features, out=statistic)
            np.subtract(flat, statistic, out=normalized)
            np.multiply(normalized, normalized, out=y)
            np.add.reduce(y, axis=1, keepdims=True, out=root)
            np.divide(root, features, out=root)
            np.add(root, self.epsilon, out=root)
            np.sqrt(root, out=root)
            np.divide(normalized, root, out=normalized)
            np.multiply(normalized, scale, out=y)
            np.add(y, shift, out=y)
            return y_shaped

        if not binding.training:
            return Bound(forward, no_backward)
        d_scale, d_shift = binding.gradients["scale"], binding.gradients["shift"]

        def backward(dy: Array) -> Array | None:
            flat = dy.reshape(count, features)
            np.multiply(flat, normalized, out=products)
            np.add.reduce(products, axis=0, out=d_scale)
            np.add.reduce(flat, axis=0, out=d_shift)
            if not binding.needs_input_gradient:
                return None
            np.multiply(flat, scale, out=flat)
            np.multiply(flat, normalized, out=products)
            np.add.reduce(products, axis=1, keepdims=True, out=statistic)
            np.divide(statistic, features, out=statistic)
            np.multiply(normalized, statistic, out=normalized)
            np.add.reduce(flat, axis=1, keepdims=True, out=statistic)
            np.divide(statistic, features, out=statistic)
            np.subtract(flat, statistic, out=flat)
            np.subtract(flat, normalized, out=flat)
            np.divide(flat, root, out=flat)
            return dy

        return Bound(forward, backward)
