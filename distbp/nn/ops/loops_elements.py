"""The ops of `elements`, compiled (Numba, optional)."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types

from distbp.core.streams import Purpose
from distbp.machine.pointers import emits
from distbp.machine.scalars import index, larger
from distbp.nn.ops.elements import DROPOUT_LEVELS, flat_cosine
from distbp.nn.ops.rows import flat, labels, real, single, whole

_inline: Any = njit(inline="always", error_model="numpy")


def add(row: int, spaces: int, rows: int) -> None:
    a, b = flat(row, spaces, rows, 0), flat(row, spaces, rows, 1)
    out = flat(row, spaces, rows, 2)
    for i in range(out.size):
        out[i] = a[i] + b[i]


def multiply(row: int, spaces: int, rows: int) -> None:
    a, b = flat(row, spaces, rows, 0), flat(row, spaces, rows, 1)
    out = flat(row, spaces, rows, 2)
    for i in range(out.size):
        out[i] = a[i] * b[i]


def copy(row: int, spaces: int, rows: int) -> None:
    a, out = flat(row, spaces, rows, 0), flat(row, spaces, rows, 1)
    for i in range(out.size):
        out[i] = a[i]


def copy_columns(row: int, spaces: int, rows: int) -> None:
    a, out = single(row, spaces, rows, 0), single(row, spaces, rows, 1)
    source, target, count = whole(row, 0), whole(row, 1), whole(row, 2)
    for i in range(a.shape[0]):
        for j in range(count):
            out[i, index(target + j)] = a[i, index(source + j)]


def steps_first(row: int, spaces: int, rows: int) -> None:
    a, out = single(row, spaces, rows, 0), single(row, spaces, rows, 1)
    features = out.shape[1]
    steps = out.shape[0] // larger(1, a.shape[0])
    for i in range(a.shape[0]):
        for t in range(steps):
            for j in range(features):
                out[t * a.shape[0] + i, j] = a[i, index(t * features + j)]


def samples_first(row: int, spaces: int, rows: int) -> None:
    a, out = single(row, spaces, rows, 0), single(row, spaces, rows, 1)
    features = a.shape[1]
    steps = a.shape[0] // larger(1, out.shape[0])
    for i in range(out.shape[0]):
        for t in range(steps):
            for j in range(features):
                out[i, index(t * features + j)] = a[t * out.shape[0] + i, j]
        for k in range(steps * features, out.shape[1]):
            out[i, index(k)] = np.float32(0)


def fill(row: int, spaces: int, rows: int) -> None:
    out, value = flat(row, spaces, rows, 0), np.float32(real(row, 0))
    for i in range(out.size):
        out[i] = value


@emits(types.uint64, types.uint64, types.uint64)
def _high_product(builder: Any, a: Any, b: Any) -> Any:
    """The upper 64 bits of the product of two uint64 numbers."""
    wide = ir.IntType(128)
    product = builder.mul(builder.zext(a, wide), builder.zext(b, wide))
    return builder.trunc(builder.lshr(product, wide(64)), ir.IntType(64))


# Philox4x64-10: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011, section 4.3 and
# table 2.
_M0, _M1 = np.uint64(0xD2E7470EE14C6C93), np.uint64(0xCA5A826395121157)
_W0, _W1 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBB67AE8584CAA73B)
_PURPOSE = np.uint64(int(Purpose.DROPOUT))
_left = _inline(flat_cosine)


@_inline  # type: ignore[untyped-decorator]
def _philox(c0: Any, c1: Any, c2: Any, c3: Any, k0: Any, k1: Any) -> Any:
    for _ in range(10):
        h0, l0 = _high_product(_M0, c0), _M0 * c0
        h1, l1 = _high_product(_M1, c2), _M1 * c2
        c0, c1, c2, c3 = h1 ^ c1 ^ k0, l1, h0 ^ c3 ^ k1, l0
        k0, k1 = k0 + _W0, k1 + _W1
    return c0, c1, c2, c3


def dropout(row: int, spaces: int, rows: int) -> None:
    """Draws the bits that NumPy's Philox draws at the same position: word n of the stream is word n % 4 at
    counter n // 4 + 1."""
    position = labels(row, spaces, rows, 0)
    x, factors = flat(row, spaces, rows, 1), flat(row, spaces, rows, 2)
    y = flat(row, spaces, rows, 3)
    dropped, factor, zero = whole(row, 0), np.float32(real(row, 0)), np.float32(0)
    if whole(row, 2):
        dropped = np.int64(dropped * _left(position[0, 0], position[0, 3], 0.5) + 0.5)
        factor = np.float32(DROPOUT_LEVELS / (DROPOUT_LEVELS - dropped))
    seed, layer = np.uint64(position[0, 2]), np.uint64(whole(row, 1))
    step, shard = np.uint64(position[0, 0] + position[0, 4]), np.uint64(position[0, 1])
    mask = np.uint64(0xFFFF)
    for block in range((x.size + 15) // 16):
        words = _philox(np.uint64(block + 1), layer, shard, step, seed, _PURPOSE)
        for part in range(16):
            i = 16 * block + part
            if i < x.size:
                word = words[0]
                if part >= 12:
                    word = words[3]
                elif part >= 8:
                    word = words[2]
                elif part >= 4:
                    word = words[1]
                level = np.int64((word >> np.uint64(16 * (part % 4))) & mask)
                factors[i] = factor if level >= dropped else zero
    for i in range(x.size):
        y[i] = x[i] * factors[i]
