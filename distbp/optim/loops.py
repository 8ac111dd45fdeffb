"""Compiled loops of the ops of update rules (Numba, optional). `distbp.optim.ops` has their formulas."""

from __future__ import annotations

import numpy as np

from distbp.machine.scalars import larger, normal, smaller
from distbp.nn.ops.rows import double, flat

_ZERO, _ONE = np.float32(0), np.float32(1)


def clip_value(row: int, spaces: int, rows: int) -> None:
    u, out, c = flat(row, spaces, rows, 0), flat(row, spaces, rows, 1), double(row, spaces, rows, 2)
    f, limit = np.float32(c[0, 0]), np.float32(c[0, 1])
    for i in range(u.size):
        g = smaller(u[i] * f, limit)
        out[i] = larger(g, -limit)


def add_l2(row: int, spaces: int, rows: int) -> None:
    u, p, out = flat(row, spaces, rows, 0), flat(row, spaces, rows, 1), flat(row, spaces, rows, 2)
    c = double(row, spaces, rows, 3)
    f, strength = np.float32(c[0, 0]), np.float32(c[0, 1])
    for i in range(u.size):
        out[i] = u[i] * f + p[i] * strength


def add_l1(row: int, spaces: int, rows: int) -> None:
    u, p, out = flat(row, spaces, rows, 0), flat(row, spaces, rows, 1), flat(row, spaces, rows, 2)
    c = double(row, spaces, rows, 3)
    f, strength = np.float32(c[0, 0]), np.float32(c[0, 1])
    for i in range(u.size):
        sign = _ONE if p[i] > _ZERO else (-_ONE if p[i] < _ZERO else p[i])  # 0 and NaN are their own signs
        out[i] = u[i] * f + sign * strength


def decay(row: int, spaces: int, rows: int) -> None:
    p, c = flat(row, spaces, rows, 0), double(row, spaces, rows, 1)
    keep = np.float32(c[0, 1])
    for i in range(p.size):
        p[i] *= keep


def trace(row: int, spaces: int, rows: int) -> None:
    u, b, c = flat(row, spaces, rows, 0), flat(row, spaces, rows, 1), double(row, spaces, rows, 2)
    f, momentum = np.float32(c[0, 0]), np.float32(c[0, 1])
    for i in range(u.size):
        b[i] = normal(b[i] * momentum + u[i] * f)


def nesterov(row: int, spaces: int, rows: int) -> None:
    u, b, out = flat(row, spaces, rows, 0), flat(row, spaces, rows, 1), flat(row, spaces, rows, 2)
    c = double(row, spaces, rows, 3)
    f, momentum = np.float32(c[0, 0]), np.float32(c[0, 1])
    for i in range(u.size):
        g = u[i] * f
        b[i] = normal(b[i] * momentum + g)
        out[i] = g + b[i] * momentum


def adagrad(row: int, spaces: int, rows: int) -> None:
    u, s, out = flat(row, spaces, rows, 0), flat(row, spaces, rows, 1), flat(row, spaces, rows, 2)
    c = double(row, spaces, rows, 3)
    f, epsilon = np.float32(c[0, 0]), np.float32(c[0, 1])
    for i in range(u.size):
        g = u[i] * f
        s[i] += g * g
        out[i] = g / (np.sqrt(s[i]) + epsilon)


def rms(row: int, spaces: int, rows: int) -> None:
    u, v, out = flat(row, spaces, rows, 0), flat(row, spaces, rows, 1), flat(row, spaces, rows, 2)
    c = double(row, spaces, rows, 3)
    f, kept = np.float32(c[0, 0]), np.float32(c[0, 1])
    rest, epsilon = np.float32(c[0, 2]), np.float32(c[0, 3])
    for i in range(u.size):
        g = u[i] * f
        v[i] = normal(v[i] * kept + (g * g) * rest)
        out[i] = g / (np.sqrt(v[i]) + epsilon)


def centered_rms(row: int, spaces: int, rows: int) -> None:
    u, v, m = flat(row, spaces, rows, 0), flat(row, spaces, rows, 1), flat(row, spaces, rows, 2)
    out, c = flat(row, spaces, rows, 3), double(row, spaces, rows, 4)
    f, kept = np.float32(c[0, 0]), np.float32(c[0, 1])
    rest, epsilon = np.float32(c[0, 2]), np.float32(c[0, 3])
    for i in range(u.size):
        g = u[i] * f
        v[i] = normal(v[i] * kept + (g * g) * rest)
        m[i] = normal(m[i] * kept + g * rest)
        out[i] = g / (np.sqrt(larger(v[i] - m[i] * m[i], _ZERO)) + epsilon)


def adam(row: int, spaces: int, rows: int) -> None:
    u, m, v = flat(row, spaces, rows, 0), flat(row, spaces, rows, 1), flat(row, spaces, rows, 2)
    out, c = flat(row, spaces, rows, 3), double(row, spaces, rows, 4)
    f, beta1 = np.float32(c[0, 0]), np.float32(c[0, 1])
    beta2, epsilon = np.float32(c[0, 2]), np.float32(c[0, 3])
    rest1, rest2 = np.float32(1 - c[0, 1]), np.float32(1 - c[0, 2])
    for i in range(u.size):
        g = u[i] * f
        m[i] = normal(m[i] * beta1 + rest1 * g)
        v[i] = normal(v[i] * beta2 + rest2 * (g * g))
        out[i] = m[i] / (np.sqrt(v[i]) + epsilon)


def descend(row: int, spaces: int, rows: int) -> None:
    u, p, c = flat(row, spaces, rows, 0), flat(row, spaces, rows, 1), double(row, spaces, rows, 2)
    f = np.float32(c[0, 0])
    for i in range(u.size):
        p[i] -= u[i] * f
