"""Instructions of the matrix unit of x86 processors (Intel AMX), for compiled code (Numba, optional).

Each function emits one instruction or a few. Addresses are int64 and, where nothing else is said, multiples
of 64 bytes.

The unit multiplies tiles of 16 rows of 64 bytes. A row holds 16 pairs of bfloat16 of one operand, or 16
float32 sums (Intel 64 and IA-32 Architectures Software Developer's Manual, vol. 1, ch. 18; TDPBF16PS in vol.
2). A float32 is the sum of three bfloat16 *parts*, so products of parts add up to a float32 product (Henry,
Tang, Heinecke: Leveraging the bfloat16 Artificial Intelligence Datatype For Higher-Precision Computations,
2019).

A *piece* holds 32 lines of an operand over 32 terms of the sums. It is six tiles, two for each part, the
largest parts first. Operands are packed piece by piece.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils as _cgutils

from distbp.machine.lanes import transposed
from distbp.machine.pointers import emit_prefetch, emits, insert

cgutils: Any = _cgutils  # which has no types

TILE = 1024  # bytes
PARTS = 3
SIDE = 32  # lines and terms of a piece
PIECE = PARTS * 2 * TILE  # bytes
BLOCK = 4 * TILE  # bytes of (SIDE, SIDE) sums

_BYTE, _SHORT, _WHOLE, _LONG = ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.IntType(64)
_FLOATS, _WORDS = ir.VectorType(ir.FloatType(), 16), ir.VectorType(_WHOLE, 16)  # a row of a tile
_SHORTS = ir.VectorType(_SHORT, 32)

# Registers: two for sums, two for tiles of the left operand, one for a tile of the right operand. The other
# three stay unused, because each register in use takes room from register renaming. While another thread runs
# on the same core, the unit multiplies at 0.4 times its speed with eight registers, 0.8 with six and 0.9 with
# five.
_SUMS, _LEFT, _RIGHT, _REGISTERS = 0, 2, 4, 5


class _BFloat(ir.Type):  # type: ignore[misc]
    """The LLVM type bfloat, for which llvmlite has no name."""

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


@emits(types.void)
def begin_tiles(builder: Any) -> None:
    """Configures the used tile registers of the calling thread as 16 rows of 64 bytes (LDTILECFG)."""
    palette, rest = [1], [0] * 15
    unused = 16 - _REGISTERS
    widths, heights = [64, 0] * _REGISTERS + [0, 0] * unused, [16] * _REGISTERS + [0] * unused
    layout = cgutils.create_constant_array(_BYTE, palette + rest + widths + heights)
    place = cgutils.global_constant(builder, "tile_layout", layout)
    _tile_instruction(builder, "ldtilecfg", builder.bitcast(place, _BYTE.as_pointer()))


@emits(types.void)
def end_tiles(builder: Any) -> None:
    """Releases the tile registers (TILERELEASE), so that the system switches this thread faster."""
    _tile_instruction(builder, "tilerelease")


@emits(types.void, types.int64, types.int64, types.int64)
def split_pairs(builder: Any, first: Any, second: Any, to: Any) -> None:
    """Splits 16 float32 at each of two addresses into three bfloat16 parts, stored as 16 pairs, one of each.

    The first parts (the values rounded) go to `to`, the second parts (the rest, rounded) two tiles behind,
    and the third parts (the rest of that) four tiles behind. `first` and `second` need an alignment of 4
    bytes."""
    kind = ir.FunctionType(_BFLOATS, [_FLOATS, _FLOATS])
    rounded = insert(builder.module, kind, "llvm.x86.avx512bf16.cvtne2ps2bf16.512")
    turns = ir.Constant(ir.VectorType(_WHOLE, 32), [at for j in range(16) for at in (j, 16 + j)])
    sixteen, upper = ir.Constant(_WORDS, [16] * 16), ir.Constant(_WORDS, [0xFFFF0000] * 16)
    a, b = (builder.load(_pointer(builder, at, 0, _FLOATS), align=4) for at in (first, second))
    for part in range(PARTS):
        halves = builder.bitcast(builder.call(rounded, [b, a]), _SHORTS)
        pairs = builder.bitcast(builder.shuffle_vector(halves, halves, turns), _WORDS)
        builder.store(pairs, _pointer(builder, to, 2 * TILE * part, _WORDS), align=64)
        a = builder.fsub(a, builder.bitcast(builder.shl(pairs, sixteen), _FLOATS))
        b = builder.fsub(b, builder.bitcast(builder.and_(pairs, upper), _FLOATS))


@emits(types.void, *[types.int64] * 4)
def transpose(builder: Any, source: Any, step: Any, to: Any, to_step: Any) -> None:
    """Transposes 16 rows of 16 values of four bytes.

    step, to_step: bytes from one row to the next, at `source` and at `to`. `to` needs an alignment of 4
    bytes, and may be `source`."""
    rows = []
    for i in range(16):
        place = _pointer(builder, source, builder.mul(step, _LONG(i)), _WORDS)
        rows.append(builder.load(place, align=64))
    for i, row in enumerate(transposed(builder, rows)):
        builder.store(row, _pointer(builder, to, builder.mul(to_step, _LONG(i)), _WORDS), align=4)


@emits(types.void, types.int64, types.int64)
def copy_line(builder: Any, source: Any, to: Any) -> None:
    """Copies SIDE values of four bytes. `to` needs an alignment of 4 bytes."""
    for at in (0, 64):
        row = builder.load(_pointer(builder, source, at, _WORDS), align=64)
        builder.store(row, _pointer(builder, to, at, _WORDS), align=4)


@emits(types.void, types.int64, types.int64)
def add_block(builder: Any, source: Any, to: Any) -> None:
    """Adds the (SIDE, SIDE) float32 sums at `source` to those at `to`."""
    for at in range(0, BLOCK, 64):
        more, place = (_pointer(builder, one, at, _FLOATS) for one in (source, to))
        sums = builder.fadd(builder.load(place, align=64), builder.load(more, align=64))
        builder.store(sums, place, align=64)


# Which parts are multiplied, 0 being the largest: all but those that add less than float32 can hold. An
# operand's part is loaded where it is not the one before. The largest product of a piece is added last.
_PRODUCTS = ((2, 0), (1, 0), (1, 1), (0, 1), (0, 2), (0, 0))


@emits(types.void, *[types.int64] * 5)
def multiply_pieces(builder: Any, left: Any, right: Any, count: Any, to: Any, ahead: Any) -> None:
    """Multiplies `count` > 0 pieces of the left operand with as many of the right one, and adds the products.

    left, right: addresses of the pieces, which lie one behind the other. to: address of (SIDE, SIDE) float32;
    element (i, j) becomes the inner product of line i of the left pieces and line j of the right ones. ahead:
    address of the second piece of the operand that is further from the processor. It and the pieces behind it
    are prefetched, each while the one before it is multiplied."""
    for half in range(2):  # one tile of the right operand after the other
        for tile in range(2):
            _tile_instruction(builder, "tilezero", _BYTE(_SUMS + tile))
        offset = _LONG(TILE * half)
        _add_products(builder, left, builder.add(right, offset), count, builder.add(ahead, offset))
        for tile in range(2):
            place = _pointer(builder, to, 2 * TILE * tile + 64 * half, _BYTE)
            _tile_instruction(builder, "tilestored64", _BYTE(_SUMS + tile), place, _LONG(2 * 64))


def _add_products(builder: Any, left: Any, right: Any, count: Any, ahead: Any) -> None:
    """Emits the loop over `count` pieces for half of a block of sums. left: address of the left pieces; both
    tiles of each part are used. right: address of one tile of the first part in the right pieces; the same
    tile of each part is used. Adds the products to the sums in the two _SUMS registers. The prefetches at
    `ahead` are spread over the products."""
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
