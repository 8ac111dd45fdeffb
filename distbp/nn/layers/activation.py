"""Activations as layers: `{type: activation, function: relu}` or, with the same meaning, `{type: relu}`.

The option `activation` of a dense layer is faster, because one pass adds the bias and applies the activation.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from distbp.core.options import option
from distbp.nn.activations import ACTIVATIONS, lower_activation
from distbp.nn.layers.base import ABSENT, Backward, Channels, LayerFacts, Lengths, Lowering, Shape, Value
from distbp.nn.tape import Ref


def _channels(name: str) -> Channels:
    return "either" if ACTIVATIONS[name].each_alone else "first"  # softmax needs the last axis in place


def _lower(name: str, low: Lowering, x: Value) -> tuple[Value, Backward]:
    columns = x.shape[-1] if x.shape else 1
    ref = x.ref.reshaped(columns, x.ref.columns // columns)
    y, activate_backward = lower_activation(low.tape, name, ref, ABSENT)

    def backward(dy: Ref) -> tuple[Ref | None]:
        if not low.wanted[0]:
            return (None,)
        activate_backward(dy.reshaped(ref.columns, ref.times), ABSENT)
        return (dy,)

    return x._replace(ref=y.reshaped(x.ref.columns, 1)), backward


@dataclass(frozen=True, kw_only=True)
class ActivationLayer(LayerFacts):
    """y = f(x), element by element (softmax: along the last axis). Any input shape; no parameters."""

    activation_option: ClassVar[str] = "function"
    type: Literal["activation"] = "activation"
    function: str = option(help="the activation", choices="activations")

    @property
    def lengths(self) -> Lengths:
        return "keep"

    @property
    def channels(self) -> Channels:
        return _channels(self.function)

    def output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def lower(self, low: Lowering, x: Value) -> tuple[Value, Backward]:
        return _lower(self.function, low, x)


def _layer_named_after(name: str) -> Any:
    """A layer dataclass with `type` = `name` and no options, for one row of ACTIVATIONS."""
    layer = dataclasses.make_dataclass(
        "".join(word.capitalize() for word in name.split("_")) + "Layer",
        [("type", Literal[name], dataclasses.field(default=name))],
        bases=(LayerFacts,),
        namespace={
            "activation_option": "type",
            "__doc__": f"The activation {name} as a layer: `{{type: activation, function: {name}}}`.",
            "lengths": property(lambda self: "keep"),
            "channels": property(lambda self: _channels(name)),
            "output_shape": lambda self, input_shape: input_shape,
            "lower": lambda self, low, x: _lower(name, low, x),
        },
        frozen=True,
        kw_only=True,
    )
    layer.__module__ = __name__  # where pickle finds the layer, by its name below
    return layer


LinearLayer = _layer_named_after("linear")
StepLayer = _layer_named_after("step")
ReluLayer = _layer_named_after("relu")
LeakyReluLayer = _layer_named_after("leaky_relu")
SigmoidLayer = _layer_named_after("sigmoid")
TanhLayer = _layer_named_after("tanh")
EluLayer = _layer_named_after("elu")
SeluLayer = _layer_named_after("selu")
SmoothClipLayer = _layer_named_after("smooth_clip")
SoftplusLayer = _layer_named_after("softplus")
SiluLayer = _layer_named_after("silu")
GeluLayer = _layer_named_after("gelu")
MishLayer = _layer_named_after("mish")
SoftmaxLayer = _layer_named_after("softmax")

NAMED = (
    LinearLayer,
    StepLayer,
    ReluLayer,
    LeakyReluLayer,
    SigmoidLayer,
    TanhLayer,
    EluLayer,
    SeluLayer,
    SmoothClipLayer,
    SoftplusLayer,
    SiluLayer,
    GeluLayer,
    MishLayer,
    SoftmaxLayer,
)
