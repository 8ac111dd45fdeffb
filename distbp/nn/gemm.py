"""Matrix products of a BLAS library, called from compiled code by address (Numba, optional).

The address is that of cblas_sgemm (float32) or cblas_dgemm (float64). A call adds a few nanoseconds to the
library's own work; a call through NumPy adds about a microsecond.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from distbp.nn.arrays import Array
from distbp.nn.blas import Gemm
from distbp.nn.jit import callback, jit
from distbp.nn.products import Products

_ROW_MAJOR = 101  # CBLAS_LAYOUT
PLAIN, TRANSPOSED = 111, 112  # CBLAS_TRANSPOSE
SMALL = 1_000_000  # multiplications; OpenBLAS has special kernels for products up to this size
# Columns: one vector register of float32. Into fewer columns, a product with a transposed matrix takes twice
# as long as a product with a transposed copy of it.
NARROW = 16
MOST_TERMS = 1 << 16  # of products of our own: for the matrix unit an operand is packed over all terms


def _caller(scalar: Any, scalar_ir: ir.Type) -> Any:
    """An intrinsic that calls the function at an address with the arguments of cblas_?gemm. It passes whole
    numbers with 64 bits. A library that takes 32 bits reads the lower half, on x86-64 and on 64-bit ARM."""
    whole, whole_ir = types.int64, ir.IntType(64)
    wanted = (*(whole,) * 7, scalar, *(whole,) * 4, scalar, *(whole,) * 2)
    called = (*(whole_ir,) * 6, scalar_ir, *(whole_ir,) * 4, scalar_ir, *(whole_ir,) * 2)

    def call(
        context: Any, address: Any, layout: Any, left: Any, right: Any, m: Any, n: Any, k: Any, alpha: Any,
        a: Any, lda: Any, b: Any, ldb: Any, beta: Any, c: Any, ldc: Any,
    ) -> Any:  # fmt: skip
        def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            function = ir.FunctionType(ir.VoidType(), called).as_pointer()
            builder.call(builder.inttoptr(values[0], function), values[1:])
            return context.get_dummy_value()

        return types.void(*wanted), code

    return intrinsic(call)


_single = _caller(types.float32, ir.FloatType())
_double = _caller(types.float64, ir.DoubleType())


@jit
def _transposed(b: Array) -> Array:
    """A copy of b^T, (columns, rows), at a multiple of 64 bytes: the last bits of a product may depend on
    that."""
    rows, columns = b.shape
    room = np.empty(rows * columns + 64 // b.itemsize, b.dtype)
    start = -room.ctypes.data % 64 // b.itemsize
    copy = room[start : start + rows * columns].reshape(columns, rows)
    for i in range(rows):
        for j in range(columns):
            copy[j, i] = b[i, j]
    return copy


@jit
def _call(address: int, left: int, right: int, a: Array, b: Array, out: Array) -> None:
    """out <- op(a) op(b) by the function at `address`; waits. The caller must use all three arrays after this
    call or hold them elsewhere. A compiled function frees an array that it made after the last use of the
    array, even if somebody has its address."""
    m, n = out.shape
    k = a.shape[0] if left == TRANSPOSED else a.shape[1]
    at, bt, to = a.ctypes.data, b.ctypes.data, out.ctypes.data
    lda, ldb, ldc = a.strides[0] // a.itemsize, b.strides[0] // b.itemsize, out.strides[0] // out.itemsize
    if a.itemsize == 4:
        one, zero = np.float32(1), np.float32(0)
        _single(address, _ROW_MAJOR, left, right, m, n, k, one, at, lda, bt, ldb, zero, to, ldc)
    else:
        _double(address, _ROW_MAJOR, left, right, m, n, k, 1.0, at, lda, bt, ldb, 0.0, to, ldc)


@jit
def product(gemm: Gemm, left: int, right: int, a: Array, b: Array, out: Array) -> None:
    """out (m, n) <- op(a) op(b), where `left` and `right` say PLAIN or TRANSPOSED for each op; waits.

    All three have the dtype of the functions of `gemm`, float32 or float64, and contiguous rows. The rows may
    be further apart than they are long."""
    m, n = out.shape
    k = a.shape[0] if left == TRANSPOSED else a.shape[1]
    if m * n * k > SMALL:
        ours = gemm.own != 0 and min(m, n, k) >= gemm.least and k <= MOST_TERMS
        _call(gemm.own if ours else gemm.large, left, right, a, b, out)
    elif n < NARROW <= m and left == PLAIN and right == TRANSPOSED:
        copy = _transposed(b)
        _call(gemm.small, left, PLAIN, a, copy, out)
    else:
        _call(gemm.small, left, right, a, b, out)


@jit
def _product(
    large: int, small: int, own: int, least: int, left: int, right: int, a: Array, b: Array, out: Array
) -> None:
    product(Gemm(large, small, own, least), left, right, a, b, out)


@cache  # keeps the compiled function alive as long as its address may be used
def compiled_as_sgemm(function: Callable[..., None]) -> Any:
    """`function` compiled as a callback with the arguments of cblas_sgemm, all whole numbers with 64 bits.

    Its `address` is that of the C function."""
    whole, single = types.int64, types.float32
    return callback(types.void(*(whole,) * 6, single, *(whole,) * 4, single, *(whole,) * 2), function)


def products_by(gemm: Gemm) -> Products:
    """The three products (a b^T, a^T b, a b) by the functions of `gemm`."""
    call = partial(_product, *gemm)  # passing numbers takes half the time of passing a tuple
    return Products(
        partial(call, PLAIN, TRANSPOSED), partial(call, TRANSPOSED, PLAIN), partial(call, PLAIN, PLAIN)
    )
