"""The dense (fully connected) layer: y = f(x W^T + b), for each sample or for each step of a sample.

With dz = dy * f'(z), the gradients are dW = dz^T x, db = sum of dz over the rows, dx = dz W (Nielsen, "Neural
Networks and Deep Learning", chapter 2, equations BP1-BP4 in matrix form over a whole minibatch).
W is stored as (units, inputs): for small batches, both products are then about 1.5 times faster.

`parametrization: ntk` first divides the n inputs by sqrt(n). With weights of deviation about 1, outputs are
then about as large as inputs, and updates act on weights of that size (Jacot, Gabriel and Hongler, NeurIPS
2018, section 2).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Literal

from distbp.core.options import option
from distbp.nn.activations import lower_activation
from distbp.nn.initializers import GlorotUniform, Initializer, Zeros
from distbp.nn.layers.base import Backward, LayerFacts, Lengths, Lowering, ParameterSpec, Shape, Takes, Value
from distbp.nn.layers.steps import steps_of
from distbp.nn.tape import Ref


@dataclass(frozen=True, kw_only=True)
class _Dense(LayerFacts):
    trains: ClassVar[bool] = True
    activation_option: ClassVar[str] = "activation"

    type: str = ""
    units: int = option(help="number of outputs", gt=0)
    activation: str = option("linear", help="applied to the outputs", choices="activations")
    initializer: Initializer = option(GlorotUniform(), help="of the weights", choices="initializers")
    bias_initializer: Initializer = option(Zeros(), help="of the biases", choices="initializers")

    parametrization: Literal["ntk"] | None = option(
        None,
        help="ntk: divides the weighted sums by the root of the number of inputs, for weights of deviation"
        " about 1; left out: they stay",
    )

    def parameters(self, input_shape: Shape) -> tuple[ParameterSpec, ...]:
        inputs = input_shape[-1]
        return (
            ParameterSpec("weight", (self.units, inputs), self.initializer, inputs, self.units),
            ParameterSpec("bias", (self.units,), self.bias_initializer, inputs, self.units, decays=False),
        )

    def flops(self, input_shape: Shape) -> float:
        return 6.0 * math.prod(input_shape[:-1]) * self.units * (input_shape[-1] + 1)

    def lower(self, low: Lowering, x: Value) -> tuple[Value, Backward]:
        steps, shared = math.prod(x.shape[:-1]), len(x.shape) > 1
        x, z = x._replace(ref=x.ref.reshaped(x.shape[-1], steps)), low.tape.work(self.units, steps)
        factor = (1 / math.sqrt(x.shape[-1]),)
        ntk = self.parametrization == "ntk"
        if ntk:
            scaled = low.tape.like(x.ref)
            low.tape.emit("times", x.ref, scaled, real=factor)
            x = x._replace(ref=scaled)
        low.product(x.ref, low.parameters["weight"], z)
        y, activate_backward = lower_activation(
            low.tape, self.activation, z, low.parameters["bias"], y=z, shared=shared
        )

        def backward(dy: Ref) -> tuple[Ref | None]:
            dy = dy.reshaped(self.units, steps)
            activate_backward(dy, low.gradients["bias"])
            low.weight_gradient(low.gradients["weight"], dy, x.ref)
            if not low.wanted[0]:
                return (None,)
            dx = low.tape.like(x.ref)
            low.tape.emit("product_nn", dy, low.parameters["weight"], dx, whole=(0,))
            if ntk:
                low.tape.emit("times", dx, dx, real=factor)
            return (dx,)

        return Value(y.reshaped(self.units * steps, 1), (*x.shape[:-1], self.units)), backward


@dataclass(frozen=True, kw_only=True)
class Dense(_Dense):
    """A dense (fully connected) layer: y = f(x W^T + b), (features) -> (units).

    As `torch.nn.Linear`, then the activation. Weights are (units, features)."""

    takes: ClassVar[Takes] = "row"
    by_data: ClassVar[Mapping[str, str]] = MappingProxyType(
        {"initializer": "weights", "bias_initializer": "biases"}
    )

    type: Literal["dense"] = "dense"

    @property
    def own_shape(self) -> Shape:
        return (self.units,)

    def output_shape(self, input_shape: Shape) -> Shape:
        if len(input_shape) != 1:
            raise ValueError(
                f"a dense layer takes one row of numbers for each sample, but is given shape {input_shape};"
                " put a {type: flatten} layer before it"
                + (", or take {type: dense_steps} for each step on its own" if len(input_shape) == 2 else "")
            )
        return (self.units,)


@dataclass(frozen=True, kw_only=True)
class DenseSteps(_Dense):
    """A dense layer for each step, with one set of weights: (steps, features) -> (steps, units). As
    `torch.nn.Linear`, then the activation."""

    type: Literal["dense_steps"] = "dense_steps"

    @property
    def lengths(self) -> Lengths:
        return "keep"

    def output_shape(self, input_shape: Shape) -> Shape:
        return steps_of(self.type, input_shape)[0], self.units
