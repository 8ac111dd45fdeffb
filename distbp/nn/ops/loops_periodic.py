"""The ops of `periodic`, compiled (Numba, optional)."""

from __future__ import annotations

import math

import numpy as np

from distbp.machine import vector_math
from distbp.machine.scalars import index
from distbp.nn.ops.rows import flat, single, whole

_ZERO, _TURN = np.float32(0), np.float32(2 * math.pi)


def periodic(row: int, spaces: int, rows: int) -> None:
    x, frequency = single(row, spaces, rows, 0), single(row, spaces, rows, 1)
    phase, weight = single(row, spaces, rows, 2), single(row, spaces, rows, 3)
    bias, y, kept = single(row, spaces, rows, 4), single(row, spaces, rows, 5), single(row, spaces, rows, 6)
    column, first = whole(row, 0), whole(row, 1)
    n, k, d = frequency.shape[0], frequency.shape[1], bias.shape[1]
    for i in range(x.shape[0]):
        for c in range(n):
            turned, at = _TURN * x[i, column + c], 2 * k * c
            for j in range(k):
                sine, cosine = vector_math.sine_and_cosine(turned * frequency[c, j] + phase[c, j])
                kept[i, index(at + j)] = cosine
                kept[i, index(at + k + j)] = sine
            for m in range(d):
                total = bias[c, m]
                for j in range(k):
                    total += kept[i, index(at + j)] * weight[d * c + m, j]
                y[i, first + d * c + m] = total


def periodic_backward(row: int, spaces: int, rows: int) -> None:
    x, frequency = single(row, spaces, rows, 0), single(row, spaces, rows, 1)
    weight, kept = single(row, spaces, rows, 2), single(row, spaces, rows, 3)
    dy = single(row, spaces, rows, 4)
    dfrequency, dphase = single(row, spaces, rows, 5), single(row, spaces, rows, 6)
    dweight, dbias = single(row, spaces, rows, 7), single(row, spaces, rows, 8)
    dx, column, first = single(row, spaces, rows, 9), whole(row, 0), whole(row, 1)
    n, k, d = frequency.shape[0], frequency.shape[1], dbias.shape[1]
    flat(row, spaces, rows, 5)[:] = _ZERO
    flat(row, spaces, rows, 6)[:] = _ZERO
    flat(row, spaces, rows, 7)[:] = _ZERO
    flat(row, spaces, rows, 8)[:] = _ZERO
    for i in range(x.shape[0]):
        for c in range(n):
            turned, at, total = _TURN * x[i, column + c], 2 * k * c, _ZERO
            for m in range(d):
                dz = dy[i, first + d * c + m]
                dbias[c, m] += dz
                for j in range(k):
                    dweight[d * c + m, j] += dz * kept[i, index(at + j)]
            for j in range(k):
                ds = _ZERO
                for m in range(d):
                    ds += dy[i, first + d * c + m] * weight[d * c + m, j]
                da = -kept[i, index(at + k + j)] * ds
                dphase[c, j] += da
                dfrequency[c, j] += da * turned
                total += da * frequency[c, j]
            if dx.shape[0]:
                dx[i, c] += _TURN * total
