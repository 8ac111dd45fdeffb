"""Computes layers number by number in plain Python. `--check` compares the engine's numbers with these.

Nothing here imports the engine. Arrays only hold numbers; each sum is a loop. A layer is its mapping in the
JSON of `distbp explain`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
Layer = Mapping[str, Any]


def _sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z)) if z >= 0 else math.exp(z) / (1 + math.exp(z))


def _bell(z: float) -> float:
    return math.exp(-z * z / 2) / math.sqrt(2 * math.pi)


def _mish_tangent(z: float) -> float:
    return math.tanh(max(z, 0.0) + math.log1p(math.exp(-abs(z))))


def _phi(z: float) -> float:
    return math.erfc(-z / math.sqrt(2)) / 2


_SELU, _SELU_LOW = 1.0507009873554805, 1.0507009873554805 * 1.6732632423543772

# name: f(z), f'(z)
FUNCTIONS: Mapping[str, tuple[Callable[[float], float], Callable[[float], float]]] = {
    "linear": (lambda z: z, lambda z: 1.0),
    "step": (lambda z: float(z >= 0), lambda z: 0.0),
    "relu": (lambda z: max(z, 0.0), lambda z: float(z > 0)),
    "leaky_relu": (lambda z: z if z > 0 else 0.01 * z, lambda z: 1.0 if z > 0 else 0.01),
    "sigmoid": (_sigmoid, lambda z: _sigmoid(z) * _sigmoid(-z)),
    "tanh": (math.tanh, lambda z: 1 - math.tanh(z) ** 2),
    "elu": (lambda z: z if z > 0 else math.expm1(z), lambda z: 1.0 if z > 0 else math.exp(z)),
    "selu": (
        lambda z: _SELU * z if z > 0 else _SELU_LOW * math.expm1(z),
        lambda z: _SELU if z > 0 else _SELU_LOW * math.exp(z),
    ),
    "smooth_clip": (lambda z: z / math.sqrt(1 + z * z / 9), lambda z: (1 + z * z / 9) ** -1.5),
    "softplus": (lambda z: max(z, 0.0) + math.log1p(math.exp(-abs(z))), _sigmoid),
    "silu": (lambda z: z * _sigmoid(z), lambda z: _sigmoid(z) * (1 + z * _sigmoid(-z))),
    "gelu": (lambda z: z * _phi(z), lambda z: _phi(z) + z * _bell(z)),
    "mish": (
        lambda z: z * _mish_tangent(z),
        lambda z: _mish_tangent(z) + z * (1 - _mish_tangent(z) ** 2) * _sigmoid(z),
    ),
}


def _each(function: Callable[[float], float], values: Values) -> Values:
    return np.array([function(float(v)) for v in values.ravel()]).reshape(values.shape)


def _lines(values: Values, axis: int) -> Iterator[tuple[Any, Values]]:
    """Yields the lines of numbers along an axis, each as (place, numbers), for softmax."""
    moved = np.moveaxis(values, axis, -1)
    for place in np.ndindex(*moved.shape[:-1]):
        yield place, moved[place]


def _axis(layer: Layer) -> int:
    return 0 if layer["type"] == "conv2d" else -1  # for images, softmax is over the channels


def activate(layer: Layer, z: Values) -> Values:
    """a = f(z)."""
    if layer["activation"] != "softmax":
        return _each(FUNCTIONS[layer["activation"]][0], z)
    a = np.zeros_like(z)
    for place, line in _lines(z, _axis(layer)):
        powers = [math.exp(v - max(line)) for v in line]
        np.moveaxis(a, _axis(layer), -1)[place] = [power / sum(powers) for power in powers]
    return a


def slope(layer: Layer, z: Values) -> Values | None:
    """f'(z); None for softmax."""
    if layer["activation"] == "softmax":
        return None
    return _each(FUNCTIONS[layer["activation"]][1], z)


