"""Matrix products of a BLAS library, called from compiled code by address (Numba, optional).

A function is given by its address, that of cblas_sgemm. A call adds a few nanoseconds to the library's own
work; a call through NumPy adds about a microsecond. Compiled code is for float32 alone.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types

from distbp.machine.jit import callback, inner
from distbp.machine.pointers import intrinsic

_ROW_MAJOR = 101  # CBLAS_LAYOUT
PLAIN, TRANSPOSED = 111, 112  # CBLAS_TRANSPOSE
SMALL = 1_000_000  # multiplications; OpenBLAS has kernels of their own for products up to this size
# A product with a matrix that is this small, or narrow, the library's functions for small products make
# faster, strip by strip, than the ones for large products: at 115 GFLOP/s in place of 95 on one AMD EPYC.
STRIP, NARROW = 40, 32  # the fewest rows of a strip; columns
MOST_TERMS = 1 << 16  # of products of our own; on the matrix unit an operand is packed over all of them


@intrinsic  # type: ignore[untyped-decorator]
def _sgemm(
    context: Any, address: Any, layout: Any, left: Any, right: Any, m: Any, n: Any, k: Any, alpha: Any,
    a: Any, lda: Any, b: Any, ldb: Any, beta: Any, c: Any, ldc: Any,
) -> Any:  # fmt: skip
    """Calls the function at an address as cblas_sgemm. Whole numbers are passed with 64 bits: a library that
    takes 32 reads the lower half, on x86-64 and on 64-bit ARM."""
    whole, single, word, scalar = types.int64, types.float32, ir.IntType(64), ir.FloatType()
    wanted = (*(whole,) * 7, single, *(whole,) * 4, single, *(whole,) * 2)
    called = (*(word,) * 6, scalar, *(word,) * 4, scalar, *(word,) * 2)

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        function = ir.FunctionType(ir.VoidType(), called).as_pointer()
        builder.call(builder.inttoptr(values[0], function), values[1:])
        return context.get_dummy_value()

    return types.void(*wanted), code


@inner
def call_sgemm(
    address: int, left: int, right: int, m: int, n: int, k: int, a: int, lda: int, b: int, ldb: int,
    kept: float, c: int, ldc: int,
) -> None:  # fmt: skip
    """c <- op(a) op(b) + kept * c, by the cblas_sgemm at an address. Waits. Whoever calls keeps the
    memory."""
    _sgemm(address, _ROW_MAJOR, left, right, m, n, k, np.float32(1), a, lda, b, ldb, kept, c, ldc)


@inner
def strips_of(fast: int, terms: bool, m: int, n: int, k: int) -> int:
    """Into how many strips a product of plain right operand is cut, (m, n) of k terms. terms: whether strips
    are terms, else rows. fast: as `distbp.machine.blas.Gemm.strips`. The rows decide nothing but the number
    of strips."""
    size, rows = m * n * k, k if terms else m
    cut = terms and (m < NARROW or n < NARROW)
    if fast:
        cut = cut or n < NARROW or size * STRIP <= SMALL * rows
    if size <= SMALL or not cut:
        return 1
    most = SMALL * rows // size
    return rows if most < 1 else (rows + most - 1) // most


@cache  # keeps the compiled function alive as long as its address may be used
def compiled_as_sgemm(function: Callable[..., None]) -> Any:
    """`function` compiled as a callback with the arguments of cblas_sgemm, all whole numbers with 64 bits.

    Its `address` is that of the C function."""
    whole, single = types.int64, types.float32
    return callback(types.void(*(whole,) * 6, single, *(whole,) * 4, single, *(whole,) * 2), function)
