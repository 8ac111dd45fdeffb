"""The ops of `activations`, compiled (Numba, optional), for float32, with the functions of `vector_math`.

Most activations call `linear` first, which adds the bias. Most derivatives call `linear_backward` last, which
sums up the gradient of the bias."""

from __future__ import annotations

import numpy as np

from distbp.machine import vector_math
from distbp.machine.scalars import in_register, larger, smaller
from distbp.machine.structures import address_of
from distbp.machine.vectors import clear
from distbp.nn.ops.activations import LEAKY_SLOPE, SELU_ALPHA, SELU_SCALE, SMOOTH_LIMIT
from distbp.nn.ops.rows import call_other, flat, single

_ZERO, _ONE, _HALF = np.float32(0), np.float32(1), np.float32(0.5)
_TWO, _FOUR = np.float32(2), np.float32(4)
_SLOPE, _LIMIT, _FAR = np.float32(LEAKY_SLOPE), np.float32(SMOOTH_LIMIT), np.float32(1e15)
_SELU, _SELU_LOW = np.float32(SELU_SCALE), np.float32(SELU_SCALE * SELU_ALPHA)


def linear(row: int, spaces: int, rows: int) -> None:
    """y <- x + bias, row after row. The addition reads and writes one array: a compiler does not use vectors
    if two arrays may overlap. Callers then use one long loop, because rows may be shorter than a vector."""
    x, bias, y = single(row, spaces, rows, 0), single(row, spaces, rows, 1), single(row, spaces, rows, 2)
    copied, biased = address_of(x) != address_of(y), bias.shape[0] > 0
    for i in range(y.shape[0]):
        if copied:
            for j in range(y.shape[1]):
                y[i, j] = x[i, j]
        if biased:
            for j in range(y.shape[1]):
                y[i, j] += bias[0, j]


def linear_backward(row: int, spaces: int, rows: int) -> None:
    """db (1, columns) <- the sum of the rows of dy."""
    dy, db = single(row, spaces, rows, 2), single(row, spaces, rows, 3)
    if db.shape[0]:
        clear(address_of(db), 4 * db.size)
        for i in range(dy.shape[0]):
            for j in range(dy.shape[1]):
                db[0, j] += dy[i, j]


def step(row: int, spaces: int, rows: int) -> None:
    call_other(row, spaces, rows)
    y = flat(row, spaces, rows, 2)
    for i in range(y.size):
        u = in_register(y[i])
        y[i] = _ONE if u >= _ZERO else (_ZERO if u < _ZERO else u)


def step_backward(row: int, spaces: int, rows: int) -> None:
    dy = flat(row, spaces, rows, 2)
    for i in range(dy.size):
        dy[i] *= _ZERO  # NaN stays
    call_other(row, spaces, rows)


def relu(row: int, spaces: int, rows: int) -> None:
    call_other(row, spaces, rows)
    y = flat(row, spaces, rows, 2)
    for i in range(y.size):
        y[i] = larger(in_register(y[i]), _ZERO)  # NaN stays


def relu_backward(row: int, spaces: int, rows: int) -> None:
    y, dy, db = single(row, spaces, rows, 1), single(row, spaces, rows, 2), single(row, spaces, rows, 3)
    if db.shape[0]:
        clear(address_of(db), 4 * db.size)
        for i in range(dy.shape[0]):
            for j in range(dy.shape[1]):
                d = dy[i, j] * (_ONE if y[i, j] > _ZERO else _ZERO)  # NaN times zero is NaN
                dy[i, j] = d
                db[0, j] += d
    else:
        out, d_flat = flat(row, spaces, rows, 1), flat(row, spaces, rows, 2)
        for i in range(d_flat.size):
            d_flat[i] *= _ONE if out[i] > _ZERO else _ZERO


def leaky_relu(row: int, spaces: int, rows: int) -> None:
    call_other(row, spaces, rows)
    y = flat(row, spaces, rows, 2)
    for i in range(y.size):
        u = in_register(y[i])
        y[i] = larger(u, u * _SLOPE)


