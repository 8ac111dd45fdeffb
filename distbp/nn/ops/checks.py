"""Bounds of the gradient, proof that it is finite without a look at each of its elements."""

from __future__ import annotations

import numpy as np

from distbp.nn.arrays import Array
from distbp.nn.ops.base import Op, Real, Whole


def _largest(values: Array) -> float:
    return float(np.abs(values).max(initial=0.0))


def _bound_product(dz: Array, x: Array, total: Array, whole: Whole, real: Real) -> None:
    """total += a bound of |dz^T x|: each element is a sum over the rows of dz times an input."""
    total[0, 0] += len(dz) * _largest(dz) * _largest(x)


def _bound(values: Array, total: Array, whole: Whole, real: Real) -> None:
    """total += the largest |value|. NaN or infinity where one is among them."""
    total[0, 0] += _largest(values)


CHECKS = (
    Op("bound_product", "ffD", _bound_product, "distbp.nn.ops.loops_checks:bound_product"),
    Op("bound", "fD", _bound, "distbp.nn.ops.loops_checks:bound"),
)
