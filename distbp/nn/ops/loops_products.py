"""The products of `products` as compiled ops (Numba, optional)."""

from __future__ import annotations

import numpy as np

from distbp.core.arrays import Array
from distbp.machine.blas import SMALL
from distbp.machine.gemm import MOST_TERMS, call_sgemm, is_direct, strips_of
from distbp.machine.gemm import PLAIN as _PLAIN
from distbp.machine.gemm import TRANSPOSED as _TRANSPOSED
from distbp.machine.jit import inner
from distbp.machine.lanes import LANES
from distbp.machine.own_products.strips import transpose_lanes
from distbp.machine.pointers import compact
from distbp.machine.scalars import index, smaller
from distbp.machine.structures import address_of, word
from distbp.machine.vectors import clear
from distbp.nn.ops.rows import PRODUCTS, single, whole

# NumPy integers are not constants for Numba, so `multiply` is compiled only once for all its callers.
PLAIN, TRANSPOSED = np.int64(_PLAIN), np.int64(_TRANSPOSED)


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
    """c (m, n) <- op(a) op(b) + kept * c, by the functions in the table of spaces. a, b, c: addresses of
    float32 matrices; lda, ldb, ldc: the elements from one row to the next; k: the number of terms; left,
    right: PLAIN or TRANSPOSED. A product that is cut (`strips_of`) is computed strip by strip. A strip is
    some rows of c, or some of the terms if the left matrix is transposed."""
    compact()
    at = spaces + 8 * PRODUCTS
    large, small, own, least = word(at), word(at + 8), word(at + 16), word(at + 24)
    direct = word(at + 40)
    size, terms = m * n * k, left == TRANSPOSED
    rows, strips = k if terms else m, strips_of(word(at + 32), terms, m, n, k) if right == PLAIN else 1
    function = small if size <= SMALL or strips > 1 else large
    if direct != 0 and is_direct(right == TRANSPOSED, m, n, k, strips):
        function = direct
    # OpenBLAS is slow with a transposed right operand.
    elif strips == 1 and (size > SMALL or right == TRANSPOSED):
        ours = own != 0 and kept == 0 and smaller(smaller(m, n), k) >= least and k <= MOST_TERMS
        function = own if ours else function
    for strip in range(strips):
        first = strip * rows // strips
        count = (strip + 1) * rows // strips - first
        added = np.float32(kept or (terms and strip > 0))
        from_b, to = (4 * first * ldb, 0) if terms else (0, 4 * first * ldc)
        m, k = (m, count) if terms else (count, k)
        call_sgemm(
            function, left, right, m, n, k, a + 4 * first * lda, lda, b + from_b, ldb, added, c + to, ldc
        )


def nt(row: int, spaces: int, rows: int) -> None:
    compact()
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
    compact()
    a, b, out = single(row, spaces, rows, 0), single(row, spaces, rows, 1), single(row, spaces, rows, 2)
    (m, n), k = out.shape, a.shape[1]
    multiply(
        spaces, PLAIN, PLAIN, m, n, k, address_of(a), k, address_of(b), n, whole(row, 0), address_of(out), n
    )


@inner
def weight_gradient(
    spaces: int,
    rows: int,
    a: int,
    units: int,
    b: int,
    features: int,
    kept: int,
    begin: int,
    end: int,
    out: int,
) -> None:
    """out (end - begin, features) <- the columns [begin, end) of a (rows, units), transposed, times b (rows,
    features); 0 if there are no rows. a, b, out: addresses. If `kept` is 1, the product is added."""
    compact()
    count, first = end - begin, a + 4 * begin
    if rows == 0 and not kept:
        clear(out, 4 * count * features)
        return
    multiply(spaces, TRANSPOSED, PLAIN, count, features, rows, first, units, b, features, kept, out, features)


def tn(row: int, spaces: int, rows: int) -> None:
    compact()
    a, b, out = single(row, spaces, rows, 0), single(row, spaces, rows, 1), single(row, spaces, rows, 2)
    units, features, many = a.shape[1], b.shape[1], whole(row, 1)
    for start in range(0, units, many):
        stop, to = smaller(start + many, units), address_of(out) + 4 * start * features
        weight_gradient(
            spaces, a.shape[0], address_of(a), units, address_of(b), features, whole(row, 0), start, stop, to
        )


@inner
def deferred_part(row: int, spaces: int, rows: int, begin: int, end: int, out: int) -> None:
    """Computes the units [begin, end) of a deferred product. row: address of the op's row of the tape. out:
    address of the result, (end - begin, features)."""
    a, b, kept = single(row, spaces, rows, 0), single(row, spaces, rows, 1), np.int64(0)
    units, features = a.shape[1], b.shape[1]
    weight_gradient(spaces, a.shape[0], address_of(a), units, address_of(b), features, kept, begin, end, out)


def transpose(row: int, spaces: int, rows: int) -> None:
    compact()
    a, out = single(row, spaces, rows, 0), single(row, spaces, rows, 1)
    (m, n), whole_lines, whole_lanes = a.shape, a.shape[0] // LANES * LANES, a.shape[1] // LANES * LANES
    for i in range(0, whole_lines, LANES):
        for j in range(0, whole_lanes, LANES):
            source, to = address_of(a) + 4 * (i * n + j), address_of(out) + 4 * (j * m + i)
            transpose_lanes(source, 4 * n, LANES, LANES, to, 4 * m)
    for j in range(n):
        for i in range(whole_lines if j < whole_lanes else 0, m):
            out[j, index(i)] = a[index(i), j]


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