def leaky_relu_backward(row: int, spaces: int, rows: int) -> None:
    y, dy = flat(row, spaces, rows, 1), flat(row, spaces, rows, 2)
    for i in range(dy.size):
        dy[i] *= _ONE if y[i] > _ZERO else (_SLOPE if y[i] <= _ZERO else y[i])  # NaN stays
    call_other(row, spaces, rows)


def sigmoid(row: int, spaces: int, rows: int) -> None:
    call_other(row, spaces, rows)
    y = flat(row, spaces, rows, 2)
    for i in range(y.size):
        y[i] = vector_math.logistic(y[i])


def sigmoid_backward(row: int, spaces: int, rows: int) -> None:
    y, dy, db = single(row, spaces, rows, 1), single(row, spaces, rows, 2), single(row, spaces, rows, 3)
    if db.shape[0]:
        clear(address_of(db), 4 * db.size)
        for i in range(dy.shape[0]):
            for j in range(dy.shape[1]):
                d = dy[i, j] * (y[i, j] * (_ONE - y[i, j]))
                dy[i, j] = d
                db[0, j] += d
    else:
        out, d_flat = flat(row, spaces, rows, 1), flat(row, spaces, rows, 2)
        for i in range(d_flat.size):
            d_flat[i] *= out[i] * (_ONE - out[i])


def tanh(row: int, spaces: int, rows: int) -> None:
    call_other(row, spaces, rows)
    y = flat(row, spaces, rows, 2)
    for i in range(y.size):
        y[i] = vector_math.tanh(y[i])


def tanh_backward(row: int, spaces: int, rows: int) -> None:
    y, dy, db = single(row, spaces, rows, 1), single(row, spaces, rows, 2), single(row, spaces, rows, 3)
    if db.shape[0]:
        clear(address_of(db), 4 * db.size)
        for i in range(dy.shape[0]):
            for j in range(dy.shape[1]):
                d = dy[i, j] * (_ONE - y[i, j] * y[i, j])
                dy[i, j] = d
                db[0, j] += d
    else:
        out, d_flat = flat(row, spaces, rows, 1), flat(row, spaces, rows, 2)
        for i in range(d_flat.size):
            d_flat[i] *= _ONE - out[i] * out[i]


def elu(row: int, spaces: int, rows: int) -> None:
    call_other(row, spaces, rows)
    y = flat(row, spaces, rows, 2)
    for i in range(y.size):
        y[i] = vector_math.expm1(smaller(y[i], _ZERO)) + larger(y[i], _ZERO)


def elu_backward(row: int, spaces: int, rows: int) -> None:
    y, dy = flat(row, spaces, rows, 1), flat(row, spaces, rows, 2)
    for i in range(dy.size):
        dy[i] *= smaller(y[i], _ZERO) + _ONE
    call_other(row, spaces, rows)


def selu(row: int, spaces: int, rows: int) -> None:
    call_other(row, spaces, rows)
    y = flat(row, spaces, rows, 2)
    for i in range(y.size):
        y[i] = larger(y[i], _ZERO) * _SELU + vector_math.expm1(smaller(y[i], _ZERO)) * _SELU_LOW


def selu_backward(row: int, spaces: int, rows: int) -> None:
    y, dy = flat(row, spaces, rows, 1), flat(row, spaces, rows, 2)
    for i in range(dy.size):
        dy[i] *= _SELU if y[i] > _ZERO else y[i] + _SELU_LOW  # NaN stays
    call_other(row, spaces, rows)


def smooth_clip(row: int, spaces: int, rows: int) -> None:
    call_other(row, spaces, rows)
    y = flat(row, spaces, rows, 2)
    for i in range(y.size):
        u = y[i] / _LIMIT
        u = -_FAR if u < -_FAR else u  # NaN stays
        u = _FAR if u > _FAR else u
        y[i] = u / np.sqrt(_ONE + u * u) * _LIMIT


