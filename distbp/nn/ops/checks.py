"""Bounds, which prove that the gradient is finite without a look at each element; and counts of live rows."""

from __future__ import annotations

import numpy as np

from distbp.core.arrays import Array
from distbp.nn.ops.base import Op, Real, Whole


def _largest(values: Array) -> float:
    return float(np.abs(values).max(initial=0.0))


def _bound_product(dz: Array, x: Array, total: Array, whole: Whole, real: Real) -> None:
    """total (1, 1) += rows * max |dz| * max |x|, a bound of every |element| of dz^T x."""
    total[0, 0] += len(dz) * _largest(dz) * _largest(x)


def _bound(values: Array, total: Array, whole: Whole, real: Real) -> None:
    """total (1, 1) += the largest |value|. The total is not finite if a value is not."""
    total[0, 0] += _largest(values)


def _live_rows(y: Array, kept: Array, total: Array, whole: Whole, real: Real) -> None:
    """total (1, units) += the number of rows in which y (rows, units) lies outside of both ranges, real[0] to
    real[1] and real[2] to real[3], or in which the derivative `kept`, if not absent, is at least 0.1."""
    flat = ((y >= real[0]) & (y <= real[1])) | ((y >= real[2]) & (y <= real[3]))
    if len(kept):
        flat &= kept < 0.1
    total += len(y) - np.add.reduce(flat, axis=0, keepdims=True, dtype=np.float64)


_HERE = "distbp.nn.ops.loops_checks:"
CHECKS = (
    Op("live_rows", "ffD", _live_rows, f"{_HERE}live_rows", "whole numbers, exact in any order"),
    Op("bound_product", "ffD", _bound_product, f"{_HERE}bound_product"),
    Op("bound", "fD", _bound, f"{_HERE}bound"),
)
