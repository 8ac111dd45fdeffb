"""The compiled kernels (Numba, optional): the contract of `distbp.nn.kernels`, fewer and longer passes.

Compiled where it pays: the bias and the activation forward, the derivative and the bias gradient backward,
softmax cross-entropy. For float32 exp and tanh are those of `vector_math`; for float64 they are NumPy's.
Other activations fall back to NumPy's kernels. Products are those of
NumPy's own BLAS, called without NumPy. No fast-math: NaN, Inf and the order of sums are as written.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from distbp.nn import vector_math
from distbp.nn.activations import LEAKY_SLOPE, Activation, Scratch
from distbp.nn.arrays import Array
from distbp.nn.blas import openblas
from distbp.nn.gemm import products_by
from distbp.nn.jit import jit
from distbp.nn.kernels import NUMPY, Kernels, LossOfLabels
from distbp.nn.products import NUMPY_PRODUCTS, Products


@jit
def add_bias(z: Array, bias: Array) -> None:
    for i in range(z.shape[0]):
        for j in range(z.shape[1]):
            z[i, j] += bias[j]


@jit
def add_bias_relu(z: Array, bias: Array) -> None:
    zero = z.dtype.type(0)
    for i in range(z.shape[0]):
        for j in range(z.shape[1]):
            v = z[i, j] + bias[j]
            z[i, j] = zero if v < zero else v  # NaN stays


@jit
def add_bias_leaky_relu(z: Array, bias: Array) -> None:
    zero, slope = z.dtype.type(0), z.dtype.type(LEAKY_SLOPE)
    for i in range(z.shape[0]):
        for j in range(z.shape[1]):
            v = z[i, j] + bias[j]
            z[i, j] = v * slope if v < zero else v


@jit
def add_bias_sigmoid(z: Array, bias: Array) -> None:
    add_bias(z, bias)
    flat = z.reshape(-1)  # one long loop: rows may be shorter than a vector register
    for i in range(flat.size):
        flat[i] = vector_math.logistic(flat[i])


@jit
def add_bias_tanh(z: Array, bias: Array) -> None:
    add_bias(z, bias)
    flat = z.reshape(-1)
    for i in range(flat.size):
        flat[i] = vector_math.tanh(flat[i])


@jit
def linear_backward(y: Array, db: Array, dy: Array) -> None:
    db[:] = 0
    for i in range(dy.shape[0]):
        for j in range(dy.shape[1]):
            db[j] += dy[i, j]


@jit
def relu_backward(y: Array, db: Array, dy: Array) -> None:
    zero, one = y.dtype.type(0), y.dtype.type(1)
    db[:] = 0
    for i in range(dy.shape[0]):
        for j in range(dy.shape[1]):
            d = dy[i, j] * (one if y[i, j] > zero else zero)  # NaN times zero is NaN
            dy[i, j] = d
            db[j] += d


@jit
def leaky_relu_backward(y: Array, db: Array, dy: Array) -> None:
    zero, one, slope = y.dtype.type(0), y.dtype.type(1), y.dtype.type(LEAKY_SLOPE)
    db[:] = 0
    for i in range(dy.shape[0]):
        for j in range(dy.shape[1]):
            d = dy[i, j] * (one if y[i, j] > zero else slope)
            dy[i, j] = d
            db[j] += d


@jit
def sigmoid_backward(y: Array, db: Array, dy: Array) -> None:
    one = y.dtype.type(1)
    db[:] = 0
    for i in range(dy.shape[0]):
        for j in range(dy.shape[1]):
            d = dy[i, j] * (y[i, j] * (one - y[i, j]))
            dy[i, j] = d
            db[j] += d


@jit
def tanh_backward(y: Array, db: Array, dy: Array) -> None:
    one = y.dtype.type(1)
    db[:] = 0
    for i in range(dy.shape[0]):
        for j in range(dy.shape[1]):
            d = dy[i, j] * (one - y[i, j] * y[i, j])
            dy[i, j] = d
            db[j] += d


@jit
def _shift_rows(z: Array, labels: Array, dz: Array, losses: Array) -> None:
    """dz <- z - the largest of each row; losses <- minus dz at the label."""
    for i in range(z.shape[0]):
        largest = z[i, 0]
        for j in range(1, z.shape[1]):
            largest = max(largest, z[i, j])
        for j in range(z.shape[1]):
            dz[i, j] = z[i, j] - largest
        losses[i] = -dz[i, labels[i]]


@jit
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


@jit
def _add_losses(losses: Array, logs: Array, weights: Array | None) -> float:
    total = 0.0
    for i in range(losses.shape[0]):
        loss = losses[i] + logs[i]
        if weights is not None:
            loss *= weights[i]
        total += loss
    return total


@jit
def cross_entropy(
    z: Array, labels: Array, weights: Array | None, dz: Array, losses: Array, totals: Array
) -> float:
    """Of float32 logits, whole. losses: (rows,) float64 and totals: (rows,) float32 are scratch."""
    _shift_rows(z, labels, dz, losses)
    flat = dz.reshape(-1)
    for i in range(flat.size):
        flat[i] = vector_math.exp(flat[i])
    _normalize_rows(labels, weights, dz, totals)
    total = 0.0
    for i in range(totals.shape[0]):
        loss = losses[i] + math.log(totals[i])
        if weights is not None:
            loss *= weights[i]
        total += loss
    return total


_FORWARD = {"linear": add_bias, "relu": add_bias_relu, "leaky_relu": add_bias_leaky_relu}
_FORWARD_SINGLE = {**_FORWARD, "sigmoid": add_bias_sigmoid, "tanh": add_bias_tanh}
_BACKWARD = {
    "linear": linear_backward,
    "relu": relu_backward,
    "leaky_relu": leaky_relu_backward,
    "sigmoid": sigmoid_backward,
    "tanh": tanh_backward,
}


def _activate(
    activation: Activation, z: Array, bias: Array, y: Array, scratch: Scratch
) -> Callable[[], None]:
    compiled = _FORWARD_SINGLE if z.dtype == np.float32 else _FORWARD
    if y is z and activation.name in compiled:
        return partial(compiled[activation.name], z, bias)
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

    def single(z: Array, labels: Array, weights: Array | None, dz: Array) -> float:
        return float(cross_entropy(z, labels, weights, dz, losses, totals))

    def double(z: Array, labels: Array, weights: Array | None, dz: Array) -> float:
        _shift_rows(z, labels, dz, losses)
        exp(dz, out=dz)
        _normalize_rows(labels, weights, dz, totals)
        log(totals, out=totals)
        return float(_add_losses(losses, totals, weights))

    return single if dtype == np.float32 else double


@jit
def largest(values: Array) -> float:
    """The largest absolute value of a C-contiguous array, float32 or float64; NaN or infinity where one is
    among them.

    Compared as whole numbers, whose order is that of the floats (IEEE 754), and above them the infinities and
    NaN: such a loop is turned into vector instructions."""
    if values.itemsize == 4:
        bits = values.reshape(-1).view(np.int32)
        most = np.int32(0)
        for i in range(bits.size):
            most = max(most, np.int32(bits[i] & np.int32(0x7FFFFFFF)))
        return float(np.int32(most).view(np.float32))
    wide = values.reshape(-1).view(np.int64)
    widest = np.int64(0)
    for i in range(wide.size):
        widest = max(widest, np.int64(wide[i] & np.int64(0x7FFFFFFFFFFFFFFF)))
    return float(np.int64(widest).view(np.float64))


def _products(dtype: np.dtype[Any]) -> Products:
    gemm = openblas()
    return NUMPY_PRODUCTS if gemm is None else products_by(gemm(dtype))


NUMBA = Kernels(
    "numba",
    _activate,
    _activate_backward,
    _softmax_cross_entropy,
    products=_products,
    updates="numba",
    gemm=openblas(),
    largest=largest,
)
