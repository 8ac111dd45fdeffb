"""Matrices times one factor, or times one factor for each column; and mixtures of two matrices."""

from __future__ import annotations

import numpy as np

from distbp.core.arrays import Array
from distbp.nn.ops.base import Op, Real, Whole, element_ops


def _times(a: Array, out: Array, whole: Whole, real: Real) -> None:
    """out <- real[0] * a; `out` may be `a`."""
    np.multiply(a, a.dtype.type(real[0]), out=out)


def _multiply_row(a: Array, row: Array, out: Array, whole: Whole, real: Real) -> None:
    """out <- a * row: each row of a, times `row` (1, columns); `out` may be `a`."""
    np.multiply(a, row, out=out)


def _sum_products(a: Array, b: Array, out: Array, whole: Whole, real: Real) -> None:
    """out (1, columns) <- the sum over the rows of a * b."""
    np.add.reduce(a * b, axis=0, keepdims=True, out=out)


def _blend(a: Array, b: Array, share: Array, out: Array, whole: Whole, real: Real) -> None:
    """out <- a + share (b - a); share: (1, columns)."""
    np.add(a, share * (b - a), out=out)


def _blend_backward(
    a: Array, b: Array, share: Array, d: Array, db: Array, dshare: Array, whole: Whole, real: Real
) -> None:
    """d: the gradient of `blend`'s output. dshare (1, columns) <- the sum over the rows of d (b - a);
    db <- d * share, the gradient of b; d <- d - db, the gradient of a."""
    np.add.reduce(d * (b - a), axis=0, keepdims=True, out=dshare)
    np.multiply(d, share, out=db)
    np.subtract(d, db, out=d)


_HERE, _OVER_ROWS = "distbp.nn.ops.loops_units:", "row after row"
UNITS = (
    Op("times", "fF", _times, f"{_HERE}times"),
    Op("multiply_row", "ffF", _multiply_row, f"{_HERE}multiply_row"),
    Op("sum_products", "ffF", _sum_products, f"{_HERE}sum_products", _OVER_ROWS, element_ops(2)),
    Op("blend", "fffF", _blend, f"{_HERE}blend", "", element_ops(3)),
    Op("blend_backward", "fffFFF", _blend_backward, f"{_HERE}blend_backward", _OVER_ROWS, element_ops(5)),
)
