"""The ops of `losses`, compiled (Numba, optional)."""

from __future__ import annotations

import math

import numpy as np

from distbp.machine import vector_math
from distbp.machine.scalars import larger
from distbp.nn.ops.losses import LOWEST_LOG, POISSON_EPSILON, SMALLEST_DIVISOR
from distbp.nn.ops.rows import double, flat, labels, real, single, whole

_ZERO, _HALF, _ONE = np.float32(0), np.float32(0.5), np.float32(1)
_EPSILON, _DIVISOR, _LOWEST = (
    np.float32(POISSON_EPSILON),
    np.float32(SMALLEST_DIVISOR),
    np.float32(LOWEST_LOG),
)


def add_losses(row: int, spaces: int, rows: int) -> None:
    losses, weights, d = (
        single(row, spaces, rows, 0),
        single(row, spaces, rows, 1),
        single(row, spaces, rows, 2),
    )
    loss, weight = double(row, spaces, rows, 3), double(row, spaces, rows, 4)
    weighted, factor = weights.shape[0] > 0, real(row, 0)
    total, weights_total = 0.0, 0.0
    for i in range(losses.shape[0]):
        a, b, c, e = 0.0, 0.0, 0.0, 0.0
        for j in range(0, losses.shape[1] - 3, 4):
            a += losses[i, j]
            b += losses[i, j + 1]
            c += losses[i, j + 2]
            e += losses[i, j + 3]
        for j in range(losses.shape[1] // 4 * 4, losses.shape[1]):
            a += losses[i, j]
        one = (a + b) + (c + e)
        if weighted:
            share = weights[i, 0]
            one *= share
            weights_total += share
            for j in range(d.shape[1]):
                d[i, j] *= share
        total += one
    loss[0, 0] += factor * total
    weight[0, 0] += weights_total if weighted else losses.shape[0]


def join_loss(row: int, spaces: int, rows: int) -> None:
    own, total = double(row, spaces, rows, 0), double(row, spaces, rows, 1)
    d, factor = flat(row, spaces, rows, 2), np.float32(real(row, 0))
    total[0, 0] += real(row, 0) * own[0, 0]
    for i in range(d.size):
        d[i] *= factor


def take_labels(row: int, spaces: int, rows: int) -> None:
    targets, out, column = single(row, spaces, rows, 0), labels(row, spaces, rows, 1), whole(row, 0)
    for i in range(out.shape[0]):
        out[i, 0] = int(targets[i, column])


def squares(row: int, spaces: int, rows: int) -> None:
    y, t = flat(row, spaces, rows, 0), flat(row, spaces, rows, 1)
    d, losses = flat(row, spaces, rows, 2), flat(row, spaces, rows, 3)
    factor = np.float32(real(row, 1))
    for i in range(y.size):
        e = y[i] - t[i]
        losses[i] = e * e
        d[i] = e * factor


def absolute(row: int, spaces: int, rows: int) -> None:
    y, t = flat(row, spaces, rows, 0), flat(row, spaces, rows, 1)
    d, losses = flat(row, spaces, rows, 2), flat(row, spaces, rows, 3)
    factor = np.float32(real(row, 1))
    for i in range(y.size):
        e = y[i] - t[i]
        losses[i] = np.abs(e)
        d[i] = np.sign(e) * factor


def perceptron(row: int, spaces: int, rows: int) -> None:
    z, t = flat(row, spaces, rows, 0), flat(row, spaces, rows, 1)
    d, losses = flat(row, spaces, rows, 2), flat(row, spaces, rows, 3)
    factor = np.float32(real(row, 1))
    for i in range(z.size):
        wrong = (_ONE if z[i] > _ZERO else _ZERO) - t[i]
        losses[i] = wrong * z[i]
        d[i] = wrong * factor


def huber(row: int, spaces: int, rows: int) -> None:
    y, t = flat(row, spaces, rows, 0), flat(row, spaces, rows, 1)
    d, losses = flat(row, spaces, rows, 2), flat(row, spaces, rows, 3)
    factor, delta = np.float32(real(row, 1)), np.float32(real(row, 2))
    two = np.float32(2)
    for i in range(y.size):
        e = y[i] - t[i]
        c = -delta if e < -delta else e
        c = delta if c > delta else c
        losses[i] = c * (two * e - c)
        d[i] = c * factor


def poisson_log(row: int, spaces: int, rows: int) -> None:
    y, t = flat(row, spaces, rows, 0), flat(row, spaces, rows, 1)
    d, losses = flat(row, spaces, rows, 2), flat(row, spaces, rows, 3)
    factor = np.float32(real(row, 1))
    for i in range(y.size):
        rate = np.exp(y[i])  # `vector_math.exp` is exact only up to e^88
        losses[i] = rate - t[i] * y[i]
        d[i] = (rate - t[i]) * factor


def poisson(row: int, spaces: int, rows: int) -> None:
    y, t = flat(row, spaces, rows, 0), flat(row, spaces, rows, 1)
    d, losses = flat(row, spaces, rows, 2), flat(row, spaces, rows, 3)
    factor = np.float32(real(row, 1))
    for i in range(y.size):
        rate = y[i] + _EPSILON
        losses[i] = y[i] - t[i] * np.log(rate)
        d[i] = (_ONE - t[i] / rate) * factor


def sigmoid_cross_entropy(row: int, spaces: int, rows: int) -> None:
    y, t = flat(row, spaces, rows, 0), flat(row, spaces, rows, 1)
    d, losses = flat(row, spaces, rows, 2), flat(row, spaces, rows, 3)
    factor = np.float32(real(row, 1))
    for i in range(y.size):
        z = y[i]
        small = vector_math.exp(-np.abs(z))
        h = _HALF + np.copysign(_HALF, z) - t[i]  # by the sign bit, as below; so -0 counts as negative
        losses[i] = vector_math.log1p(small) + z * h
        d[i] = (h - np.copysign(small / (_ONE + small), z)) * factor


def binary_cross_entropy(row: int, spaces: int, rows: int) -> None:
    p, t = flat(row, spaces, rows, 0), flat(row, spaces, rows, 1)
    d, losses = flat(row, spaces, rows, 2), flat(row, spaces, rows, 3)
    factor = np.float32(real(row, 1))
    for i in range(p.size):
        yes, no = larger(np.log(p[i]), _LOWEST), larger(np.log(_ONE - p[i]), _LOWEST)
        losses[i] = -(yes * t[i] + no * (_ONE - t[i]))
        d[i] = (p[i] - t[i]) / larger((_ONE - p[i]) * p[i], _DIVISOR) * factor


def softmax_cross_entropy(row: int, spaces: int, rows: int) -> None:
    z, label = single(row, spaces, rows, 0), labels(row, spaces, rows, 1)
    d, losses = single(row, spaces, rows, 2), flat(row, spaces, rows, 3)
    classes, smoothing = z.shape[1], real(row, 2)
    on, off = np.float32(1 - smoothing), np.float32(smoothing / classes)
    for i in range(z.shape[0]):
        largest = z[i, 0]
        for j in range(1, classes):
            largest = larger(largest, z[i, j])
        for j in range(classes):
            d[i, j] = z[i, j] - largest
        losses[i] = -(on * d[i, label[i, 0]])
        if smoothing:
            part = 0.0
            for j in range(classes):
                part += d[i, j]
            losses[i] -= np.float32(smoothing / classes * part)
    shifted = flat(row, spaces, rows, 2)  # for one long loop: rows may be shorter than a vector register
    for i in range(shifted.size):
        shifted[i] = vector_math.exp(shifted[i])
    for i in range(z.shape[0]):
        total = d[i, 0]
        for j in range(1, classes):
            total += d[i, j]
        share = _ONE / total
        for j in range(classes):
            d[i, j] *= share
        if smoothing:
            for j in range(classes):
                d[i, j] -= off
        d[i, label[i, 0]] -= on
        losses[i] += math.log(total)


def nll(row: int, spaces: int, rows: int) -> None:
    p, label = single(row, spaces, rows, 0), labels(row, spaces, rows, 1)
    d, losses = single(row, spaces, rows, 2), single(row, spaces, rows, 3)
    for i in range(p.shape[0]):
        chosen = p[i, label[i, 0]]
        losses[i, 0] = -larger(np.log(chosen), _LOWEST)
        d[i, :] = _ZERO
        d[i, label[i, 0]] = -_ONE / larger(chosen, _DIVISOR)


def hinge(row: int, spaces: int, rows: int) -> None:
    z, label = single(row, spaces, rows, 0), labels(row, spaces, rows, 1)
    d, losses = single(row, spaces, rows, 2), single(row, spaces, rows, 3)
    squared, margin = whole(row, 0) == 2, np.float32(real(row, 2))
    factor = np.float32(real(row, 1) * whole(row, 0))
    for i in range(z.shape[0]):
        right, loss, slopes = label[i, 0], _ZERO, _ZERO
        rise = margin - z[i, right]
        for j in range(z.shape[1]):
            over = larger(z[i, j] + rise, _ZERO) if j != right else _ZERO
            slope = over * factor if squared else (factor if over > _ZERO else _ZERO)
            loss += over * over if squared else over
            d[i, j] = slope
            slopes += slope
        d[i, right] -= slopes
        losses[i, 0] = loss
