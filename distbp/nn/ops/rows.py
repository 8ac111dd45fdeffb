"""The functions by which a compiled op reads its row of the tape (Numba, optional).

A compiled op is a function of three whole numbers: the address of its row, the address of the table of
spaces, and the number of rows in the slice. A row of the tape is WORDS words of 8 bytes, then OPERAND words
for each operand:

    WHOLE whole numbers, REAL real numbers, `when` (see `distbp.nn.tape.Row`), and the address of the compiled
    op that it calls (see `distbp.nn.ops.base.Op.calls`)
    for each operand: space, start, columns, times, plus, per_row, most (see `distbp.nn.tape.Ref`)

The table of spaces holds the address of each space, then the words of `distbp.machine.blas.Gemm`.
"""

from __future__ import annotations

import functools
from typing import Any

from llvmlite import ir
from numba import types

from distbp.machine.jit import callback, inner
from distbp.machine.pointers import call_at, emits, intrinsic
from distbp.machine.structures import WORD, array_at, load, word
from distbp.nn.ops.base import REAL, WHOLE

WORDS, OPERAND = WHOLE + REAL + 2, 7
WHEN, CALLED = WHOLE + REAL, WHOLE + REAL + 1
SPACES = 11
POSITION, LONGEST = 7, 5  # the space with the steps of the longest row, and their place in it
PRODUCTS = SPACES  # the place in the table of spaces at which the words of `Gemm` begin

_signature = types.void(types.int64, types.int64, types.int64)


@functools.cache  # keeps the compiled function alive as long as its address may be used
def compiled(function: Any) -> Any:
    """Compiles a function of three whole numbers, such as (row, spaces, rows) of an op, or loads its code;
    waits. Compiled code calls the result by `address`, Python by `ctypes`, without the GIL."""
    return callback(_signature, function)


def _literal(number: Any) -> int:
    """The value of an argument that is a literal in the code of an op."""
    return int(number.literal_value)


def _reader(kind: Any, bits: ir.Type, first: int) -> Any:
    """An intrinsic (row, number), which returns word `first + number` of a row as a `kind`."""

    def read(context: Any, row: Any, number: Any) -> Any:
        if not isinstance(number, types.IntegerLiteral):
            return None

        def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            return load(builder, values[0], first + _literal(number), bits)

        return kind(types.int64, number), code

    return intrinsic(prefer_literal=True)(read)


def _left_out(builder: Any, row: Any, spaces: Any, most: Any) -> Any:
    """Emits the number of steps, out of `most`, that no row of the slice has; 0 if `most` is 0. The code has
    no branch, so it always reads a word: of the row, if `most` is 0 and there may be no space POSITION."""
    nothing = ir.Constant(WORD, 0)
    cut = builder.icmp_signed(">", most, nothing)
    position = builder.select(cut, load(builder, spaces, POSITION), row)
    over = builder.sub(most, load(builder, position, LONGEST))
    return builder.select(builder.and_(cut, builder.icmp_signed(">", over, nothing)), over, nothing)


def _viewer(kind: Any, axes: int) -> Any:
    """An intrinsic (row, spaces, rows, number), which returns an operand: a matrix; flat if `axes` is 1."""
    array_type, size = types.Array(kind, axes, "C"), kind.bitwidth // 8

    def view(context: Any, row: Any, spaces: Any, rows: Any, number: Any) -> Any:
        if not isinstance(number, types.IntegerLiteral):
            return None

        def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            row, spaces, rows, _ = values
            first = WORDS + OPERAND * _literal(number)
            space, start, n, times, plus, per_row, most = (
                load(builder, row, first + i) for i in range(OPERAND)
            )
            times = builder.sub(times, _left_out(builder, row, spaces, most))
            base = load(builder, builder.add(spaces, builder.mul(space, ir.Constant(WORD, 8))), 0)
            start = builder.add(start, builder.mul(rows, per_row))
            address = builder.add(base, builder.mul(start, ir.Constant(WORD, size)))
            m = builder.add(builder.mul(rows, times), plus)
            shape = (m, n) if axes == 2 else (builder.mul(m, n),)
            return array_at(context, builder, array_type, address, shape)

        return array_type(types.int64, types.int64, types.int64, number), code

    return intrinsic(prefer_literal=True)(view)


whole, real = _reader(types.int64, WORD, 0), _reader(types.float64, ir.DoubleType(), WHOLE)
single, flat = _viewer(types.float32, 2), _viewer(types.float32, 1)
labels, double = _viewer(types.int64, 2), _viewer(types.float64, 2)


@emits(types.void, *[types.int64] * 4)
def call_op(builder: Any, address: Any, row: Any, spaces: Any, rows: Any) -> None:
    """Calls the compiled op at an address."""
    call_at(builder, ir.VoidType(), address, [row, spaces, rows])


@emits(types.void, *[types.int64] * 3)
def call_other(builder: Any, row: Any, spaces: Any, rows: Any) -> None:
    """Calls the op whose address is in the row (`Op.calls`), with the operands of the row."""
    call_at(builder, ir.VoidType(), load(builder, row, CALLED), [row, spaces, rows])


@inner
def runs(row: int, spaces: int) -> bool:
    """Whether an op runs on this slice (see `distbp.nn.tape.Row`)."""
    when = word(row + 8 * WHEN)
    if when == 0:
        return True
    longest = word(word(spaces + 8 * POSITION) + 8 * LONGEST)
    return bool(when <= longest if when > 0 else -when > longest)
