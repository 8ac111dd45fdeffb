"""How compiled ops read their row of the tape (Numba, optional).

A compiled op is a function of three whole numbers: the address of its row, the address of the table of
spaces, and the number of rows in the slice. A row is WORDS words of 8 bytes, then OPERAND for each operand:

    whole numbers (WHOLE of them), real numbers (REAL of them), when it runs (see `distbp.nn.tape.Row`)
    for each operand: space, start, columns, times, plus, per row, most (see `distbp.nn.tape.Ref`)

The table of spaces holds the address of each space, and behind them the four words of
`distbp.machine.blas.Gemm`.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.np import arrayobj as _arrayobj

from distbp.machine.jit import callback, inner
from distbp.machine.pointers import intrinsic
from distbp.nn.ops.base import REAL, WHOLE

WORDS, OPERAND = WHOLE + REAL + 1, 7
WHEN = WHOLE + REAL
SPACES = 11
POSITION, LONGEST = 7, 4  # the space that says how many steps the longest row has, and where
PRODUCTS = SPACES  # where the words of the products begin in the table of spaces

_WORD = ir.IntType(64)
arrayobj: Any = _arrayobj
pack: Any = cgutils.pack_array
_signature = types.void(types.int64, types.int64, types.int64)


def compiled(function: Any) -> Any:
    """The compiled op of a function (row, spaces, rows); its `address` is called by the executor."""
    return callback(_signature, function)


def _load(builder: Any, address: Any, number: int, kind: ir.Type = _WORD) -> Any:
    """Word `number` at an address."""
    place = builder.add(address, ir.Constant(_WORD, 8 * number))
    return builder.load(builder.inttoptr(place, kind.as_pointer()))


def _literal(number: Any) -> int:
    """The value of an argument that is written as a number in the code of an op."""
    return int(number.literal_value)


def _reader(kind: Any, bits: ir.Type, first: int) -> Any:
    """An intrinsic (row, number): a number of the row; the first one is word `first`."""

    def read(context: Any, row: Any, number: Any) -> Any:
        if not isinstance(number, types.IntegerLiteral):
            return None

        def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            return _load(builder, values[0], first + _literal(number), bits)

        return kind(types.int64, number), code

    return intrinsic(prefer_literal=True)(read)


def _array(
    context: Any, builder: Any, array_type: Any, address: Any, shape: tuple[Any, ...], size: int
) -> Any:
    """The C-contiguous array of one or two axes at an address, whose elements have `size` bytes."""
    bytes_each = ir.Constant(_WORD, size)
    strides = (bytes_each,) if len(shape) == 1 else (builder.mul(shape[1], bytes_each), bytes_each)
    array = arrayobj.make_array(array_type)(context, builder)
    arrayobj.populate_array(
        array,
        data=builder.inttoptr(address, array.data.type),
        shape=pack(builder, shape),
        strides=pack(builder, strides),
        itemsize=bytes_each,
        meminfo=None,
    )
    return array._getvalue()


def _left_out(builder: Any, row: Any, spaces: Any, most: Any) -> Any:
    """How many of `most` steps no row of the slice has; 0 where `most` is. Code without a branch reads a
    word in any case. Where `most` is 0 there may be no position, so it reads the row."""
    nothing = ir.Constant(_WORD, 0)
    cut = builder.icmp_signed(">", most, nothing)
    position = builder.select(cut, _load(builder, spaces, POSITION), row)
    over = builder.sub(most, _load(builder, position, LONGEST))
    return builder.select(builder.and_(cut, builder.icmp_signed(">", over, nothing)), over, nothing)


def _viewer(kind: Any, axes: int) -> Any:
    """An intrinsic (row, spaces, rows, number): an operand as a matrix, or where `axes` is 1, its elements.

    Its instructions are written here, as every op has some: Numba's own ways to make an array of an address
    take longer to compile than what follows them."""
    array_type, size = types.Array(kind, axes, "C"), kind.bitwidth // 8

    def view(context: Any, row: Any, spaces: Any, rows: Any, number: Any) -> Any:
        if not isinstance(number, types.IntegerLiteral):
            return None

        def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            row, spaces, rows, _ = values
            first = WORDS + OPERAND * _literal(number)
            space, start, n, times, plus, per_row, most = (
                _load(builder, row, first + i) for i in range(OPERAND)
            )
            times = builder.sub(times, _left_out(builder, row, spaces, most))
            base = _load(builder, builder.add(spaces, builder.mul(space, ir.Constant(_WORD, 8))), 0)
            start = builder.add(start, builder.mul(rows, per_row))
            address = builder.add(base, builder.mul(start, ir.Constant(_WORD, size)))
            m = builder.add(builder.mul(rows, times), plus)
            shape = (m, n) if axes == 2 else (builder.mul(m, n),)
            return _array(context, builder, array_type, address, shape, size)

        return array_type(types.int64, types.int64, types.int64, number), code

    return intrinsic(prefer_literal=True)(view)


whole, real = _reader(types.int64, _WORD, 0), _reader(types.float64, ir.DoubleType(), WHOLE)
single, flat = _viewer(types.float32, 2), _viewer(types.float32, 1)
bits, labels, double = _viewer(types.int32, 1), _viewer(types.int64, 2), _viewer(types.float64, 2)


@intrinsic  # type: ignore[untyped-decorator]
def word(context: Any, address: Any) -> Any:
    """The whole number at an address."""

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return _load(builder, values[0], 0)

    return types.int64(types.int64), code


@inner
def runs(row: int, spaces: int) -> bool:
    """Whether an op runs on this slice, as `distbp.nn.tape.Row` says."""
    when = word(row + 8 * WHEN)
    if when == 0:
        return True
    longest = word(word(spaces + 8 * POSITION) + 8 * LONGEST)
    return bool(when <= longest if when > 0 else -when > longest)


@intrinsic  # type: ignore[untyped-decorator]
def address_of(context: Any, array: Any) -> Any:
    """Of an array's first value, int64, as addresses are everywhere: Numba's own are unsigned, and with both
    kinds functions would be compiled twice. Keep the array while the address is used."""

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        found = arrayobj.make_array(signature.args[0])(context, builder, values[0])
        return builder.ptrtoint(found.data, _WORD)

    return types.int64(array), code


@intrinsic  # type: ignore[untyped-decorator]
def floats(context: Any, address: Any, count: Any) -> Any:
    """The `count` float32 numbers at an address."""
    array_type = types.Array(types.float32, 1, "C")

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return _array(context, builder, array_type, values[0], (values[1],), 4)

    return array_type(types.int64, types.int64), code
