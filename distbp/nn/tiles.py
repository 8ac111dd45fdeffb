"""The matrix unit of x86 processors (Intel AMX), for compiled code (Numba, optional): what one instruction or
a handful of them does, on memory at addresses that are multiples of 64 bytes.

The unit multiplies tiles: 16 rows of 64 bytes, a row being 16 pairs of bfloat16 of one operand, or 16 sums in
float32 (Intel 64 and IA-32 Architectures Software Developer's Manual, vol. 1, ch. 18; TDPBF16PS in vol. 2). A
float32 is the sum of three bfloat16, so products of these parts add up to a product in float32 (Henry, Tang,
Heinecke: Leveraging the bfloat16 Artificial Intelligence Datatype For Higher-Precision Computations, 2019).

A *piece* is what is packed at a time: 32 lines of an operand over 32 terms of the sums, as six tiles, two for
each part, the largest parts first.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils as _cgutils

from distbp.nn.pointers import emit_prefetch, insert, intrinsic

cgutils: Any = _cgutils  # which has no types

TILE = 1024  # bytes
PARTS = 3
SIDE = 32  # lines and terms of a piece
PIECE = PARTS * 2 * TILE  # bytes
BLOCK = 4 * TILE  # bytes of (SIDE, SIDE) sums

_BYTE, _SHORT, _WHOLE, _LONG = ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.IntType(64)
_FLOATS, _WORDS = ir.VectorType(ir.FloatType(), 16), ir.VectorType(_WHOLE, 16)  # a row of a tile
_SHORTS = ir.VectorType(_SHORT, 32)

# Registers: two for sums, two for the left operand's tiles of a part, one for the right one's. Not all eight:
# a register that is in use takes room from renaming. While another thread runs on the same core, the unit
# multiplies at 0.4 times its speed with eight, 0.8 with six and 0.9 with five.
_SUMS, _LEFT, _RIGHT, _REGISTERS = 0, 2, 4, 5


class _BFloat(ir.Type):  # type: ignore[misc]
    """bfloat16, which llvmlite has no name for."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BFloat)

    def __hash__(self) -> int:
        return hash(_BFloat)


_BFLOATS = ir.VectorType(_BFloat(), 32)


def _pointer(builder: Any, address: Any, offset: Any, kind: ir.Type) -> Any:
    offset = _LONG(offset) if isinstance(offset, int) else offset
    return builder.inttoptr(builder.add(address, offset), kind.as_pointer())


def _tile_instruction(builder: Any, name: str, *arguments: Any) -> None:
    kind = ir.FunctionType(ir.VoidType(), [one.type for one in arguments])
    builder.call(insert(builder.module, kind, f"llvm.x86.{name}"), arguments)


@intrinsic  # type: ignore[untyped-decorator]
def begin_tiles(context: Any) -> Any:
    """Makes the registers in use, of the calling thread, tiles of 16 rows of 64 bytes."""

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        palette, rest = [1], [0] * 15
        unused = 16 - _REGISTERS
        widths, heights = [64, 0] * _REGISTERS + [0, 0] * unused, [16] * _REGISTERS + [0] * unused
        layout = cgutils.create_constant_array(_BYTE, palette + rest + widths + heights)
        place = cgutils.global_constant(builder, "tile_layout", layout)
        _tile_instruction(builder, "ldtilecfg", builder.bitcast(place, _BYTE.as_pointer()))
        return context.get_dummy_value()

    return types.void(), code


@intrinsic  # type: ignore[untyped-decorator]
def end_tiles(context: Any) -> Any:
    """Gives the registers back: a thread that uses none is switched to and from faster."""

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        _tile_instruction(builder, "tilerelease")
        return context.get_dummy_value()

    return types.void(), code


@intrinsic  # type: ignore[untyped-decorator]
def split_pairs(context: Any, first: Any, second: Any, to: Any) -> Any:
    """16 float32 at each of two addresses as pairs (one of each), rounded to bfloat16, at `to`; what that
    left of them, rounded, two tiles further; and what that left, four tiles further."""

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        kind = ir.FunctionType(_BFLOATS, [_FLOATS, _FLOATS])
        rounded = insert(builder.module, kind, "llvm.x86.avx512bf16.cvtne2ps2bf16.512")
        turns = ir.Constant(ir.VectorType(_WHOLE, 32), [at for j in range(16) for at in (j, 16 + j)])
        sixteen, upper = ir.Constant(_WORDS, [16] * 16), ir.Constant(_WORDS, [0xFFFF0000] * 16)
        a, b = (builder.load(_pointer(builder, at, 0, _FLOATS), align=4) for at in values[:2])
        for part in range(PARTS):
            halves = builder.bitcast(builder.call(rounded, [b, a]), _SHORTS)
            pairs = builder.bitcast(builder.shuffle_vector(halves, halves, turns), _WORDS)
            builder.store(pairs, _pointer(builder, values[2], 2 * TILE * part, _WORDS), align=64)
            a = builder.fsub(a, builder.bitcast(builder.shl(pairs, sixteen), _FLOATS))
            b = builder.fsub(b, builder.bitcast(builder.and_(pairs, upper), _FLOATS))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), code