def smooth_clip_backward(row: int, spaces: int, rows: int) -> None:
    y, dy = flat(row, spaces, rows, 1), flat(row, spaces, rows, 2)
    for i in range(dy.size):
        u = y[i] / _LIMIT
        rest = (_ONE - u) * (_ONE + u)
        rest = _ZERO if rest < _ZERO else rest  # NaN stays
        dy[i] *= rest * np.sqrt(rest)
    call_other(row, spaces, rows)


def softplus(row: int, spaces: int, rows: int) -> None:
    call_other(row, spaces, rows)
    y = flat(row, spaces, rows, 2)
    for i in range(y.size):
        y[i] = larger(y[i], _ZERO) + vector_math.log1p(vector_math.exp(-np.abs(y[i])))


def softplus_backward(row: int, spaces: int, rows: int) -> None:
    y, dy = flat(row, spaces, rows, 1), flat(row, spaces, rows, 2)
    for i in range(dy.size):
        dy[i] *= -vector_math.expm1(-y[i])
    call_other(row, spaces, rows)


def silu(row: int, spaces: int, rows: int) -> None:
    call_other(row, spaces, rows)
    y, kept = flat(row, spaces, rows, 2), flat(row, spaces, rows, 3)
    for i in range(y.size):
        z = y[i]
        s = vector_math.logistic(z)
        kept[i] = s * (_ONE + z * vector_math.logistic(-z))
        y[i] = z * s


def gelu(row: int, spaces: int, rows: int) -> None:
    call_other(row, spaces, rows)
    y, kept = flat(row, spaces, rows, 2), flat(row, spaces, rows, 3)
    for i in range(y.size):
        z = y[i]
        distance = np.abs(z)
        tail, density = vector_math.normal_tail(distance)
        rest = tail - distance * density
        kept[i] = _HALF + np.copysign(_HALF - rest, z)
        y[i] = larger(z, _ZERO) - distance * tail


def mish(row: int, spaces: int, rows: int) -> None:
    call_other(row, spaces, rows)
    y, kept = flat(row, spaces, rows, 2), flat(row, spaces, rows, 3)
    for i in range(y.size):
        z = y[i]
        e = vector_math.exp(-np.abs(z))
        low = z < _ZERO
        d = e * (e + _TWO) + _TWO if low else _ONE + _TWO * e + _TWO * e * e
        t = (e * (e + _TWO) if low else _ONE + _TWO * e) / d
        slope = _FOUR * (_ONE + e) * (e if low else e * e) / (d * d)
        kept[i] = t + z * slope
        y[i] = z * t


def kept_backward(row: int, spaces: int, rows: int) -> None:
    kept, dy = flat(row, spaces, rows, 0), flat(row, spaces, rows, 2)
    for i in range(dy.size):
        dy[i] *= kept[i]
    call_other(row, spaces, rows)


def softmax(row: int, spaces: int, rows: int) -> None:
    y = single(row, spaces, rows, 2)
    call_other(row, spaces, rows)
    for i in range(y.shape[0]):
        largest = y[i, 0]
        for j in range(1, y.shape[1]):
            largest = larger(largest, y[i, j])
        for j in range(y.shape[1]):
            y[i, j] -= largest
    shifted = flat(row, spaces, rows, 2)
    for i in range(shifted.size):
        shifted[i] = vector_math.exp(shifted[i])
    for i in range(y.shape[0]):
        total = y[i, 0]
        for j in range(1, y.shape[1]):
            total += y[i, j]
        share = _ONE / total
        for j in range(y.shape[1]):
            y[i, j] *= share


def softmax_backward(row: int, spaces: int, rows: int) -> None:
    y, dy = single(row, spaces, rows, 1), single(row, spaces, rows, 2)
    for i in range(y.shape[0]):
        total = _ZERO
        for j in range(y.shape[1]):
            total += dy[i, j] * y[i, j]
        for j in range(y.shape[1]):
            dy[i, j] = (dy[i, j] - total) * y[i, j]
    call_other(row, spaces, rows)
