"""Matrix products of a BLAS library, called from compiled code by address (Numba, optional).

A function is given by its address, that of cblas_sgemm. A call adds a few nanoseconds to the library's own
work; a call through NumPy adds about a microsecond. Compiled code is for float32 alone.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from llvmlite import ir
from numba import types

from distbp.machine.blas import FEW_ROWS, MANY_TERMS, NARROW, SMALL, STRIP, TINY
from distbp.machine.jit import callback, inner
from distbp.machine.pointers import call_at, emits

_ROW_MAJOR = 101  # CBLAS_LAYOUT
PLAIN, TRANSPOSED = 111, 112  # CBLAS_TRANSPOSE
MOST_TERMS = 1 << 16  # the most terms of our own products; the matrix unit packs an operand over all terms


# The arguments of cblas_sgemm. Whole numbers are passed with 64 bits. A library that takes 32 bits reads the
# lower half, on x86-64 and on 64-bit ARM.
_WHOLE, _SINGLE = types.int64, types.float32
_ARGUMENTS = (*(_WHOLE,) * 6, _SINGLE, *(_WHOLE,) * 4, _SINGLE, *(_WHOLE,) * 2)


@emits(types.void, *(_WHOLE,) * 10, _SINGLE, *(_WHOLE,) * 2)
def call_sgemm(
    builder: Any, address: Any, left: Any, right: Any, m: Any, n: Any, k: Any, *operands: Any
) -> None:
    """c <- op(a) op(b) + kept * c, by the cblas_sgemm at an address. operands: a, lda, b, ldb, kept, c, ldc.
    Waits. The caller keeps the memory."""
    layout, alpha = ir.IntType(64)(_ROW_MAJOR), ir.FloatType()(1.0)
    call_at(builder, ir.VoidType(), address, [layout, left, right, m, n, k, alpha, *operands])


@inner
def strips_of(fast: int, terms: bool, m: int, n: int, k: int) -> int:
    """The number of strips into which a product (m, n) of k terms is cut; its right operand is not
    transposed. terms: whether a strip consists of terms; else it consists of rows. fast: see
    `distbp.machine.blas.Gemm.strips`. The number of rows (or terms) to cut does not decide whether a product
    above SMALL is cut."""
    size, rows = m * n * k, k if terms else m
    cut = terms and (m < NARROW or n < NARROW)
    if fast:
        cut = cut or n < NARROW or size * STRIP <= SMALL * rows
    if size <= SMALL or not cut:
        return 1
    most = SMALL * rows // size
    return rows if most < 1 else (rows + most - 1) // most


@inner
def is_direct(by_columns: bool, m: int, n: int, k: int, strips: int) -> bool:
    """Whether `direct` of `distbp.machine.blas.Gemm`, if there is one, computes a product (m, n) of k terms.
    by_columns: whether the right operand is transposed. strips: the result of `strips_of`."""
    size = m * n * k
    if by_columns:
        return size >= TINY and m <= FEW_ROWS and k >= MANY_TERMS
    return size >= TINY and (size <= SMALL or strips > 1)


@cache  # keeps the compiled function alive as long as its address may be used
def compiled_as_sgemm(function: Callable[..., None]) -> Any:
    """`function` compiled as a callback with the arguments of cblas_sgemm; whole numbers have 64 bits.

    The result's `address` is the address of the C function."""
    return callback(types.void(*_ARGUMENTS), function)
