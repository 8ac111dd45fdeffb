"""Bounds of the gradient, proof that it is finite without a look at each of its elements; and which units
are alive."""

from __future__ import annotations

import numpy as np

from distbp.core.arrays import Array
from distbp.nn.ops.base import Op, Real, Whole


def _largest(values: Array) -> float:
    return float(np.abs(values).max(initial=0.0))


def _bound_product(dz: Array, x: Array, total: Array, whole: Whole, real: Real) -> None:
    """total += a bound of |dz^T x|: each element is a sum over the rows of dz times an input."""
    total[0, 0] += len(dz) * _largest(dz) * _largest(x)


def _bound(values: Array, total: Array, whole: Whole, real: Real) -> None:
    """total += the largest |value|. NaN or infinity where one is among them."""
    total[0, 0] += _largest(values)


def _live_rows(y: Array, kept: Array, total: Array, whole: Whole, real: Real) -> None:
    """total (1, units) += the rows in which y lies in neither of the ranges real[0] to real[1], real[2] to
    real[3]; or where there is a derivative `kept`, in which that is 0.1 or more."""
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
