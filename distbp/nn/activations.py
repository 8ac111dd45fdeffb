"""Activation functions. The contract of an activation, then each one, simplest first.

An activation is a pair of functions over arrays (..., units) of any one shape and either float dtype:

    forward(z, y, scratch)       y = f(z). `y` may be `z` itself where `keeps_input` is false.
    backward(dy, z, y, scratch)  dy <- dy * f'(z), in place; z and y are only read, and z holds the input only
                                 where `keeps_input` is true (else it may be `y`).

`scratch` is a pair of arrays like `z` (see `make_scratch`). A backward follows the forward of the same rows
with the same scratch, untouched in between: a forward may leave the derivative in it. Neither allocates what
grows. All work element by element, except softmax, which works along the last axis. NaN comes out where
NaN goes in, and no finite input overflows.

`saturated(z, y)` marks values whose derivative is nearly zero (below 4 % of its maximum), so that a health
report can show which units no longer learn; None where the function has no flat part.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from distbp.nn.arrays import Array, Shape
from distbp.nn.distributions import logistic, logistic_tail, normal_tail

Scratch = tuple[Array, Array]
Forward = Callable[[Array, Array, Scratch], None]
Backward = Callable[[Array, Array, Array, Scratch], None]

LEAKY_SLOPE = 0.01  # PyTorch's default


def make_scratch(empty: Callable[..., Array], shape: Shape) -> Scratch:
    """The scratch of an activation over arrays of `shape`. `empty` is `Binding.empty` or alike."""
    return empty(*shape), empty(*shape)


@dataclass(frozen=True)
class Activation:
    """`trainable` false: the derivative is zero almost everywhere, so it can predict but not train."""

    name: str
    forward: Forward
    backward: Backward
    keeps_input: bool = False
    saturated: Callable[[Array, Array], Array] | None = None
    trainable: bool = True


def _linear(z: Array, y: Array, scratch: Scratch) -> None:
    if y is not z:
        np.copyto(y, z)


def _linear_backward(dy: Array, z: Array, y: Array, scratch: Scratch) -> None:
    pass


def _step(z: Array, y: Array, scratch: Scratch) -> None:
    np.heaviside(z, 1, out=y)


def _step_backward(dy: Array, z: Array, y: Array, scratch: Scratch) -> None:
    np.multiply(dy, 0, out=dy)


def _relu(z: Array, y: Array, scratch: Scratch) -> None:
    np.maximum(z, 0, out=y)  # the maximum of NaN and 0 is NaN


def _relu_backward(dy: Array, z: Array, y: Array, scratch: Scratch) -> None:
    np.greater(y, 0, out=scratch[0], casting="unsafe")
    np.multiply(dy, scratch[0], out=dy)


def _leaky_relu(z: Array, y: Array, scratch: Scratch) -> None:
    np.multiply(z, LEAKY_SLOPE, out=scratch[0])
    np.maximum(z, scratch[0], out=y)


def _leaky_relu_backward(dy: Array, z: Array, y: Array, scratch: Scratch) -> None:
    # y has the sign of z: its sign 1, 0, -1 becomes the derivative 1, slope, slope.
    np.sign(y, out=scratch[0])
    np.maximum(scratch[0], LEAKY_SLOPE, out=scratch[0])
    np.multiply(dy, scratch[0], out=dy)


def _sigmoid(z: Array, y: Array, scratch: Scratch) -> None:
    logistic(z, y)


def _sigmoid_backward(dy: Array, z: Array, y: Array, scratch: Scratch) -> None:
    s = scratch[0]
    np.subtract(1, y, out=s)
    np.multiply(s, y, out=s)
    np.multiply(dy, s, out=dy)


def _tanh(z: Array, y: Array, scratch: Scratch) -> None:
    np.tanh(z, out=y)


def _tanh_backward(dy: Array, z: Array, y: Array, scratch: Scratch) -> None:
    s = scratch[0]
    np.multiply(y, y, out=s)
    np.subtract(1, s, out=s)
    np.multiply(dy, s, out=dy)


def _elu(z: Array, y: Array, scratch: Scratch) -> None:
    # z where z > 0, else exp(z) - 1 (Clevert et al., ICLR 2016, with alpha 1), without a branch.
    s = scratch[0]
    np.minimum(z, 0, out=s)
    np.expm1(s, out=s)
    np.maximum(z, 0, out=y)
    np.add(y, s, out=y)


def _elu_backward(dy: Array, z: Array, y: Array, scratch: Scratch) -> None:
    # exp(z) = y + 1 on the left side, 1 on the right.
    s = scratch[0]
    np.minimum(y, 0, out=s)
    np.add(s, 1, out=s)
    np.multiply(dy, s, out=dy)


def _softplus(z: Array, y: Array, scratch: Scratch) -> None:
    # log(1 + exp(z)) = max(z, 0) + log(1 + exp(-|z|)): exact where PyTorch turns linear, above 20.
    s = scratch[0]
    np.abs(z, out=s)
    np.negative(s, out=s)
    np.exp(s, out=s)
    np.log1p(s, out=s)
    np.maximum(z, 0, out=y)
    np.add(y, s, out=y)


def _softplus_backward(dy: Array, z: Array, y: Array, scratch: Scratch) -> None:
    # sigmoid(z) = 1 - exp(-y).
    s = scratch[0]
    np.negative(y, out=s)
    np.expm1(s, out=s)
    np.negative(s, out=s)
    np.multiply(dy, s, out=dy)


def _silu(z: Array, y: Array, scratch: Scratch) -> None:
    # z sigmoid(z) (Elfwing et al., 2017), also called swish.
    logistic_tail(z, tail=scratch[0], distance=scratch[1], density=y)
    _z_times_distribution(z, y, scratch)


def _gelu(z: Array, y: Array, scratch: Scratch) -> None:
    # z Phi(z) (Hendrycks and Gimpel, 2016): PyTorch's default, not the approximation with tanh.
    normal_tail(z, tail=scratch[0], distance=scratch[1], density=y)
    _z_times_distribution(z, y, scratch)


def _z_times_distribution(z: Array, y: Array, scratch: Scratch) -> None:
    # y <- z F(z), with a = |z|, q = F(-a), p = F'(z) given in scratch[1], scratch[0] and y. Without a branch:
    # f = max(z, 0) - a q. With w = q - a p, never above a half, f' = w for z < 0, else 1 - w.
    q, a = scratch
    np.multiply(y, a, out=y)
    np.subtract(q, y, out=y)
    np.multiply(q, a, out=q)
    derivative = a
    np.subtract(0.5, y, out=derivative)
    np.copysign(derivative, z, out=derivative)
    np.add(derivative, 0.5, out=derivative)
    np.maximum(z, 0, out=y)
    np.subtract(y, q, out=y)


def _stored_backward(dy: Array, z: Array, y: Array, scratch: Scratch) -> None:
    np.multiply(dy, scratch[1], out=dy)  # the forward left the derivative there


def _softmax(z: Array, y: Array, scratch: Scratch) -> None:
    # Shifted by the largest of each row, so that exp cannot overflow.
    column = scratch[0][..., :1]
    np.maximum.reduce(z, axis=-1, keepdims=True, out=column)
    np.subtract(z, column, out=y)
    np.exp(y, out=y)
    np.add.reduce(y, axis=-1, keepdims=True, out=column)
    np.divide(y, column, out=y)


def _softmax_backward(dy: Array, z: Array, y: Array, scratch: Scratch) -> None:
    # dz = y (dy - sum over the row of dy y)
    column = scratch[1][..., :1]
    np.multiply(dy, y, out=scratch[0])
    np.add.reduce(scratch[0], axis=-1, keepdims=True, out=column)
    np.subtract(dy, column, out=dy)
    np.multiply(dy, y, out=dy)


def live_rows(activation: Activation, z: Array, y: Array) -> Array:
    """Of each unit the number of rows in which it is not saturated, (units,), float64."""
    assert activation.saturated is not None
    flat = activation.saturated(z, y).reshape(len(y), -1)
    return np.asarray(len(y) - np.add.reduce(flat, axis=0, dtype=np.float64))


ACTIVATIONS: Mapping[str, Activation] = MappingProxyType(
    {
        a.name: a
        for a in (
            Activation("linear", _linear, _linear_backward),
            Activation("step", _step, _step_backward, trainable=False),
            Activation("relu", _relu, _relu_backward, saturated=lambda z, y: y == 0),
            Activation("leaky_relu", _leaky_relu, _leaky_relu_backward),
            Activation(
                "sigmoid",
                _sigmoid,
                _sigmoid_backward,
                saturated=lambda z, y: (y < 0.01) | (y > 0.99),
            ),
            Activation("tanh", _tanh, _tanh_backward, saturated=lambda z, y: np.abs(y) > 0.98),
            Activation("elu", _elu, _elu_backward, saturated=lambda z, y: y < -0.96),
            Activation(
                "softplus",
                _softplus,
                _softplus_backward,
                saturated=lambda z, y: y < -math.log1p(-0.04),
            ),
            Activation("silu", _silu, _stored_backward, keeps_input=True, saturated=lambda z, y: z < -5),
            Activation("gelu", _gelu, _stored_backward, keeps_input=True, saturated=lambda z, y: z < -2.7),
            Activation("softmax", _softmax, _softmax_backward),
        )
    }
)
