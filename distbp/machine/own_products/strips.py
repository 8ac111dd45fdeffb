"""Building blocks of float32 matrix products on vector registers, for compiled code (Numba, optional).

A *strip* is a few lines of the left operand. A *panel* is a few vectors of lines of the right operand. Both
are packed, so that the values of one term lie together. Registers hold the sums: a vector for each line of
the strip and each vector of the panel (Goto, van de Geijn: Anatomy of High-Performance Matrix Multiplication,
2008, section 6). Addresses and steps are int64 numbers of bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numba import types

from distbp.machine import lanes
from distbp.machine.lanes import BYTE, FLOATS, LANES, LONG, ZEROS
from distbp.machine.pointers import emit_prefetch, emits

VECTORS = 3  # in a panel, at most
# The most lines of a strip for panels of 1, 2 and 3 vectors.
_ROWS = [lanes.sums_beside(vectors) for vectors in range(1, VECTORS + 1)]
NARROW, WIDE = (_ROWS[1], 2), (_ROWS[2], 3)  # lines and vectors of strips and panels that use all registers


@emits(types.void, *[types.int64] * 3)
def copy_lanes(builder: Any, source: Any, count: Any, to: Any) -> None:
    """Copies the first `count` of the LANES float32 at `source` to `to`, and writes zeros behind them.

    A `count` of LANES or more copies all."""
    lanes.store(builder, lanes.load(builder, source, lanes.first(builder, count)), to, None)


@emits(types.void, *[types.int64] * 6)
def transpose_lanes(
    builder: Any, source: Any, step: Any, rows: Any, count: Any, to: Any, to_step: Any
) -> None:
    """Transposes a (rows, count) float32 matrix, both at most LANES, into LANES whole rows at `to`.

    step, to_step: bytes from one row to the next, at `source` and at `to`. Rows of the result are written in
    order, each with LANES values. With a `to_step` below the size of a vector, each row overwrites what the
    row before it wrote beyond its end."""
    some, last = lanes.first(builder, count), builder.sub(rows, LONG(1))
    lines = []
    for i in range(LANES):
        line = builder.select(builder.icmp_signed("<", LONG(i), last), LONG(i), last)
        lines.append(lanes.load(builder, builder.add(source, builder.mul(step, line)), some))
    for i, line in enumerate(lanes.transposed(builder, lines)):
        lanes.store(builder, line, lanes.plus(builder, to, to_step, i), None)


@emits(types.void, *[types.int64] * 8)
def multiply_strip(
    builder: Any, rows: Any, strip: Any, panel: Any, terms: Any, to: Any, step: Any, columns: Any, add: Any
) -> None:
    """Multiplies the `rows` lines of a strip with the first `columns` lines of a panel over `terms` > 0
    terms.

    Each inner product is added up in order from zero by fused multiply-adds. The results, (rows, columns), go
    to `to`, in rows that are `step` bytes apart. If `add` is not 0 they are added to what is there.

    strip: address of (terms, rows) float32. panel: address of (terms, vectors * LANES) float32, at a multiple
    of a vector's size, with as many vectors as `columns` needs."""
    cases = {
        lines * VECTORS + vectors - 1: _strip(builder.module, lines, vectors)
        for vectors, most in enumerate(_ROWS, 1)
        for lines in range(1, most + 1)
    }
    last = builder.sdiv(builder.sub(columns, LONG(1)), LONG(LANES))  # of the vectors, from 0
    case = builder.add(builder.mul(rows, LONG(VECTORS)), last)
    lanes.choose(builder, cases, case, [strip, panel, terms, to, step, columns, add])


def _strip(module: Any, rows: int, vectors: int) -> Any:
    """The LLVM function for a strip of `rows` lines and a panel of `vectors` vectors."""

    def emit(
        builder: Any, strip: Any, panel: Any, terms: Any, to: Any, step: Any, columns: Any, add: Any
    ) -> None:
        places = [
            builder.add(lanes.plus(builder, to, step, i), LONG(4 * LANES * j))
            for i in range(rows)
            for j in range(vectors)
        ]
        for place in places:  # the lines of the result arrive while the sums are computed
            emit_prefetch(builder, lanes.pointer(builder, place, BYTE), to_write=1)
        sums = _sums(builder, (strip, rows), (panel, vectors), terms)
        whole = builder.icmp_signed("==", columns, LONG(LANES * vectors))
        with builder.if_else(whole) as (all_columns, some):
            with all_columns:
                lanes.put(builder, sums, places, [None] * len(places), add)
            with some:
                firsts = [lanes.first(builder, columns, LANES * j) for j in range(vectors)]
                lanes.put(builder, sums, places, firsts * rows, add)

    return lanes.routine(module, f"distbp_strip_{rows}_{vectors}", 7, emit)


def _sums(builder: Any, left: tuple[Any, int], right: tuple[Any, int], terms: Any) -> Sequence[Any]:
    """Emits the loop over the terms and leaves the builder behind it. Returns the sums: vectors, line by
    line."""
    (strip, rows), (panel, vectors) = left, right
    before, loop = builder.block, builder.append_basic_block("terms")
    builder.branch(loop)
    builder.position_at_end(loop)
    term = builder.phi(LONG)
    term.add_incoming(LONG(0), before)
    sums = [builder.phi(FLOATS) for _ in range(rows * vectors)]
    at = builder.add(panel, builder.mul(term, LONG(4 * LANES * vectors)))
    rights = [
        builder.load(lanes.pointer(builder, builder.add(at, LONG(4 * LANES * j)), FLOATS), align=4 * LANES)
        for j in range(vectors)
    ]
    at = builder.add(strip, builder.mul(term, LONG(4 * rows)))
    results = []
    for i in range(rows):
        one = lanes.load_everywhere(builder, builder.add(at, LONG(4 * i)))
        results += [lanes.fused(builder, one, rights[j], sums[i * vectors + j]) for j in range(vectors)]
    for one, result in zip(sums, results, strict=True):
        one.add_incoming(ZEROS, before)
        one.add_incoming(result, loop)
    following = builder.add(term, LONG(1))
    term.add_incoming(following, loop)
    after = builder.append_basic_block("summed")
    builder.cbranch(builder.icmp_signed("<", following, terms), loop, after)
    builder.position_at_end(after)
    return results
