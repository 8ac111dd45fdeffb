"""The three matrix products of a dense layer, and who computes them.

    nt(a, b, out)   out <- a b^T     forward:          x W^T
    tn(a, b, out)   out <- a^T b     weight gradient:  dz^T x
    nn(a, b, out)   out <- a b       input gradient:   dz W

All arrays are C-contiguous and of one dtype, and `out` is none of the others. Which library computes them
decides the last bits, so it is part of the numerics fingerprint. The bits may also depend on where operands
lie relative to 64 bytes, so whoever makes buffers keeps that fixed (`Arena`, `ShardReader`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from distbp.nn.arrays import Array

Product = Callable[[Array, Array, Array], None]


@dataclass(frozen=True)
class Products:
    nt: Product
    tn: Product
    nn: Product


def _nt(a: Array, b: Array, out: Array) -> None:
    np.matmul(a, b.T, out=out)


def _tn(a: Array, b: Array, out: Array) -> None:
    np.matmul(a.T, b, out=out)


def _nn(a: Array, b: Array, out: Array) -> None:
    np.matmul(a, b, out=out)


NUMPY_PRODUCTS = Products(_nt, _tn, _nn)
