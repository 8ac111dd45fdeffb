"""The ops of `normalization`, compiled (Numba, optional)."""

from __future__ import annotations

import numpy as np

from distbp.core.arrays import Array
from distbp.machine.jit import inner
from distbp.machine.scalars import index, larger, smaller
from distbp.machine.structures import floats, stack
from distbp.nn.ops.rows import real, single, whole

_MOST = 1024  # columns at a time
_ROOM = 4 * _MOST


def batch_norm(row: int, spaces: int, rows: int) -> None:
    x, scale, shift = (
        single(row, spaces, rows, 0),
        single(row, spaces, rows, 1)[0],
        single(row, spaces, rows, 2)[0],
    )
    n, root, y = single(row, spaces, rows, 3), single(row, spaces, rows, 4)[0], single(row, spaces, rows, 5)
    mean, variance = single(row, spaces, rows, 6)[0], single(row, spaces, rows, 7)[0]
    count, features = x.shape
    samples = np.float32(count // whole(row, 0) if count > whole(row, 0) else 0)
    divisor = np.float32(count)
    unbiased = samples * divisor / np.float32(larger(1, count - 1))
    epsilon = np.float32(real(row, 0))
    mean[:] = 0
    for i in range(count):
        for j in range(features):
            mean[j] += x[i, j]
    for j in range(features):
        mean[j] /= divisor
    root[:] = 0
    for i in range(count):
        for j in range(features):
            e = x[i, j] - mean[j]
            n[i, j] = e
            root[j] += e * e
    for j in range(features):
        spread = root[j] / divisor
        mean[j] *= samples
        variance[j] = spread * unbiased
        root[j] = np.sqrt(spread + epsilon)
    for i in range(count):
        for j in range(features):
            v = n[i, j] / root[j]
            n[i, j] = v
            y[i, j] = v * scale[j] + shift[j]


def batch_norm_running(row: int, spaces: int, rows: int) -> None:
    x, scale, shift = (
        single(row, spaces, rows, 0),
        single(row, spaces, rows, 1)[0],
        single(row, spaces, rows, 2)[0],
    )
    mean, variance = single(row, spaces, rows, 3)[0], single(row, spaces, rows, 4)[0]
    y = single(row, spaces, rows, 5)
    epsilon = np.float32(real(row, 0))
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            y[i, j] = (x[i, j] - mean[j]) * (scale[j] / np.sqrt(variance[j] + epsilon)) + shift[j]


def batch_norm_backward(row: int, spaces: int, rows: int) -> None:
    dy, n, root = single(row, spaces, rows, 0), single(row, spaces, rows, 1), single(row, spaces, rows, 2)[0]
    scale = single(row, spaces, rows, 3)[0]
    d_scale, d_shift = single(row, spaces, rows, 4)[0], single(row, spaces, rows, 5)[0]
    dx = single(row, spaces, rows, 6)
    _parameters(dy, n, d_scale, d_shift)
    count, features = np.float32(dy.shape[0]), dx.shape[1]
    levels, slopes, shares = stack(_ROOM), stack(_ROOM), stack(_ROOM)
    for first in range(0, features, _MOST):
        some = smaller(_MOST, features - first)
        level, slope, share = floats(levels, some), floats(slopes, some), floats(shares, some)
        for j in range(some):  # divisions take ten times as long as the rest
            k = index(first + j)
            level[j], slope[j], share[j] = d_shift[k] / count, d_scale[k] / count, scale[k] / root[k]
        for i in range(dx.shape[0]):
            for j in range(some):
                k = index(first + j)
                dx[i, k] = (dy[i, k] - level[j] - n[i, k] * slope[j]) * share[j]


@inner
def _parameters(dy: Array, n: Array, d_scale: Array, d_shift: Array) -> None:
    d_scale[:] = 0
    d_shift[:] = 0
    for i in range(dy.shape[0]):
        for j in range(dy.shape[1]):
            d_scale[j] += dy[i, j] * n[i, j]
        for j in range(dy.shape[1]):
            d_shift[j] += dy[i, j]


@inner
def lane_sum(values: Array) -> float:
    """The sum of a row: eight partial sums, which are then added one after the other. They are separate
    variables, so that they stay in a register."""
    most = values.size - values.size % 8
    a = b = c = d = e = f = g = h = np.float32(0)
    for j in range(0, most, 8):
        a += values[j]
        b += values[j + 1]
        c += values[j + 2]
        d += values[j + 3]
        e += values[j + 4]
        f += values[j + 5]
        g += values[j + 6]
        h += values[j + 7]
    total = a + b + c + d + e + f + g + h
    for j in range(most, values.size):
        total += values[j]
    return total  # type: ignore[return-value]


def layer_norm(row: int, spaces: int, rows: int) -> None:
    x, scale, shift = (
        single(row, spaces, rows, 0),
        single(row, spaces, rows, 1)[0],
        single(row, spaces, rows, 2)[0],
    )
    n, root, y = single(row, spaces, rows, 3), single(row, spaces, rows, 4), single(row, spaces, rows, 5)
    features, epsilon = np.float32(x.shape[1]), np.float32(real(row, 0))
    for i in range(x.shape[0]):
        mean = lane_sum(x[i]) / features
        for j in range(x.shape[1]):
            n[i, j] = x[i, j] - mean
            y[i, j] = n[i, j] * n[i, j]
        r = np.sqrt(lane_sum(y[i]) / features + epsilon)
        root[i, 0] = r
        for j in range(x.shape[1]):
            v = n[i, j] / r
            n[i, j] = v
            y[i, j] = v * scale[j] + shift[j]


def layer_norm_backward(row: int, spaces: int, rows: int) -> None:
    dy, n, root = single(row, spaces, rows, 0), single(row, spaces, rows, 1), single(row, spaces, rows, 2)
    scale = single(row, spaces, rows, 3)[0]
    d_scale, d_shift = single(row, spaces, rows, 4)[0], single(row, spaces, rows, 5)[0]
    dx = single(row, spaces, rows, 6)
    _parameters(dy, n, d_scale, d_shift)
    features = np.float32(dy.shape[1])
    g, along = np.empty(dy.shape[1], np.float32), np.empty(dy.shape[1], np.float32)
    for i in range(dx.shape[0]):
        for j in range(dx.shape[1]):
            g[j] = dy[i, j] * scale[j]
            along[j] = g[j] * n[i, j]
        a, level = lane_sum(along) / features, lane_sum(g) / features
        for j in range(dx.shape[1]):
            dx[i, j] = (g[j] - level - n[i, j] * a) / root[i, 0]
