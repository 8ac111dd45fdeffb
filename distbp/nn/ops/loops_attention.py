"""The ops of `attention`, compiled (Numba, optional).

Ops compute one head of one sample after the other, so its scores lie in a near cache until they are used.
Each loop over a row writes one array and reads few others (see `loops_cells`)."""

from __future__ import annotations

import math

import numpy as np

from distbp.core.arrays import Array
from distbp.machine import vector_math
from distbp.machine.jit import inner
from distbp.machine.scalars import index, larger, smaller
from distbp.machine.structures import address_of
from distbp.nn.ops.loops_normalization import lane_sum
from distbp.nn.ops.loops_products import PLAIN, TRANSPOSED, multiply
from distbp.nn.ops.rows import real, single, whole

_ZERO, _ONE = np.float32(0), np.float32(1)


@inner
def _largest(values: Array) -> float:
    """The largest of one or more numbers. If NaN is among them, the result may be NaN or another number.
    Eight lanes stay in a register, as in `lane_sum`."""
    most = values.size - values.size % 8
    a = b = c = d = e = f = g = h = values[0]
    for j in range(0, most, 8):
        a, b = larger(a, values[j]), larger(b, values[j + 1])
        c, d = larger(c, values[j + 2]), larger(d, values[j + 3])
        e, f = larger(e, values[j + 4]), larger(f, values[j + 5])
        g, h = larger(g, values[j + 6]), larger(h, values[j + 7])
    for j in range(most, values.size):
        a = larger(a, values[j])
    return larger(larger(larger(a, b), larger(c, d)), larger(larger(e, f), larger(g, h)))  # type: ignore[no-any-return]


@inner
def _softmax(s: Array, ahead: int, end: int, scale: float) -> None:
    """s (steps, steps) <- softmax(scale * s), row by row: in row i over the columns up to i + ahead that lie
    before `end`, 0 in the others; 0 in rows from `end` on."""
    steps = s.shape[1]
    for i in range(steps):
        seen = larger(0, smaller(end, i + ahead + 1)) if i < end else 0
        if seen:
            here = s[i, :seen]
            for j in range(seen):
                here[j] *= scale
            largest = _largest(here)
            for j in range(seen):
                here[j] = vector_math.exp(here[j] - largest)
            share = _ONE / lane_sum(here)
            for j in range(seen):
                here[j] *= share
        for j in range(seen, steps):
            s[i, index(j)] = _ZERO


def attention(row: int, spaces: int, rows: int) -> None:
    qkv, p, out = single(row, spaces, rows, 0), single(row, spaces, rows, 1), single(row, spaces, rows, 2)
    ends = single(row, spaces, rows, 3)
    heads, steps, ahead = whole(row, 0), whole(row, 1), whole(row, 2)
    units, kept = out.shape[1], np.int64(0)
    size, wide = units // heads, 3 * units
    scale = np.float32(1 / math.sqrt(size))
    for n in range(p.shape[0] // steps):
        first = n // heads * steps
        s = p[n * steps : (n + 1) * steps]
        q = address_of(qkv) + 4 * (first * wide + n % heads * size)
        y = address_of(out) + 4 * (first * units + n % heads * size)
        k, v, a = q + 4 * units, q + 8 * units, address_of(s)
        multiply(spaces, PLAIN, TRANSPOSED, steps, steps, size, q, wide, k, wide, kept, a, steps)
        end = smaller(np.int64(ends[n // heads, 0]), steps) if ends.shape[0] else steps
        _softmax(s, ahead, end, scale)
        multiply(spaces, PLAIN, PLAIN, steps, size, steps, a, steps, v, wide, kept, y, units)


@inner
def _softmax_backward(g: Array, p: Array, scale: float) -> None:
    """g <- scale * (p g - p * the sum of p g over the row), row by row. g, p: (steps, steps)."""
    for i in range(g.shape[0]):
        here, shares = g[i], p[i]
        for j in range(here.size):
            here[j] *= shares[j]
        total = lane_sum(here)
        for j in range(here.size):
            here[j] = (here[j] - shares[j] * total) * scale


def attention_backward(row: int, spaces: int, rows: int) -> None:
    qkv, p, dy = single(row, spaces, rows, 0), single(row, spaces, rows, 1), single(row, spaces, rows, 2)
    room, dqkv = single(row, spaces, rows, 3), single(row, spaces, rows, 4)
    heads, steps = whole(row, 0), whole(row, 1)
    units, kept = dy.shape[1], np.int64(0)
    size, wide = units // heads, 3 * units
    scale = np.float32(1 / math.sqrt(size))
    for n in range(p.shape[0] // steps):
        first = n // heads * steps
        s = p[n * steps : (n + 1) * steps]
        at = 4 * (first * wide + n % heads * size)
        q, dq = address_of(qkv) + at, address_of(dqkv) + at
        d = address_of(dy) + 4 * (first * units + n % heads * size)
        k, v, a, g = q + 4 * units, q + 8 * units, address_of(s), address_of(room)
        dk, dv = dq + 4 * units, dq + 8 * units
        multiply(spaces, TRANSPOSED, PLAIN, steps, size, steps, a, steps, d, units, kept, dv, wide)
        multiply(spaces, PLAIN, TRANSPOSED, steps, steps, size, d, units, v, wide, kept, g, steps)
        _softmax_backward(room, s, scale)
        multiply(spaces, PLAIN, PLAIN, steps, size, steps, g, steps, k, wide, kept, dq, wide)
        multiply(spaces, TRANSPOSED, PLAIN, steps, size, steps, g, steps, q, wide, kept, dk, wide)


def waves(row: int, spaces: int, rows: int) -> None:
    out, base = single(row, spaces, rows, 0), real(row, 0)
    features = out.shape[1]
    for j in range(features):
        slower = base ** (j // 2 * 2 / features)
        for i in range(out.shape[0]):
            a = i / slower
            out[i, j] = np.float32(math.cos(a) if j % 2 else math.sin(a))
