"""The ops of `cells`, compiled (Numba, optional).

Each op runs several short loops over a row, which lies in the nearest cache. A compiler makes vector
instructions of a loop only if few arrays could overlap the array that the loop writes.
"""

from __future__ import annotations

import numpy as np

from distbp.machine import vector_math
from distbp.nn.ops.rows import single

_ONE = np.float32(1)


def lstm(row: int, spaces: int, rows: int) -> None:
    z, bias, past = single(row, spaces, rows, 0), single(row, spaces, rows, 1), single(row, spaces, rows, 2)
    memory, h = single(row, spaces, rows, 3), single(row, spaces, rows, 4)
    units = h.shape[1]
    for i in range(h.shape[0]):
        for j in range(z.shape[1]):
            z[i, j] += bias[0, j]
        for j in range(2 * units):
            z[i, j] = vector_math.logistic(z[i, j])
        for j in range(units):
            z[i, 2 * units + j] = vector_math.tanh(z[i, 2 * units + j])
        for j in range(units):
            z[i, 3 * units + j] = vector_math.logistic(z[i, 3 * units + j])
        for j in range(units):
            memory[i, j] = z[i, units + j] * past[i, j] + z[i, j] * z[i, 2 * units + j]
        for j in range(units):
            h[i, j] = z[i, 3 * units + j] * vector_math.tanh(memory[i, j])


def lstm_backward(row: int, spaces: int, rows: int) -> None:
    z, past, memory = single(row, spaces, rows, 0), single(row, spaces, rows, 1), single(row, spaces, rows, 2)
    dh, dm = single(row, spaces, rows, 3), single(row, spaces, rows, 4)
    units = dh.shape[1]
    for i in range(dh.shape[0]):
        for j in range(units):
            t, o, d = vector_math.tanh(memory[i, j]), z[i, 3 * units + j], dh[i, j]
            dm[i, j] += d * o * (_ONE - t * t)
            z[i, 3 * units + j] = d * t * o * (_ONE - o)
        for j in range(units):
            a, g, d = z[i, j], z[i, 2 * units + j], dm[i, j]
            z[i, j] = d * g * a * (_ONE - a)
            z[i, 2 * units + j] = d * a * (_ONE - g * g)
        for j in range(units):
            f, d = z[i, units + j], dm[i, j]
            z[i, units + j] = d * past[i, j] * f * (_ONE - f)
            dm[i, j] = d * f


def gru(row: int, spaces: int, rows: int) -> None:
    z, u, bias = single(row, spaces, rows, 0), single(row, spaces, rows, 1), single(row, spaces, rows, 2)
    within, past, h = single(row, spaces, rows, 3), single(row, spaces, rows, 4), single(row, spaces, rows, 5)
    units = h.shape[1]
    for i in range(h.shape[0]):
        for j in range(z.shape[1]):
            z[i, j] += bias[0, j]
        for j in range(2 * units):
            z[i, j] += u[i, j]
        for j in range(2 * units):
            z[i, j] = vector_math.logistic(z[i, j])
        for j in range(units):
            u[i, 2 * units + j] += within[0, j]
        for j in range(units):
            z[i, 2 * units + j] += z[i, j] * u[i, 2 * units + j]
        for j in range(units):
            z[i, 2 * units + j] = vector_math.tanh(z[i, 2 * units + j])
        for j in range(units):
            n = z[i, 2 * units + j]
            h[i, j] = n + z[i, units + j] * (past[i, j] - n)


def gru_backward(row: int, spaces: int, rows: int) -> None:
    z, u = single(row, spaces, rows, 0), single(row, spaces, rows, 1)
    past, dh = single(row, spaces, rows, 2), single(row, spaces, rows, 3)
    units = dh.shape[1]
    for i in range(dh.shape[0]):
        for j in range(units):
            k = z[i, units + j]
            u[i, units + j] = dh[i, j] * (past[i, j] - z[i, 2 * units + j]) * k * (_ONE - k)
        for j in range(units):
            n = z[i, 2 * units + j]
            z[i, 2 * units + j] = dh[i, j] * (_ONE - z[i, units + j]) * (_ONE - n * n)
        for j in range(units):
            dh[i, j] *= z[i, units + j]
            z[i, units + j] = u[i, units + j]
        for j in range(units):
            r, q, dn = z[i, j], u[i, 2 * units + j], z[i, 2 * units + j]
            u[i, j] = dn * q * r * (_ONE - r)
            u[i, 2 * units + j] = dn * r
        for j in range(units):
            z[i, j] = u[i, j]
