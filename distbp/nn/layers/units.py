"""Layers with one trained number for each feature: a scale, and the share of an activation function.

Both are parts of RealMLP (Holzmueller, Grinsztajn and Steinwart, "Better by Default", NeurIPS 2024, section
3), but any network may use them. Features lie on the last axis.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from distbp.core.options import OptionError, option
from distbp.nn.activations import ACTIVATIONS, lower_activation
from distbp.nn.initializers import Constant
from distbp.nn.layers.base import ABSENT, Backward, LayerFacts, Lengths, Lowering, ParameterSpec, Shape, Value
from distbp.nn.tape import Ref


@dataclass(frozen=True, kw_only=True)
class _OfUnits(LayerFacts):
    trains: ClassVar[bool] = True
    tensor: ClassVar[str] = ""

    type: str = ""

    @property
    def lengths(self) -> Lengths:
        return "keep"

    def output_shape(self, input_shape: Shape) -> Shape:
        if not input_shape:
            raise ValueError(f"{self.type} needs features on the last axis, but a sample is a single number")
        return input_shape

    def parameters(self, input_shape: Shape) -> tuple[ParameterSpec, ...]:
        features = input_shape[-1]
        ones = Constant(value=1.0)
        return (ParameterSpec(self.tensor, (features,), ones, features, features, decays=False),)

    def flops(self, input_shape: Shape) -> float:
        return 6.0 * math.prod(input_shape)


def _by_feature(x: Value) -> Ref:
    return x.ref.reshaped(x.shape[-1], x.ref.columns // x.shape[-1])


@dataclass(frozen=True, kw_only=True)
class Scale(_OfUnits):
    """y[k] = scale[k] * x[k]: one trained factor for each feature, 1 at first. Before the first dense layer
    it learns which inputs matter. dscale = the sum of dy * x over the rows, dx = dy * scale."""

    tensor: ClassVar[str] = "scale"

    type: Literal["scale"] = "scale"

    def lower(self, low: Lowering, x: Value) -> tuple[Value, Backward]:
        flat, scale = _by_feature(x), low.parameters["scale"]
        y = low.tape.like(flat)
        low.tape.emit("multiply_row", flat, scale, y)

        def backward(dy: Ref) -> tuple[Ref | None]:
            d = dy.reshaped(flat.columns, flat.times)
            low.tape.emit("sum_products", d, flat, low.gradients["scale"])
            if not low.wanted[0]:
                return (None,)
            low.tape.emit("multiply_row", d, scale, d)
            return (dy,)

        return x._replace(ref=y.reshaped(x.ref.columns, 1)), backward


@dataclass(frozen=True, kw_only=True)
class ParametricActivation(_OfUnits):
    """y = x + alpha (f(x) - x), with one trained alpha for each feature, 1 at first: then it is f, and at 0
    the identity. dalpha = the sum of dy (f(x) - x) over the rows, dx = dy (1 - alpha + alpha f'(x))."""

    tensor: ClassVar[str] = "alpha"

    type: Literal["parametric_activation"] = "parametric_activation"
    function: str = option(help="the activation f", choices="activations")

    def __post_init__(self) -> None:
        activation = ACTIVATIONS[self.function]
        if not (activation.trainable and activation.each_alone):
            why = "is not of each number alone" if activation.trainable else "has no derivative"
            raise OptionError("function", f"must be another activation: {self.function} {why}")

    def lower(self, low: Lowering, x: Value) -> tuple[Value, Backward]:
        flat, alpha = _by_feature(x), low.parameters["alpha"]
        f, activate_backward = lower_activation(low.tape, self.function, flat, ABSENT)
        y = low.tape.like(flat)
        low.tape.emit("blend", flat, f, alpha, y)

        def backward(dy: Ref) -> tuple[Ref | None]:
            d, df = dy.reshaped(flat.columns, flat.times), low.tape.like(flat)
            low.tape.emit("blend_backward", flat, f, alpha, d, df, low.gradients["alpha"])
            if not low.wanted[0]:
                return (None,)
            activate_backward(df, ABSENT)
            low.tape.emit("add", d, df, d)
            return (dy,)

        return x._replace(ref=y.reshaped(x.ref.columns, 1)), backward
