"""The products of `products` as compiled ops (Numba, optional)."""

from __future__ import annotations

import numpy as np

from distbp.nn.arrays import Array
from distbp.nn.gemm import MOST_TERMS, PLAIN, SMALL, TRANSPOSED, call_sgemm
from distbp.nn.jit import jit
from distbp.nn.ops.rows import PRODUCTS, single, whole, word

# The gradient of weights is computed for so many units at a time that it stays in a near cache until it is used, in
# the nearest one where few rows make a product of a part as fast as one of the whole.
FEW_ROWS, MORE_ROWS = 32, 128
PART_BYTES, LARGER_PART_BYTES = 48 * 1024, 208 * 1024
LINE = 16  # float32 values in 64 bytes


@jit
def units_at_once(rows: int, units: int, features: int) -> int:
    """Into how large parts the product of a weights' gradient is cut. Part of the numerics, as the shape of a product may
    decide its last bits."""
    if rows <= FEW_ROWS:
        return min(units, max(8, PART_BYTES // (4 * features)))
    if rows <= MORE_ROWS:
        parts = -(-4 * units * features // LARGER_PART_BYTES)
        return min(units, -(-units // (parts * LINE)) * LINE)
    return units


@jit
def _multiply(
    spaces: int, left: int, right: int, m: int, n: int, k: int, a: int, lda: int, b: int, ldb: int, kept: int, c: int,
    ldc: int,
) -> None:  # fmt: skip
    """c (m, n) <- op(a) op(b) + kept * c, of float32 matrices by their addresses; by the functions in the table of spaces."""
    at = spaces + 8 * PRODUCTS
    large, small, own, least = word(at), word(at + 8), word(at + 16), word(at + 24)
    function = small
    if m * n * k > SMALL:
        ours = own != 0 and kept == 0 and min(m, n, k) >= least and k <= MOST_TERMS
        function = own if ours else large
    call_sgemm(function, left, right, m, n, k, a, lda, b, ldb, np.float32(kept), c, ldc)


def nt(row: int, spaces: int, rows: int) -> None:
    a, b, out = single(row, spaces, rows, 0), single(row, spaces, rows, 1), single(row, spaces, rows, 2)
    (m, n), k = out.shape, a.shape[1]
    _multiply(
        spaces, PLAIN, TRANSPOSED, m, n, k, a.ctypes.data, k, b.ctypes.data, k, whole(row, 0), out.ctypes.data, n
    )


def nn(row: int, spaces: int, rows: int) -> None:
    a, b, out = single(row, spaces, rows, 0), single(row, spaces, rows, 1), single(row, spaces, rows, 2)
    (m, n), k = out.shape, a.shape[1]
    _multiply(spaces, PLAIN, PLAIN, m, n, k, a.ctypes.data, k, b.ctypes.data, n, whole(row, 0), out.ctypes.data, n)


@jit
def weight_gradient(spaces: int, a: Array, b: Array, kept: int, begin: int, end: int, out: int) -> None:
    """Columns [begin, end) of a, transposed, times b, to the address `out`."""
    rows, units, features = a.shape[0], a.shape[1], b.shape[1]
    _multiply(
        spaces, TRANSPOSED, PLAIN, end - begin, features, rows, a.ctypes.data + 4 * begin, units, b.ctypes.data, features,
        kept, out, features,
    )  # fmt: skip


def tn(row: int, spaces: int, rows: int) -> None:
    a, b, out = single(row, spaces, rows, 0), single(row, spaces, rows, 1), single(row, spaces, rows, 2)
    units, features = a.shape[1], b.shape[1]
    many = units_at_once(a.shape[0], units, features)
    for start in range(0, units, many):
        stop = min(start + many, units)
        weight_gradient(spaces, a, b, whole(row, 0), start, stop, out.ctypes.data + 4 * start * features)


def transpose(row: int, spaces: int, rows: int) -> None:
    a, out = single(row, spaces, rows, 0), single(row, spaces, rows, 1)
    for i in range(a.shape[0]):
        for j in range(a.shape[1]):
            out[j, i] = a[i, j]


@jit
def add_up_rows(a: Array, out: Array) -> None:
    """out (columns,) += the rows of a."""
    for i in range(a.shape[0]):
        for j in range(a.shape[1]):
            out[j] += a[i, j]


def sum_rows(row: int, spaces: int, rows: int) -> None:
    a, out = single(row, spaces, rows, 0), single(row, spaces, rows, 1)
    if not whole(row, 0):
        out[0, :] = 0
    add_up_rows(a, out[0])