def through(layer: Layer, z: Values, a: Values, d_a: Values) -> Values:
    """delta = dE/dz: dE/da * f'(z); for softmax delta_j = a_j (dE/da_j - sum of dE/da_i a_i)."""
    f_prime = slope(layer, z)
    if f_prime is not None:
        return np.array([d * s for d, s in zip(d_a.ravel(), f_prime.ravel(), strict=True)]).reshape(z.shape)
    delta, axis = np.zeros_like(z), _axis(layer)
    pairs = zip(_lines(a, axis), _lines(d_a, axis), strict=True)
    for (place, out), (_, d) in pairs:
        both = sum(x * y for x, y in zip(out, d, strict=True))
        np.moveaxis(delta, axis, -1)[place] = [x * (y - both) for x, y in zip(out, d, strict=True)]
    return delta


def dense(w: Values, b: Values, x: Values) -> Values:
    """z_j = sum of w_jk x_k + b_j."""
    return np.array([math.fsum([*(w[j, k] * x[k] for k in range(len(x))), b[j]]) for j in range(len(b))])


def dense_back(w: Values, x: Values, delta: Values) -> tuple[dict[str, Values], Values]:
    """dE/dw_jk = delta_j x_k (BP4), dE/db_j = delta_j (BP3), dE/dx_k = sum of w_jk delta_j (BP2)."""
    units, features = w.shape
    d_w = np.array([[delta[j] * x[k] for k in range(features)] for j in range(units)])
    d_x = np.array([math.fsum(w[j, k] * delta[j] for j in range(units)) for k in range(features)])
    return {"weight": d_w, "bias": delta.copy()}, d_x


def elman(
    w: Values, r: Values, b: Values, x: Values, begin: Values, activation: Layer
) -> tuple[Values, Values]:
    """z_t = W x_t + R h_(t-1) + b and h_t = f(z_t), from the state `begin`; both (steps, units)."""
    steps, units = len(x), len(b)
    z, h, before = np.zeros((steps, units)), np.zeros((steps, units)), begin
    for t in range(steps):
        for j in range(units):
            terms = [w[j, k] * x[t, k] for k in range(x.shape[1])]
            terms += [r[j, i] * before[i] for i in range(units)]
            z[t, j] = math.fsum([*terms, b[j]])
        before = h[t] = activate(activation, z[t])
    return z, h


def elman_back(
    w: Values, r: Values, x: Values, z: Values, h: Values, begin: Values, d_a: Values, activation: Layer
) -> tuple[Values, Values, dict[str, Values], Values]:
    """Backpropagation through time: dE/dh_t = dE/da_t + R^T delta_(t+1), delta_t = dE/dh_t * f'(z_t).
    Gradients are sums over t. d_a: (steps, units), 0 for outputs that nothing uses. Returns dE/dh, delta,
    gradients, dE/dx."""
    steps, units = z.shape
    before = np.concatenate([begin[np.newaxis], h[:-1]])
    d_h, delta = d_a.copy(), np.zeros_like(z)
    for t in reversed(range(steps)):
        if t + 1 < steps:
            for i in range(units):
                d_h[t, i] = math.fsum([d_a[t, i], *(r[j, i] * delta[t + 1, j] for j in range(units))])
        delta[t] = through(activation, z[t], h[t], d_h[t])
    times = range(steps)
    gradients = {
        "weight": np.array(
            [
                [math.fsum(delta[t, j] * x[t, k] for t in times) for k in range(x.shape[1])]
                for j in range(units)
            ]
        ),
        "recurrent_weight": np.array(
            [
                [math.fsum(delta[t, j] * before[t, i] for t in times) for i in range(units)]
                for j in range(units)
            ]
        ),
        "bias": np.array([math.fsum(delta[:, j]) for j in range(units)]),
    }
    d_x = np.array(
        [[math.fsum(w[j, k] * delta[t, j] for j in range(units)) for k in range(x.shape[1])] for t in times]
    )
    return d_h, delta, gradients, d_x
