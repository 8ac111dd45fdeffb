"""Matrix products called from compiled code, by the BLAS library whose address is given (Numba, optional).

A function is given by its address, that of cblas_sgemm (float32) or cblas_dgemm (float64). A call costs a few
nanoseconds more than the library's own work, where one through NumPy costs about a microsecond.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from distbp.nn.arrays import Array
from distbp.nn.blas import Gemm
from distbp.nn.jit import callback, inner, jit

_ROW_MAJOR = 101  # CBLAS_LAYOUT
PLAIN, TRANSPOSED = 111, 112  # CBLAS_TRANSPOSE
SMALL = 1_000_000  # multiplications; OpenBLAS has kernels of their own for products up to this size
# Into fewer columns than that, a vector register of float32, the product with a transposed matrix takes twice
# as long as the one with a copy of it the other way round.
NARROW = 16
MOST_TERMS = 1 << 16  # of products of our own; on the matrix unit an operand is packed over all of them


def _caller(scalar: Any, scalar_ir: ir.Type) -> Any:
    """An intrinsic that calls the function at an address as cblas_?gemm. Whole numbers are passed with 64
    bits: a library that takes 32 reads the lower half, on x86-64 and on 64-bit ARM."""
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


@inner
def call_sgemm(
    address: int, left: int, right: int, m: int, n: int, k: int, a: int, lda: int, b: int, ldb: int, kept: float, c: int,
    ldc: int,
) -> None:  # fmt: skip
    """c <- op(a) op(b) + kept * c, by the cblas_sgemm at an address. Waits. Whoever calls keeps the memory."""
    _single(address, _ROW_MAJOR, left, right, m, n, k, np.float32(1), a, lda, b, ldb, kept, c, ldc)


@jit
def _transposed(b: Array) -> Array:
    """A copy of b^T that begins at a multiple of 64 bytes: the last bits of a product may depend on that."""
    rows, columns = b.shape
    room = np.empty(rows * columns + 64 // b.itemsize, b.dtype)
    start = -room.ctypes.data % 64 // b.itemsize
    copy = room[start : start + rows * columns].reshape(columns, rows)
    for i in range(rows):
        for j in range(columns):
            copy[j, i] = b[i, j]
    return copy


@jit
def _call(address: int, left: int, right: int, a: Array, b: Array, kept: float, out: Array) -> None:
    """Waits. Whoever calls keeps all three arrays: a compiled function lets go of one after it has last used
    it, and the memory of one that it made itself is then free, whatever address was taken before."""
    m, n = out.shape
    k = a.shape[0] if left == TRANSPOSED else a.shape[1]
    at, bt, to = a.ctypes.data, b.ctypes.data, out.ctypes.data
    lda, ldb, ldc = a.strides[0] // a.itemsize, b.strides[0] // b.itemsize, out.strides[0] // out.itemsize
    if a.itemsize == 4:
        one, beta = np.float32(1), np.float32(kept)
        _single(address, _ROW_MAJOR, left, right, m, n, k, one, at, lda, bt, ldb, beta, to, ldc)
    else:
        _double(address, _ROW_MAJOR, left, right, m, n, k, 1.0, at, lda, bt, ldb, kept, to, ldc)


@jit
def product(gemm: Gemm, left: int, right: int, a: Array, b: Array, out: Array) -> None:
    """out <- op(a) op(b), where op is PLAIN or TRANSPOSED; rows of all three may be further apart than they
    are long. All of one dtype, that of the functions of `gemm`."""
    m, n = out.shape
    k = a.shape[0] if left == TRANSPOSED else a.shape[1]
    if m * n * k > SMALL:
        ours = gemm.own != 0 and min(m, n, k) >= gemm.least and k <= MOST_TERMS
        _call(gemm.own if ours else gemm.large, left, right, a, b, 0.0, out)
    elif n < NARROW <= m and left == PLAIN and right == TRANSPOSED:
        copy = _transposed(b)
        _call(gemm.small, left, PLAIN, a, copy, 0.0, out)
    else:
        _call(gemm.small, left, right, a, b, 0.0, out)


@jit
def add_product(gemm: Gemm, left: int, right: int, a: Array, b: Array, out: Array) -> None:
    """out += op(a) op(b), by the library: products of our own do not add."""
    small = out.shape[0] * out.shape[1] * (a.shape[0] if left == TRANSPOSED else a.shape[1]) <= SMALL
    _call(gemm.small if small else gemm.large, left, right, a, b, 1.0, out)


@cache  # which keeps what was compiled as long as its address may be used
def compiled_as_sgemm(function: Callable[..., None]) -> Any:
    """`function` compiled, to be called by its `address` with the arguments of cblas_sgemm, all whole numbers
    of 64 bits."""
    whole, single = types.int64, types.float32
    return callback(types.void(*(whole,) * 6, single, *(whole,) * 4, single, *(whole,) * 2), function)
