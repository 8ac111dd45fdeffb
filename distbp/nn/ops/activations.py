"""Activation functions as ops, simplest first. `distbp.nn.activations` has the facts about each function.

    f           (x, bias, y, kept):  y <- f(z), with z = x + bias. `y` may be `x` if `kept` is absent.
    f_backward  (kept, y, dy, db):   dy <- dy * f'(z), then db <- the sum of dy over the rows.

bias, db: (1, columns), or absent. kept: the derivative f'(z), if it does not follow from y; else absent. No
finite input overflows. NaN inputs give NaN outputs.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from distbp.core.arrays import Array
from distbp.machine.distributions import logistic_tail, normal_tail
from distbp.nn.ops.base import Op, Real, Whole, element_ops

LEAKY_SLOPE = 0.01  # PyTorch's default
SELU_SCALE, SELU_ALPHA = 1.0507009873554805, 1.6732632423543772  # Klambauer et al., 2017, equation 14
SMOOTH_LIMIT = 3.0  # the bound of the outputs of `smooth_clip`

Formula = Callable[[Array, Array], None]  # (z, y): y <- f(z), where y may be z
Derivative = Callable[[Array], Array]  # from y to f'(z)


def _forward(formula: Formula) -> Callable[..., None]:
    def forward(x: Array, bias: Array, y: Array, kept: Array, whole: Whole, real: Real) -> None:
        np.add(x, bias, out=y) if len(bias) else np.copyto(y, x)
        formula(y, y)

    return forward


def _backward(derivative: Derivative) -> Callable[..., None]:
    def backward(kept: Array, y: Array, dy: Array, db: Array, whole: Whole, real: Real) -> None:
        np.multiply(dy, derivative(y), out=dy)
        _add_up(dy, db)

    return backward


def _add_up(dy: Array, db: Array) -> None:
    if len(db):
        np.add.reduce(dy, axis=0, keepdims=True, out=db)


def _linear(z: Array, y: Array) -> None:
    pass


def _linear_backward(kept: Array, y: Array, dy: Array, db: Array, whole: Whole, real: Real) -> None:
    _add_up(dy, db)


def _step(z: Array, y: Array) -> None:
    np.heaviside(z, 1, out=y)


def _relu(z: Array, y: Array) -> None:
    np.maximum(z, 0, out=y)  # the maximum of NaN and 0 is NaN


def _leaky_relu(z: Array, y: Array) -> None:
    np.maximum(z, z * z.dtype.type(LEAKY_SLOPE), out=y)


def _leaky_relu_derivative(y: Array) -> Array:
    return np.asarray(np.maximum(np.sign(y), y.dtype.type(LEAKY_SLOPE)))  # y has the sign of z


def logistic(z: Array, y: Array) -> None:
    np.divide(1, 1 + np.exp(np.minimum(-z, 88 if z.dtype == np.float32 else 709)), out=y)


def _elu(z: Array, y: Array) -> None:
    """z where z > 0, else exp(z) - 1 (Clevert et al., ICLR 2016, with alpha 1)."""
    np.add(np.maximum(z, 0), np.expm1(np.minimum(z, 0)), out=y)


def _selu(z: Array, y: Array) -> None:
    """scale * z where z > 0, else scale * alpha * (exp(z) - 1) (Klambauer et al., NeurIPS 2017)."""
    below = np.expm1(np.minimum(z, 0)) * z.dtype.type(SELU_SCALE * SELU_ALPHA)
    np.add(np.maximum(z, 0) * z.dtype.type(SELU_SCALE), below, out=y)


def _selu_derivative(y: Array) -> Array:
    scale, low = y.dtype.type(SELU_SCALE), y.dtype.type(SELU_SCALE * SELU_ALPHA)
    return np.asarray(np.where(y > 0, scale, y + low))  # NaN stays


def _smooth_clip(z: Array, y: Array) -> None:
    """z / sqrt(1 + (z / 3)^2), which lies between -3 and 3 (Holzmueller et al., NeurIPS 2024, section 3)."""
    u = np.clip(z / z.dtype.type(SMOOTH_LIMIT), -1e15, 1e15)  # so that the square fits in float32
    np.multiply(u / np.sqrt(1 + u * u), z.dtype.type(SMOOTH_LIMIT), out=y)


def _smooth_clip_derivative(y: Array) -> Array:
    """(1 + (z / 3)^2)^(-3/2)."""
    u = y / y.dtype.type(SMOOTH_LIMIT)
    rest = np.maximum((1 - u) * (1 + u), 0)
    return np.asarray(rest * np.sqrt(rest))


def _softplus(z: Array, y: Array) -> None:
    """log(1 + exp(z)) = max(z, 0) + log(1 + exp(-|z|)). Also exact above 20, where PyTorch returns z."""
    np.add(np.maximum(z, 0), np.log1p(np.exp(-np.abs(z))), out=y)


def _keeping(tail: Callable[..., None]) -> Callable[..., None]:
    """y <- z F(z) for a distribution function F; kept <- the derivative F(z) + z F'(z). tail: computes q, a
    and p (see `distbp.machine.distributions`).

    With a = |z|, q = F(-a) and p = F'(z), y = max(z, 0) - a q. With w = q - a p, which is at most 1/2, the
    derivative is w for z < 0, else 1 - w.
    """

    def forward(x: Array, bias: Array, y: Array, kept: Array, whole: Whole, real: Real) -> None:
        z = x + bias if len(bias) else x
        q, a, p = np.empty_like(y), np.empty_like(y), np.empty_like(y)
        tail(z, tail=q, distance=a, density=p)
        np.copyto(kept, 0.5 + np.copysign(0.5 - (q - a * p), z))
        np.subtract(np.maximum(z, 0), a * q, out=y)

    return forward


def _mish(x: Array, bias: Array, y: Array, kept: Array, whole: Whole, real: Real) -> None:
    """y <- z t, with t = tanh(log(1 + exp(z))); kept <- the derivative t + z t' (Misra, BMVC 2020).

    With e = exp(-|z|): for z < 0, t = e (e + 2) / D with D = e (e + 2) + 2, and t' = 4 (1 + e) e / D^2; else
    t = (1 + 2 e) / D with D = 1 + 2 e + 2 e^2, and t' = 4 (1 + e) e^2 / D^2.
    """
    z = x + bias if len(bias) else x
    e, low = np.exp(-np.abs(z)), z < 0
    d = np.where(low, e * (e + 2) + 2, 1 + 2 * e + 2 * e * e)
    t = np.where(low, e * (e + 2), 1 + 2 * e) / d
    slope = 4 * (1 + e) * np.where(low, e, e * e) / (d * d)
    np.copyto(kept, t + z * slope)
    np.multiply(z, t, out=y)


def _kept_backward(kept: Array, y: Array, dy: Array, db: Array, whole: Whole, real: Real) -> None:
    np.multiply(dy, kept, out=dy)
    _add_up(dy, db)


def _softmax(z: Array, y: Array) -> None:
    np.exp(z - z.max(axis=1, keepdims=True), out=y)  # shifted, so that exp cannot overflow
    np.divide(y, y.sum(axis=1, keepdims=True), out=y)


def _softmax_backward(kept: Array, y: Array, dy: Array, db: Array, whole: Whole, real: Real) -> None:
    """dy <- y (dy - the sum of dy y over the row)."""
    np.multiply(dy - (dy * y).sum(axis=1, keepdims=True), y, out=dy)
    _add_up(dy, db)


_HERE = "distbp.nn.ops.loops_activations:"
_OVER_ROWS = "db: row after row"


def _pair(
    name: str,
    forward: Callable[..., None],
    backward: Callable[..., None],
    cost: int,
    first: str = "linear",
    last: str = "linear_backward",
) -> tuple[Op, Op]:
    """The two ops of a function. first, last: the compiled ops that add the bias and sum up db; "": the loop
    does this itself. cost: operations for each element of the output."""
    loop = "kept_backward" if backward is _kept_backward else f"{name}_backward"
    calls, back_calls = (_HERE + one if one else "" for one in (first, last))
    return (
        Op(name, "ffFF", forward, _HERE + name, "", element_ops(1 + cost), calls=calls),
        Op(f"{name}_backward", "ffFF", backward, _HERE + loop, _OVER_ROWS, element_ops(3), calls=back_calls),
    )


ACTIVATION_OPS = (
    *_pair("linear", _forward(_linear), _linear_backward, 0, first="", last=""),
    *_pair("step", _forward(_step), _backward(np.zeros_like), 1),
    *_pair("relu", _forward(_relu), _backward(lambda y: (y > 0).astype(y.dtype)), 1, last=""),
    *_pair("leaky_relu", _forward(_leaky_relu), _backward(_leaky_relu_derivative), 2),
    *_pair("sigmoid", _forward(logistic), _backward(lambda y: (1 - y) * y), 20, last=""),
    *_pair("tanh", _forward(np.tanh), _backward(lambda y: 1 - y * y), 20, last=""),
    *_pair("elu", _forward(_elu), _backward(lambda y: np.minimum(y, 0) + 1), 20),
    *_pair("selu", _forward(_selu), _backward(_selu_derivative), 20),
    *_pair("smooth_clip", _forward(_smooth_clip), _backward(_smooth_clip_derivative), 8),
    *_pair("softplus", _forward(_softplus), _backward(lambda y: -np.expm1(-y)), 40),
    *_pair("silu", _keeping(logistic_tail), _kept_backward, 30),
    *_pair("gelu", _keeping(normal_tail), _kept_backward, 60),
    *_pair("mish", _mish, _kept_backward, 40),
    *_pair("softmax", _forward(_softmax), _softmax_backward, 20),
)
