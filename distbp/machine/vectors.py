"""Short loops over memory and float32 numbers at addresses, for compiled code (Numba, optional).

They are written in LLVM's own terms. For a loop over arrays, Numba and LLVM's vectorizer take 50 to 100 ms in
each function that has such a loop. Addresses are int64 numbers of bytes. Memory that is written must not
overlap other operands.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from distbp.machine import lanes
from distbp.machine.pointers import emit_prefetch, emits, insert

FLOAT_BYTES, LINE, SQUARES = 4, 64, 8
_COUNT = lanes.LANES.bit_length() - 1
_DOUBLE = ir.DoubleType()
_SINGLES, _DOUBLES = ir.VectorType(lanes.FLOAT, SQUARES), ir.VectorType(_DOUBLE, SQUARES)
_move: Any = cgutils.raw_memcpy
_fill: Any = cgutils.memset
_bytes = ir.IntType(8).as_pointer()


@emits(types.void, *(types.int64,) * 3)
def copy(builder: Any, source: Any, to: Any, size: Any) -> None:
    """Copies `size` bytes."""
    source, to = (builder.inttoptr(one, _bytes) for one in (source, to))
    _move(builder, to, source, size, 1)


@emits(types.void, types.int64, types.int64)
def clear(builder: Any, at: Any, size: Any) -> None:
    """Sets `size` bytes to 0."""
    _fill(builder, builder.inttoptr(at, _bytes), size, 0)


@emits(types.void, types.int64, types.int64)
def ask_to_write(builder: Any, at: Any, size: Any) -> None:
    """Prefetches `size` bytes that will soon be written. Does not wait.

    If another core has read them, each cache line must first be taken from that core. Stores wait for their
    lines one after the other; prefetched lines arrive in parallel."""

    def ask(number: Any, _: Any) -> list[Any]:
        emit_prefetch(builder, builder.inttoptr(lanes.plus(builder, at, number, LINE), _bytes), 1)
        return []

    lines = builder.lshr(builder.add(size, lanes.LONG(LINE - 1)), lanes.LONG(6))
    lanes.repeat(builder, lines, [], ask)


def _each(emit: Callable[[Any, Any, Any], Any]) -> Any:
    """An intrinsic (left, right, out, count): out <- emit(builder, left, right), number by number."""

    @emits(types.void, *(types.int64,) * 4)
    def function(builder: Any, *values: Any) -> None:
        *places, count = values

        def some(number: Any, which: Any) -> list[Any]:
            left, right, out = (lanes.plus(builder, at, number, 4 * lanes.LANES) for at in places)
            a, b = (lanes.load(builder, at, which) for at in (left, right))
            lanes.store(builder, emit(builder, a, b), out, which)
            return []

        vectors = builder.lshr(count, lanes.LONG(_COUNT))
        lanes.repeat(builder, vectors, [], lambda number, _: some(number, None))
        rest = builder.and_(count, lanes.LONG(lanes.LANES - 1))
        some(vectors, lanes.first(builder, rest))

    return function


# (left, right, out, count): out <- left + right; out <- left - right. `out` may be `left` or `right`.
add_into = _each(lambda builder, a, b: builder.fadd(a, b))
subtract_into = _each(lambda builder, a, b: builder.fsub(a, b))


@emits(types.float64, types.int64, types.int64)
def squares_of(builder: Any, at: Any, count: Any) -> Any:
    """The sum of squares of `count` numbers, in float64, because squares may overflow float32. Eight sums
    take the numbers in turn and are added in order. The last numbers, fewer than eight, follow one by one."""

    def squared(number: Any, one: Any, several: Any, sums: Any) -> list[Any]:
        place = lanes.pointer(builder, lanes.plus(builder, at, number, FLOAT_BYTES), one)
        value = builder.fpext(builder.load(place, align=FLOAT_BYTES), several)
        return [builder.fadd(sums, builder.fmul(value, value))]

    eights = builder.lshr(count, lanes.LONG(3))
    most = builder.mul(eights, lanes.LONG(SQUARES))
    nothing = ir.Constant(_DOUBLES, [0.0] * SQUARES)
    (sums,) = lanes.repeat(
        builder,
        eights,
        [nothing],
        lambda number, carried: squared(
            builder.mul(number, lanes.LONG(SQUARES)), _SINGLES, _DOUBLES, *carried
        ),
    )
    total = _DOUBLE(0.0)
    for lane in range(SQUARES):
        total = builder.fadd(total, builder.extract_element(sums, lanes.WHOLE(lane)))
    (total,) = lanes.repeat(
        builder,
        builder.sub(count, most),
        [total],
        lambda number, carried: squared(builder.add(most, number), lanes.FLOAT, _DOUBLE, *carried),
    )
    return total


@emits(types.float64, types.int64, types.int64)
def largest(builder: Any, at: Any, count: Any) -> Any:
    """The largest absolute value of `count` numbers, in float64; NaN if one is NaN, else infinity if one is
    infinite.

    The bits without the sign are compared as whole numbers. These have the order of the floats, with infinity
    above all finite numbers and NaN above infinity (IEEE 754)."""
    unsigned = ir.Constant(lanes.INDICES, [0x7FFFFFFF] * lanes.LANES)

    def more(number: Any, which: Any, most: Any) -> list[Any]:
        place = lanes.plus(builder, at, number, FLOAT_BYTES * lanes.LANES)
        some = builder.bitcast(lanes.load(builder, place, which), lanes.INDICES)
        some = builder.and_(some, unsigned)
        return [builder.select(builder.icmp_signed(">", some, most), some, most)]

    vectors = builder.lshr(count, lanes.LONG(_COUNT))
    nothing = ir.Constant(lanes.INDICES, [0] * lanes.LANES)
    (most,) = lanes.repeat(builder, vectors, [nothing], lambda number, carried: more(number, None, *carried))
    rest = builder.and_(count, lanes.LONG(lanes.LANES - 1))
    (most,) = more(vectors, lanes.first(builder, rest), most)
    kind = ir.FunctionType(lanes.WHOLE, [lanes.INDICES])
    reduce = insert(builder.module, kind, f"llvm.vector.reduce.smax.v{lanes.LANES}i32")
    return builder.fpext(builder.bitcast(builder.call(reduce, [most]), lanes.FLOAT), _DOUBLE)
