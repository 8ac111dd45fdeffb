"""Activations as layers: `{type: activation, function: relu}`, or by their own name, `{type: relu}`.

Both mean the same; a dense layer's own `activation` is faster, as it is added in the same pass as the bias.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from distbp.nn.activations import ACTIVATIONS, Activation, live_rows, make_scratch
from distbp.nn.layers.base import Array, Binding, Bound, ParameterSpec, Shape, StatisticSpec, no_backward
from distbp.options import option


def _bind(activation: Activation, binding: Binding) -> Bound:
    shape = (binding.rows, *binding.input_shape)
    y = binding.empty(*shape)
    scratch = make_scratch(binding.empty, shape)
    x_seen: Array = y  # replaced by every forward

    def forward(x: Array) -> Array:
        nonlocal x_seen
        x_seen = x
        activation.forward(x, y, scratch)
        return y

    def backward(dy: Array) -> Array | None:
        if not binding.needs_input_gradient:
            return None
        activation.backward(dy, x_seen, y, scratch)
        return dy

    report = (lambda: live_rows(activation, x_seen, y)) if activation.saturated else None
    return Bound(forward, backward if binding.training else no_backward, report)


@dataclass(frozen=True, kw_only=True)
class ActivationLayer:
    """y = f(x), element by element (softmax: along the last axis). Any input shape; no parameters."""

    type: Literal["activation"] = "activation"
    function: str = option(help="the activation", choices="activations")

    def output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def parameters(self, input_shape: Shape) -> tuple[ParameterSpec, ...]:
        return ()

    def statistics(self, input_shape: Shape) -> tuple[StatisticSpec, ...]:
        return ()

    def bind(self, binding: Binding) -> Bound:
        return _bind(ACTIVATIONS[self.function], binding)


def _layer_named_after(name: str) -> Any:
    """A layer dataclass with `type` = `name` and no options, for one row of ACTIVATIONS."""
    activation = ACTIVATIONS[name]
    layer = dataclasses.make_dataclass(
        "".join(word.capitalize() for word in name.split("_")) + "Layer",
        [("type", Literal[name], dataclasses.field(default=name))],
        namespace={
            "__doc__": f"The activation {name} as a layer: `{{type: activation, function: {name}}}`.",
            "output_shape": lambda self, input_shape: input_shape,
            "parameters": lambda self, input_shape: (),
            "statistics": lambda self, input_shape: (),
            "bind": lambda self, binding: _bind(activation, binding),
        },
        frozen=True,
        kw_only=True,
    )
    layer.__module__ = __name__  # pickle looks here, by the names below
    return layer


LinearLayer = _layer_named_after("linear")
StepLayer = _layer_named_after("step")
ReluLayer = _layer_named_after("relu")
LeakyReluLayer = _layer_named_after("leaky_relu")
SigmoidLayer = _layer_named_after("sigmoid")
TanhLayer = _layer_named_after("tanh")
EluLayer = _layer_named_after("elu")
SoftplusLayer = _layer_named_after("softplus")
SiluLayer = _layer_named_after("silu")
GeluLayer = _layer_named_after("gelu")
SoftmaxLayer = _layer_named_after("softmax")

NAMED = (
    LinearLayer,
    StepLayer,
    ReluLayer,
    LeakyReluLayer,
    SigmoidLayer,
    TanhLayer,
    EluLayer,
    SoftplusLayer,
    SiluLayer,
    GeluLayer,
    SoftmaxLayer,
)
