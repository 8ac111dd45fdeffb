"""The compiled kernels (Numba, optional): the contract of `distbp.nn.kernels`, fewer and longer passes.

Compiled where it pays: the bias and a cheap activation forward, the derivative and the bias gradient
backward, and what surrounds exp in softmax cross-entropy. exp and tanh themselves stay NumPy's, whose
vector versions are several times faster than the scalar ones that Numba would call. Other activations fall
back to NumPy's kernels. No fast-math: NaN, Inf and the order of sums are as written.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numba import njit

from distbp.nn.activations import LEAKY_SLOPE, Activation, Scratch
from distbp.nn.arrays import Array
from distbp.nn.kernels import NUMPY, Kernels, LossOfLabels


def _compiled(function: Callable[..., Any]) -> Any:
    """`function` compiled when it is first called, for the dtypes that it is called with."""
    try:
        return njit(cache=True, error_model="numpy")(function)
    except RuntimeError:  # no folder that a cache could be written to: compile in every process
        return njit(error_model="numpy")(function)


@_compiled
def _add_bias(z: Array, bias: Array) -> None:
    for i in range(z.shape[0]):
        for j in range(z.shape[1]):
            z[i, j] += bias[j]


@_compiled
def _add_bias_relu(z: Array, bias: Array) -> None:
    zero = z.dtype.type(0)
    for i in range(z.shape[0]):
        for j in range(z.shape[1]):
            v = z[i, j] + bias[j]
            z[i, j] = zero if v < zero else v  # NaN stays


@_compiled
def _add_bias_leaky_relu(z: Array, bias: Array) -> None:
    zero, slope = z.dtype.type(0), z.dtype.type(LEAKY_SLOPE)
    for i in range(z.shape[0]):
        for j in range(z.shape[1]):
            v = z[i, j] + bias[j]
            z[i, j] = v * slope if v < zero else v


@_compiled
def _add_bias_and_halve(z: Array, bias: Array) -> None:
    half = z.dtype.type(0.5)
    for i in range(z.shape[0]):
        for j in range(z.shape[1]):
            z[i, j] = (z[i, j] + bias[j]) * half


@_compiled
def _halve_and_center(z: Array) -> None:
    half = z.dtype.type(0.5)
    for i in range(z.shape[0]):
        for j in range(z.shape[1]):
            z[i, j] = z[i, j] * half + half


@_compiled
def _linear_backward(y: Array, db: Array, dy: Array) -> None:
    db[:] = 0
    for i in range(dy.shape[0]):
        for j in range(dy.shape[1]):
            db[j] += dy[i, j]


@_compiled
def _relu_backward(y: Array, db: Array, dy: Array) -> None:
    zero, one = y.dtype.type(0), y.dtype.type(1)
    db[:] = 0
    for i in range(dy.shape[0]):
        for j in range(dy.shape[1]):
            d = dy[i, j] * (one if y[i, j] > zero else zero)  # NaN times zero is NaN
            dy[i, j] = d
            db[j] += d


@_compiled
def _leaky_relu_backward(y: Array, db: Array, dy: Array) -> None:
    zero, one, slope = y.dtype.type(0), y.dtype.type(1), y.dtype.type(LEAKY_SLOPE)
    db[:] = 0
    for i in range(dy.shape[0]):
        for j in range(dy.shape[1]):
            d = dy[i, j] * (one if y[i, j] > zero else slope)
            dy[i, j] = d
            db[j] += d


@_compiled
def _sigmoid_backward(y: Array, db: Array, dy: Array) -> None:
    one = y.dtype.type(1)
    db[:] = 0
    for i in range(dy.shape[0]):
        for j in range(dy.shape[1]):
            d = dy[i, j] * (y[i, j] * (one - y[i, j]))
            dy[i, j] = d
            db[j] += d


@_compiled
def _tanh_backward(y: Array, db: Array, dy: Array) -> None:
    one = y.dtype.type(1)
    db[:] = 0
    for i in range(dy.shape[0]):
        for j in range(dy.shape[1]):
            d = dy[i, j] * (one - y[i, j] * y[i, j])
            dy[i, j] = d
            db[j] += d


@_compiled
def _shift_rows(z: Array, labels: Array, dz: Array, losses: Array) -> None:
    """dz <- z - the largest of each row; losses <- minus dz at the label."""
    for i in range(z.shape[0]):
        largest = z[i, 0]
        for j in range(1, z.shape[1]):
            largest = max(largest, z[i, j])
        for j in range(z.shape[1]):
            dz[i, j] = z[i, j] - largest
        losses[i] = -dz[i, labels[i]]


@_compiled
def _normalize_rows(labels: Array, weights: Array | None, dz: Array, totals: Array) -> None:
    """dz: exp of the shifted logits -> the gradient. totals <- the sum of each row before."""
    one = dz.dtype.type(1)
    for i in range(dz.shape[0]):
        total = dz[i, 0]
        for j in range(1, dz.shape[1]):
            total += dz[i, j]
        totals[i] = total
        factor = one
        if weights is not None:
            factor = dz.dtype.type(weights[i])
        share = factor / total
        for j in range(dz.shape[1]):
            dz[i, j] *= share
        dz[i, labels[i]] -= factor


@_compiled
def _add_losses(losses: Array, logs: Array, weights: Array | None) -> float:
    total = 0.0
    for i in range(losses.shape[0]):
        loss = losses[i] + logs[i]
        if weights is not None:
            loss *= weights[i]
        total += loss
    return total


@_compiled
def _normalize_few_rows(
    labels: Array, weights: Array | None, dz: Array, totals: Array, losses: Array
) -> float:
    """`_normalize_rows`, the logarithms and `_add_losses` in one call."""
    _normalize_rows(labels, weights, dz, totals)
    for i in range(totals.shape[0]):
        totals[i] = np.log(totals[i])
    total: float = _add_losses(losses, totals, weights)
    return total


_FEW = 32  # rows up to which one more compiled call costs more than scalar logarithms

_FORWARD = {"linear": _add_bias, "relu": _add_bias_relu, "leaky_relu": _add_bias_leaky_relu}
_BACKWARD = {
    "linear": _linear_backward,
    "relu": _relu_backward,
    "leaky_relu": _leaky_relu_backward,
    "sigmoid": _sigmoid_backward,
    "tanh": _tanh_backward,
}


def _activate(
    activation: Activation, z: Array, bias: Array, y: Array, scratch: Scratch
) -> Callable[[], None]:
    if y is z and activation.name in _FORWARD:
        return partial(_FORWARD[activation.name], z, bias)
    if y is z and activation.name == "sigmoid":

        def sigmoid() -> None:
            _add_bias_and_halve(z, bias)
            np.tanh(z, out=z)
            _halve_and_center(z)

        return sigmoid
    return NUMPY.activate(activation, z, bias, y, scratch)


def _activate_backward(
    activation: Activation, z: Array, y: Array, scratch: Scratch, db: Array
) -> Callable[[Array], None]:
    if activation.name in _BACKWARD:
        return partial(_BACKWARD[activation.name], y, db)
    return NUMPY.activate_backward(activation, z, y, scratch, db)


def _softmax_cross_entropy(rows: int, classes: int, dtype: np.dtype[Any]) -> LossOfLabels:
    losses = np.empty(rows)
    totals = np.empty(rows, dtype)
    exp, log = np.exp, np.log

    def loss(z: Array, labels: Array, weights: Array | None, dz: Array) -> float:
        _shift_rows(z, labels, dz, losses)
        exp(dz, out=dz)
        _normalize_rows(labels, weights, dz, totals)
        log(totals, out=totals)
        return float(_add_losses(losses, totals, weights))

    def loss_of_few(z: Array, labels: Array, weights: Array | None, dz: Array) -> float:
        _shift_rows(z, labels, dz, losses)
        exp(dz, out=dz)
        return float(_normalize_few_rows(labels, weights, dz, totals, losses))

    return loss_of_few if rows <= _FEW else loss


NUMBA = Kernels("numba", _activate, _activate_backward, _softmax_cross_entropy, updates="numba")
