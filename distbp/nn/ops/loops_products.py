"""The products of `products` as compiled ops (Numba, optional)."""

from __future__ import annotations

import numpy as np

from distbp.core.arrays import Array
from distbp.machine.gemm import MOST_TERMS, SMALL, call_sgemm
from distbp.machine.gemm import PLAIN as _PLAIN
from distbp.machine.gemm import TRANSPOSED as _TRANSPOSED
from distbp.machine.jit import inner
from distbp.machine.scalars import larger, smaller
from distbp.machine.structures import address_of, floats, word
from distbp.nn.ops.rows import PRODUCTS, single, whole

# NumPy's numbers, and so those of arguments that are not constants: `multiply` is compiled once for all its
# callers.
PLAIN, TRANSPOSED = np.int64(_PLAIN), np.int64(_TRANSPOSED)
_LINE = 16  # float32 numbers in 64 bytes
# A gradient of fewer rows or columns, of many terms each, OpenBLAS makes faster in parts of at most SMALL
# multiplications, for which it has functions of their own.
_NARROW = 32


@inner
def multiply(
    spaces: int,
    left: int,
    right: int,
    m: int,
    n: int,
    k: int,
    a: int,
    lda: int,
    b: int,
    ldb: int,
    kept: int,
    c: int,
    ldc: int,
) -> None:
    """c (m, n) <- op(a) op(b) + kept * c, of float32 matrices by their addresses; by the functions in the
    table of spaces."""
    at = spaces + 8 * PRODUCTS
    large, small, own, least = word(at), word(at + 8), word(at + 16), word(at + 24)
    function = small if m * n * k <= SMALL else large
    if m * n * k > SMALL or right == TRANSPOSED:  # OpenBLAS takes its time to read a right operand by columns
        ours = own != 0 and kept == 0 and smaller(smaller(m, n), k) >= least and k <= MOST_TERMS
        function = own if ours else function
    call_sgemm(function, left, right, m, n, k, a, lda, b, ldb, np.float32(kept), c, ldc)


def nt(row: int, spaces: int, rows: int) -> None:
    a, b, out = single(row, spaces, rows, 0), single(row, spaces, rows, 1), single(row, spaces, rows, 2)
    (m, n), k = out.shape, a.shape[1]
    multiply(
        spaces,
        PLAIN,
        TRANSPOSED,
        m,
        n,
        k,
        address_of(a),
        k,
        address_of(b),
        k,
        whole(row, 0),
        address_of(out),
        n,
    )


def nn(row: int, spaces: int, rows: int) -> None:
    a, b, out = single(row, spaces, rows, 0), single(row, spaces, rows, 1), single(row, spaces, rows, 2)
    (m, n), k = out.shape, a.shape[1]
    multiply(
        spaces, PLAIN, PLAIN, m, n, k, address_of(a), k, address_of(b), n, whole(row, 0), address_of(out), n
    )


@inner
def weight_gradient(spaces: int, a: Array, b: Array, kept: int, begin: int, end: int, out: int) -> None:
    """Columns [begin, end) of a, transposed, times b, to the address `out`; of no rows this is 0."""
    rows, units, features = a.shape[0], a.shape[1], b.shape[1]
    if rows == 0 and not kept:
        floats(out, (end - begin) * features)[:] = 0
        return
    parts = 1
    if smaller(end - begin, features) < _NARROW:
        parts = larger(1, smaller(rows, -(-rows * (end - begin) * features // SMALL)))
    for part in range(parts):
        first, last = part * rows // parts, (part + 1) * rows // parts
        multiply(
            spaces,
            TRANSPOSED,
            PLAIN,
            end - begin,
            features,
            last - first,
            address_of(a) + 4 * (first * units + begin),
            units,
            address_of(b) + 4 * first * features,
            features,
            np.int64(kept or part > 0),
            out,
            features,
        )


def tn(row: int, spaces: int, rows: int) -> None:
    a, b, out = single(row, spaces, rows, 0), single(row, spaces, rows, 1), single(row, spaces, rows, 2)
    units, features, many = a.shape[1], b.shape[1], whole(row, 1)
    for start in range(0, units, many):
        stop = smaller(start + many, units)
        weight_gradient(spaces, a, b, whole(row, 0), start, stop, address_of(out) + 4 * start * features)


@inner
def deferred_part(row: int, spaces: int, rows: int, begin: int, end: int, out: int) -> None:
    """Units [begin, end) of the product of a row of the tape, to the address `out`."""
    a, b = single(row, spaces, rows, 0), single(row, spaces, rows, 1)
    weight_gradient(spaces, a, b, 0, begin, end, out)


def transpose(row: int, spaces: int, rows: int) -> None:
    a, out = single(row, spaces, rows, 0), single(row, spaces, rows, 1)
    for first in range(0, a.shape[0], _LINE):  # so that a line of a cache is written at once
        last = smaller(first + _LINE, a.shape[0])
        for j in range(a.shape[1]):
            for i in range(first, last):
                out[j, i] = a[i, j]


@inner
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
