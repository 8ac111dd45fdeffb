"""Periodic embeddings: linear functions of cosines of numbers (see `distbp.nn.layers.periodic`)."""

from __future__ import annotations

import math

import numpy as np

from distbp.core.arrays import Array
from distbp.nn.ops.base import Op, Real, Whole


def _periodic(
    x: Array, frequency: Array, phase: Array, weight: Array, bias: Array, y: Array, kept: Array,
    whole: Whole, real: Real,
) -> None:  # fmt: skip
    """For each of n numbers x, in columns of `x` from whole[0] on, writes d columns of y, from whole[1] on:
    W cos(2 pi f x + phase) + bias.

    frequency, phase: (n, k); weight: (n d, k); bias: (n, d). kept (rows, 2 n k) <- for each number, its k
    cosines, then its k sines. y may be x if the columns do not overlap."""
    (n, k), d = frequency.shape, bias.shape[1]
    column, first = whole[:2]
    turn = x.dtype.type(2 * math.pi)
    for c in range(n):
        angle = (turn * x[:, column + c, None]) * frequency[c] + phase[c]
        both = kept[:, 2 * k * c : 2 * k * (c + 1)]
        np.cos(angle, out=both[:, :k])
        np.sin(angle, out=both[:, k:])
        y[:, first + d * c : first + d * (c + 1)] = both[:, :k] @ weight[d * c : d * (c + 1)].T + bias[c]


def _periodic_backward(
    x: Array, frequency: Array, weight: Array, kept: Array, dy: Array,
    dfrequency: Array, dphase: Array, dweight: Array, dbias: Array, dx: Array, whole: Whole, real: Real,
) -> None:  # fmt: skip
    """Writes the gradients of the four tensors, from columns of dy from whole[1] on. If dx (rows, n) is not
    absent, adds the gradients of the numbers to it."""
    (n, k), d = frequency.shape, dbias.shape[1]
    column, first = whole[:2]
    turn = x.dtype.type(2 * math.pi)
    for c in range(n):
        cosines, sines = kept[:, 2 * k * c : 2 * k * c + k], kept[:, 2 * k * c + k : 2 * k * (c + 1)]
        dz, own = dy[:, first + d * c : first + d * (c + 1)], slice(d * c, d * (c + 1))
        dweight[own] = dz.T @ cosines
        np.add.reduce(dz, axis=0, out=dbias[c])
        da = -sines * (dz @ weight[own])
        np.add.reduce(da, axis=0, out=dphase[c])
        np.add.reduce(da * (turn * x[:, column + c, None]), axis=0, out=dfrequency[c])
        if len(dx):
            dx[:, c] += turn * (da @ frequency[c])


_HERE = "distbp.nn.ops.loops_periodic:"
PERIODIC = (
    Op(
        "periodic", "fffffFF", _periodic, f"{_HERE}periodic", "the bias, then cosine after cosine",
        lambda shapes: shapes[0][0] * shapes[1][0] * shapes[1][1] * (30 + 2 * shapes[4][1]),
    ),
    Op(
        "periodic_backward", "fffffFFFFF", _periodic_backward, f"{_HERE}periodic_backward",
        "row after row; dx: cosine after cosine",
        lambda shapes: shapes[0][0] * shapes[1][0] * shapes[1][1] * (8 + 4 * shapes[8][1]),
    ),
)  # fmt: skip
