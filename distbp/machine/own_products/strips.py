"""Building blocks of float32 matrix products on vector registers (AVX-512), for compiled code (Numba,
optional).

A *strip* is a few lines of the left operand. A *panel* is a few vectors of lines of the right operand. Both
are packed, so that the values of one term lie together. Registers hold the sums: a vector for each line of
the strip and each vector of the panel (Goto, van de Geijn: Anatomy of High-Performance Matrix Multiplication,
2008, section 6). Addresses and steps are int64 numbers of bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba import types

from distbp.machine.pointers import emit_prefetch, insert, intrinsic

LANES = 16  # values in a vector of AVX-512
# The most lines of a strip for panels of 1, 2 and 3 vectors. The 32 registers hold the sums, the vectors of
# the panel at a term, and one value of the strip.
_ROWS = (14, 14, 9)
VECTORS = len(_ROWS)  # in a panel, at most
NARROW, WIDE = (_ROWS[1], 2), (_ROWS[2], 3)  # lines and vectors of strips and panels that use all registers

_BIT, _BYTE, _WHOLE, _LONG, _FLOAT = *(ir.IntType(bits) for bits in (1, 8, 32, 64)), ir.FloatType()
_FLOATS, _INDICES, _MASK = (ir.VectorType(kind, LANES) for kind in (_FLOAT, _WHOLE, _BIT))
_ZEROS = ir.Constant(_FLOATS, [0.0] * LANES)
_NAME = f"v{LANES}f32"  # of the vector type, as LLVM writes it in names of functions


def _plus(builder: Any, address: Any, step: Any, times: int) -> Any:
    return builder.add(address, builder.mul(step, _LONG(times)))


def _pointer(builder: Any, address: Any, kind: ir.Type) -> Any:
    return builder.inttoptr(address, kind.as_pointer())


def _everywhere(builder: Any, value: Any, kind: ir.Type) -> Any:
    one = builder.insert_element(ir.Constant(kind, ir.Undefined), value, _WHOLE(0))
    return builder.shuffle_vector(one, one, ir.Constant(_INDICES, [0] * LANES))


def _mask(builder: Any, count: Any, skipped: int = 0) -> Any:
    """A mask that is set for the first `count - skipped` lanes."""
    lanes = ir.Constant(_INDICES, [skipped + lane for lane in range(LANES)])
    return builder.icmp_signed("<", lanes, _everywhere(builder, builder.trunc(count, _WHOLE), _INDICES))


def _load(builder: Any, address: Any, mask: Any) -> Any:
    """Loads a vector with an alignment of 4 bytes. Lanes where `mask` is not set are not read, and are
    zero."""
    place = _pointer(builder, address, _FLOATS)
    if mask is None:
        return builder.load(place, align=4)
    kind = ir.FunctionType(_FLOATS, [place.type, _WHOLE, _MASK, _FLOATS])
    function = insert(builder.module, kind, f"llvm.masked.load.{_NAME}.p0")
    return builder.call(function, [place, _WHOLE(4), mask, _ZEROS])


def _store(builder: Any, values: Any, address: Any, mask: Any) -> None:
    place = _pointer(builder, address, _FLOATS)
    if mask is None:
        builder.store(values, place, align=4)
        return
    kind = ir.FunctionType(ir.VoidType(), [_FLOATS, place.type, _WHOLE, _MASK])
    function = insert(builder.module, kind, f"llvm.masked.store.{_NAME}.p0")
    builder.call(function, [values, place, _WHOLE(4), mask])


@intrinsic  # type: ignore[untyped-decorator]
def copy_lanes(context: Any, source: Any, count: Any, to: Any) -> Any:
    """Copies the first `count` of the LANES float32 at `source` to `to`, and writes zeros behind them.

    A `count` of LANES or more copies all."""

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        source, count, to = values
        _store(builder, _load(builder, source, _mask(builder, count)), to, None)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 3), code


@intrinsic  # type: ignore[untyped-decorator]
def transpose_lanes(
    context: Any, source: Any, step: Any, rows: Any, count: Any, to: Any, to_step: Any
) -> Any:
    """Transposes a (rows, count) float32 matrix, both at most LANES, into LANES whole rows at `to`.

    step, to_step: bytes from one row to the next, at `source` and at `to`. Rows of the result are written in
    order, each with LANES values. With a `to_step` below the size of a vector, each row overwrites what the
    one before it wrote too far."""

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        source, step, rows, count, to, to_step = values
        mask, last = _mask(builder, count), builder.sub(rows, _LONG(1))
        lines = []
        for i in range(LANES):
            line = builder.select(builder.icmp_signed("<", _LONG(i), last), _LONG(i), last)
            lines.append(_load(builder, builder.add(source, builder.mul(step, line)), mask))
        half = LANES // 2
        low, high = (
            ir.Constant(_INDICES, [at for j in range(first, first + half) for at in (j, LANES + j)])
            for first in (0, half)
        )
        for _ in range(LANES.bit_length() - 1):  # each pass interleaves both halves, as in a riffle shuffle
            lines = [
                builder.shuffle_vector(lines[i], lines[i + half], which)
                for i in range(half)
                for which in (low, high)
            ]
        for i, line in enumerate(lines):
            _store(builder, line, _plus(builder, to, to_step, i), None)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 6), code


@intrinsic  # type: ignore[untyped-decorator]
def multiply_strip(
    context: Any, rows: Any, strip: Any, panel: Any, terms: Any, to: Any, step: Any, columns: Any, add: Any
) -> Any:
    """Multiplies the `rows` lines of a strip with the first `columns` lines of a panel over `terms` > 0
    terms.

    Each inner product is added up in order from zero by fused multiply-adds. The results, (rows, columns), go
    to `to`, in rows that are `step` bytes apart. If `add` is not 0 they are added to what is there.

    strip: address of (terms, rows) float32. panel: address of (terms, vectors * LANES) float32, at a multiple
    of a vector's size, with as many vectors as `columns` needs."""

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        rows, *rest, columns, add = values
        after = builder.append_basic_block("multiplied")
        last = builder.sdiv(builder.sub(columns, _LONG(1)), _LONG(LANES))  # of the vectors, from 0
        case = builder.add(builder.mul(rows, _LONG(VECTORS)), last)
        choice = builder.switch(case, after)
        for vectors, most in enumerate(_ROWS, 1):
            for lines in range(1, most + 1):
                block = builder.append_basic_block("strip")
                choice.add_case(_LONG(lines * VECTORS + vectors - 1), block)
                with builder.goto_block(block):
                    builder.call(_strip(builder.module, lines, vectors), [*rest, columns, add])
                    builder.branch(after)
        builder.position_at_end(after)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 8), code


