"""Dropout (Srivastava et al., JMLR 15, 2014), inverted: kept values are scaled up while training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from distbp.nn.layers.base import Array, Binding, Bound, ParameterSpec, Shape, StatisticSpec, no_backward
from distbp.options import option

_LEVELS = 1 << 16  # one random number of 16 bits decides over one value


@dataclass(frozen=True, kw_only=True)
class Dropout:
    """While training, each value is set to 0 with probability `rate`, else multiplied by 1 / (1 - rate).

    `rate` is the share DROPPED, as in PyTorch and Keras. It is rounded to a multiple of 1 / 65536, and the
    factor is exact for the rounded rate. The mask is a pure function of the job's seed, the step, the shard
    and the layer's number, and the same for both dtypes. In evaluation the layer passes its input on.
    """

    type: Literal["dropout"] = "dropout"
    rate: float = option(0.5, help="share of the values that is dropped", ge=0, lt=1)

    def output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def parameters(self, input_shape: Shape) -> tuple[ParameterSpec, ...]:
        return ()

    def statistics(self, input_shape: Shape) -> tuple[StatisticSpec, ...]:
        return ()

    def bind(self, binding: Binding) -> Bound:
        dropped = min(round(self.rate * _LEVELS), _LEVELS - 1)
        if not binding.training:
            return Bound(lambda x: x, no_backward)
        if dropped == 0:
            return Bound(lambda x: x, lambda dy: dy if binding.needs_input_gradient else None)
        shape = (binding.rows, *binding.input_shape)
        y, factors = binding.empty(*shape), binding.empty(*shape)
        factor = _LEVELS / (_LEVELS - dropped)
        words = -(-y.size * 2 // 8)
        position, stream, index = binding.position, binding.stream, binding.index

        def forward(x: Array) -> Array:
            bits = stream.at(position.step, position.shard, index).bit_generator.random_raw(words)
            levels = bits.view(np.uint16)[: y.size].reshape(shape)
            np.greater_equal(levels, dropped, out=factors, casting="unsafe")
            np.multiply(factors, factor, out=factors)
            np.multiply(x, factors, out=y)
            return y

        def backward(dy: Array) -> Array | None:
            if not binding.needs_input_gradient:
                return None
            np.multiply(dy, factors, out=dy)
            return dy

        return Bound(forward, backward)
