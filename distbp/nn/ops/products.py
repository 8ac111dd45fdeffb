"""Matrix products, and sums over rows. whole[0]: 1 if the result is added to `out`, else 0."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from distbp.core.arrays import Array
from distbp.nn.ops.base import Op, Real, Whole


def _nt(a: Array, b: Array, out: Array, whole: Whole, real: Real) -> None:
    """out <- a b^T: the forward pass, x W^T."""
    _put(out, whole, a, b.T)


def _nn(a: Array, b: Array, out: Array, whole: Whole, real: Real) -> None:
    """out <- a b: the gradient of the inputs, dz W."""
    _put(out, whole, a, b)


def _tn(a: Array, b: Array, out: Array, whole: Whole, real: Real) -> None:
    """out <- a^T b: the gradient of the weights, dz^T x. The only product that may be deferred.

    whole[1]: the number of rows of `out` that one product computes."""
    _put(out, whole, a.T, b)


def _put(out: Array, whole: Whole, a: Array, b: Array) -> None:
    if whole[0]:
        out += a @ b
    else:
        np.matmul(a, b, out=out)


def _transpose(a: Array, out: Array, whole: Whole, real: Real) -> None:
    """out (columns, rows) <- a^T."""
    np.copyto(out, a.T)


def _sum_rows(a: Array, out: Array, whole: Whole, real: Real) -> None:
    """out (1, columns) <- the sum of the rows of a."""
    total = np.add.reduce(a, axis=0, keepdims=True)
    np.add(out, total, out=out) if whole[0] else np.copyto(out, total)


def _terms(shapes: Sequence[tuple[int, int]]) -> int:
    (rows, columns), _, (m, n) = shapes
    return 2 * m * n * rows * columns // max(1, m)


def _terms_tn(shapes: Sequence[tuple[int, int]]) -> int:
    (rows, _), _, (m, n) = shapes
    return 2 * m * n * rows


_HERE = "distbp.nn.ops.loops_products:"
_BLAS = "the library's; it depends on the shapes and on places relative to 64 bytes"
_IN_PARTS = "; in parts of the first operand's columns, and of the rows where `out` is narrow or small"
PRODUCTS = (
    Op("product_nt", "ffF", _nt, f"{_HERE}nt", _BLAS, _terms, "nt"),
    Op("product_nn", "ffF", _nn, f"{_HERE}nn", _BLAS + "; in strips of rows where b is small", _terms, "nn"),
    Op("product_tn", "ffF", _tn, f"{_HERE}tn", _BLAS + _IN_PARTS, _terms_tn, "tn"),
    Op("transpose", "fF", _transpose, f"{_HERE}transpose"),
    Op("sum_rows", "fF", _sum_rows, f"{_HERE}sum_rows", "row after row"),
)
