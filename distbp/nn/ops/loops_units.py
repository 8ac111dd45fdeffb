"""The ops of `units`, compiled (Numba, optional)."""

from __future__ import annotations

import numpy as np

from distbp.nn.ops.rows import flat, real, single


def times(row: int, spaces: int, rows: int) -> None:
    a, out, factor = flat(row, spaces, rows, 0), flat(row, spaces, rows, 1), np.float32(real(row, 0))
    for i in range(out.size):
        out[i] = a[i] * factor


def multiply_row(row: int, spaces: int, rows: int) -> None:
    a, one = single(row, spaces, rows, 0), flat(row, spaces, rows, 1)
    out = single(row, spaces, rows, 2)
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            out[i, j] = a[i, j] * one[j]


def sum_products(row: int, spaces: int, rows: int) -> None:
    a, b = single(row, spaces, rows, 0), single(row, spaces, rows, 1)
    out = flat(row, spaces, rows, 2)
    out[:] = 0
    for i in range(a.shape[0]):
        for j in range(a.shape[1]):
            out[j] += a[i, j] * b[i, j]


def blend(row: int, spaces: int, rows: int) -> None:
    a, b = single(row, spaces, rows, 0), single(row, spaces, rows, 1)
    share, out = flat(row, spaces, rows, 2), single(row, spaces, rows, 3)
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            out[i, j] = a[i, j] + share[j] * (b[i, j] - a[i, j])


def blend_backward(row: int, spaces: int, rows: int) -> None:
    a, b = single(row, spaces, rows, 0), single(row, spaces, rows, 1)
    share, d = flat(row, spaces, rows, 2), single(row, spaces, rows, 3)
    db, dshare = single(row, spaces, rows, 4), flat(row, spaces, rows, 5)
    dshare[:] = 0
    for i in range(d.shape[0]):
        for j in range(d.shape[1]):
            one = d[i, j]
            dshare[j] += one * (b[i, j] - a[i, j])
            db[i, j] = one * share[j]
            d[i, j] = one - db[i, j]
