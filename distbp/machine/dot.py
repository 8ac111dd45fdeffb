"""Sums of squares in compiled code, with the bits of `distbp.optim.updater.sum_of_squares` (Numba, optional).

They come from the inner products of the BLAS library that `np.vdot` calls, by their addresses.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types

from distbp.core.arrays import Array
from distbp.machine.jit import inner
from distbp.machine.pointers import call_at, emits
from distbp.machine.structures import address_of


def _caller(scalar: Any, scalar_ir: ir.Type) -> Any:
    """An intrinsic that calls the function at an address with the arguments of cblas_?dot. It passes whole
    numbers with 64 bits. A library that takes 32 bits reads the lower half, on x86-64 and on 64-bit ARM."""

    @emits(scalar, *[types.int64] * 6)
    def dot(builder: Any, address: Any, *arguments: Any) -> Any:
        return call_at(builder, scalar_ir, address, arguments)

    return dot


_single = _caller(types.float32, ir.FloatType())
_double = _caller(types.float64, ir.DoubleType())


@inner
def sum_of_squares(single: int, double: int, x: Array) -> float:
    """The sum of squares of `x`: (n,), contiguous float32, at most as long as a piece of the vector. single,
    double: addresses of cblas_sdot and cblas_ddot. Waits.

    Returns NaN if a value is NaN or infinite, and infinity if all values are finite and float64 cannot hold
    the sum."""
    total = np.float64(_single(single, x.size, address_of(x), 1, address_of(x), 1))
    if np.isfinite(total):
        return total
    wide = x.astype(np.float64)  # squares of float32 overflow from 1.8e19 on
    for value in wide:
        if not np.isfinite(value):
            return np.nan
    total = np.float64(_double(double, wide.size, address_of(wide), 1, address_of(wide), 1))
    wide[0] = 0  # it is used by its address until here
    return total