def _strip(module: Any, rows: int, vectors: int) -> Any:
    """The LLVM function for a strip of `rows` lines and a panel of `vectors` vectors. Each pair has its own
    function, because code cannot choose a register by a number."""
    name = f"distbp_strip_{rows}_{vectors}"
    if name in module.globals:
        return module.globals[name]
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [_LONG] * 7), name)
    function.linkage = "internal"
    function.attributes.add("noinline")
    strip, panel, terms, to, step, columns, add = function.args
    builder = ir.IRBuilder(function.append_basic_block("start"))
    places = [
        builder.add(_plus(builder, to, step, i), _LONG(4 * LANES * j))
        for i in range(rows)
        for j in range(vectors)
    ]
    for place in places:  # the lines of the result arrive while the sums are computed
        emit_prefetch(builder, _pointer(builder, place, _BYTE), to_write=1)
    sums = _sums(function, builder, (strip, rows), (panel, vectors), terms)
    whole, some = function.append_basic_block("whole"), function.append_basic_block("some")
    builder.cbranch(builder.icmp_signed("==", columns, _LONG(LANES * vectors)), whole, some)
    for block in (whole, some):
        builder.position_at_end(block)
        masks = [None if block is whole else _mask(builder, columns, LANES * j) for j in range(vectors)]
        with builder.if_else(builder.icmp_signed("!=", add, _LONG(0))) as (adding, writing):
            with adding:
                for i, (one, place) in enumerate(zip(sums, places, strict=True)):
                    mask = masks[i % vectors]
                    _store(builder, builder.fadd(_load(builder, place, mask), one), place, mask)
            with writing:
                for i, (one, place) in enumerate(zip(sums, places, strict=True)):
                    _store(builder, one, place, masks[i % vectors])
        builder.ret_void()
    return function


def _sums(
    function: Any, builder: Any, left: tuple[Any, int], right: tuple[Any, int], terms: Any
) -> Sequence[Any]:
    """Emits the loop over the terms and leaves the builder behind it. Returns the sums: vectors, line by
    line."""
    (strip, rows), (panel, vectors) = left, right
    before, loop = builder.block, function.append_basic_block("terms")
    builder.branch(loop)
    builder.position_at_end(loop)
    term = builder.phi(_LONG)
    term.add_incoming(_LONG(0), before)
    sums = [builder.phi(_FLOATS) for _ in range(rows * vectors)]
    at = builder.add(panel, builder.mul(term, _LONG(4 * LANES * vectors)))
    rights = [
        builder.load(_pointer(builder, builder.add(at, _LONG(4 * LANES * j)), _FLOATS), align=4 * LANES)
        for j in range(vectors)
    ]
    at = builder.add(strip, builder.mul(term, _LONG(4 * rows)))
    fused = insert(builder.module, ir.FunctionType(_FLOATS, [_FLOATS] * 3), f"llvm.fma.{_NAME}")
    results = []
    for i in range(rows):
        value = builder.load(_pointer(builder, builder.add(at, _LONG(4 * i)), _FLOAT), align=4)
        one = _everywhere(builder, value, _FLOATS)
        results += [builder.call(fused, [one, rights[j], sums[i * vectors + j]]) for j in range(vectors)]
    for one, result in zip(sums, results, strict=True):
        one.add_incoming(_ZEROS, before)
        one.add_incoming(result, loop)
    following = builder.add(term, _LONG(1))
    term.add_incoming(following, loop)
    after = function.append_basic_block("summed")
    builder.cbranch(builder.icmp_signed("<", following, terms), loop, after)
    builder.position_at_end(after)
    return results