@intrinsic  # type: ignore[untyped-decorator]
def transpose(context: Any, source: Any, step: Any, to: Any, to_step: Any) -> Any:
    """16 rows of 16 values of four bytes, `step` bytes apart, transposed to rows `to_step` bytes apart, which
    may begin anywhere; the places may be the same."""

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        source, step, to, to_step = values
        rows = []
        for i in range(16):
            place = _pointer(builder, source, builder.mul(step, _LONG(i)), _WORDS)
            rows.append(builder.load(place, align=64))
        wide = ir.VectorType(_WHOLE, 16)
        low = ir.Constant(wide, [at for j in range(8) for at in (j, 16 + j)])
        high = ir.Constant(wide, [at for j in range(8, 16) for at in (j, 16 + j)])
        for _ in range(4):  # each time the first half of the rows is dealt between the second, as cards are
            rows = [
                builder.shuffle_vector(rows[i], rows[i + 8], which) for i in range(8) for which in (low, high)
            ]
        for i, row in enumerate(rows):
            builder.store(row, _pointer(builder, to, builder.mul(to_step, _LONG(i)), _WORDS), align=4)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, types.int64), code


@intrinsic  # type: ignore[untyped-decorator]
def copy_line(context: Any, source: Any, to: Any) -> Any:
    """SIDE values of four bytes, to a place that may begin anywhere."""

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        for at in (0, 64):
            row = builder.load(_pointer(builder, values[0], at, _WORDS), align=64)
            builder.store(row, _pointer(builder, values[1], at, _WORDS), align=4)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), code


@intrinsic  # type: ignore[untyped-decorator]
def add_block(context: Any, source: Any, to: Any) -> Any:
    """Adds a block of sums to another one."""

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        for at in range(0, BLOCK, 64):
            more, place = (_pointer(builder, one, at, _FLOATS) for one in values)
            sums = builder.fadd(builder.load(place, align=64), builder.load(more, align=64))
            builder.store(sums, place, align=64)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), code


# Which parts are multiplied, 0 being the largest: all but those that add less than float32 can hold. An
# operand's part is loaded where it is not the one before. The largest product of a piece is added last.
_PRODUCTS = ((2, 0), (1, 0), (1, 1), (0, 1), (0, 2), (0, 0))


@intrinsic  # type: ignore[untyped-decorator]
def multiply_pieces(context: Any, left: Any, right: Any, count: Any, to: Any, ahead: Any) -> Any:
    """The sums of `count` pieces, one behind the other at each of two addresses: row i, column j of the block
    at `to` is the inner product of line i of the left ones and line j of the right ones. `count` > 0.

    ahead: the address of the piece behind the first one of the operand that comes from further away; it and
    those behind it are prefetched, one while the one before it is used."""

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        left, right, count, to, ahead = values
        for half in range(2):  # the right operand's tiles, one after the other
            for tile in range(2):
                _tile_instruction(builder, "tilezero", _BYTE(_SUMS + tile))
            offset = _LONG(TILE * half)
            _add_products(builder, left, builder.add(right, offset), count, builder.add(ahead, offset))
            for tile in range(2):
                place = _pointer(builder, to, 2 * TILE * tile + 64 * half, _BYTE)
                _tile_instruction(builder, "tilestored64", _BYTE(_SUMS + tile), place, _LONG(2 * 64))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, types.int64, types.int64), code


def _add_products(builder: Any, left: Any, right: Any, count: Any, ahead: Any) -> None:
    """Of both tiles of a part of the left operand, and of the one at `right` of the right one."""
    before = builder.block
    loop, after = builder.append_basic_block("pieces"), builder.append_basic_block("done")
    builder.branch(loop)
    builder.position_at_end(loop)
    piece = builder.phi(_LONG)
    piece.add_incoming(_LONG(0), before)
    offset = builder.mul(piece, _LONG(PIECE))
    loaded: dict[int, int] = {}
    for number, wanted in enumerate(_PRODUCTS):
        for operand, register, part, tiles in ((left, _LEFT, wanted[0], 2), (right, _RIGHT, wanted[1], 1)):
            if loaded.get(register) == part:
                continue
            loaded[register] = part
            for tile in range(tiles):
                at = builder.add(offset, _LONG(TILE * (2 * part + tile)))
                place = _pointer(builder, operand, at, _BYTE)
                _tile_instruction(builder, "tileloadd64", _BYTE(register + tile), place, _LONG(64))
        for tile in range(2):
            sums, one = _BYTE(_SUMS + tile), _BYTE(_LEFT + tile)
            _tile_instruction(builder, "tdpbf16ps", sums, one, _BYTE(_RIGHT))
        if number % 2 == 0:  # a tile of each part, spread over the products
            for line in range(0, TILE, 64):
                at = builder.add(offset, _LONG(TILE * number + line))
                emit_prefetch(builder, _pointer(builder, ahead, at, _BYTE))
    following = builder.add(piece, _LONG(1))
    piece.add_incoming(following, builder.block)
    builder.cbranch(builder.icmp_signed("<", following, count), loop, after)
    builder.position_at_end(after)
