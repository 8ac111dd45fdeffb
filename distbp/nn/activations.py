"""Activation functions. The contract of an activation, then each one, simplest first.

An activation is a pair of functions over arrays of any one shape:

    forward(z, y, scratch)       y = f(z). `y` may be `z` itself where `keeps_input` is false.
    backward(dy, z, y, scratch)  dy <- dy * f'(z), in place, from `y` alone where `keeps_input` is false.

`scratch` has the shape and dtype of `z`. Neither allocates. `saturated(z, y)` counts units whose
derivative is nearly zero, so that a health report can show where learning has stopped; None where the
function has no flat part.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from distbp.nn.arrays import Array

Forward = Callable[[Array, Array, Array], None]
Backward = Callable[[Array, Array, Array, Array], None]


@dataclass(frozen=True)
class Activation:
    """`trainable` false: the derivative is zero almost everywhere, so it can predict but not train."""

    name: str
    forward: Forward
    backward: Backward
    keeps_input: bool = False
    saturated: Callable[[Array, Array], int] | None = None
    trainable: bool = True


def _linear(z: Array, y: Array, scratch: Array) -> None:
    if y is not z:
        np.copyto(y, z)


def _linear_backward(dy: Array, z: Array, y: Array, scratch: Array) -> None:
    pass


def _relu(z: Array, y: Array, scratch: Array) -> None:
    np.maximum(z, 0, out=y)


def _relu_backward(dy: Array, z: Array, y: Array, scratch: Array) -> None:
    np.greater(y, 0, out=scratch, casting="unsafe")
    np.multiply(dy, scratch, out=dy)


def _sigmoid(z: Array, y: Array, scratch: Array) -> None:
    # (1 + tanh(z / 2)) / 2 is 1 / (1 + exp(-z)) without the overflow of exp for large -z.
    np.multiply(z, 0.5, out=y)
    np.tanh(y, out=y)
    np.multiply(y, 0.5, out=y)
    np.add(y, 0.5, out=y)


def _sigmoid_backward(dy: Array, z: Array, y: Array, scratch: Array) -> None:
    np.subtract(1, y, out=scratch)
    np.multiply(scratch, y, out=scratch)
    np.multiply(dy, scratch, out=dy)


ACTIVATIONS: Mapping[str, Activation] = MappingProxyType(
    {
        a.name: a
        for a in (
            Activation("linear", _linear, _linear_backward),
            Activation("relu", _relu, _relu_backward, saturated=lambda z, y: int((y == 0).sum())),
            Activation(
                "sigmoid",
                _sigmoid,
                _sigmoid_backward,
                saturated=lambda z, y: int(((y < 0.01) | (y > 0.99)).sum()),
            ),
        )
    }
)
