"""Products of large float32 matrices on the processor's vector registers (Numba, optional; see `strips`).

An element is a sum of parts of up to TERMS terms. Fused multiply-adds add the terms of a part in order; then
the parts are added in order. The parts depend on the number of terms alone: not on the place of the element,
on the size of the matrices, or on where the operands lie in memory.

Of the left operand, KEPT_BYTES are packed at a time. They fit into a second cache of 1 MB or more; a smaller
cache costs time and changes no bit. Of the right operand, one panel is packed at a time. While it is
multiplied, the source of the next panel is prefetched.
"""

from __future__ import annotations

import numpy as np

from distbp.machine.gemm import TRANSPOSED, compiled_as_sgemm
from distbp.machine.jit import jit
from distbp.machine.lanes import LANES
from distbp.machine.own_products.strips import (
    NARROW,
    WIDE,
    copy_lanes,
    multiply_strip,
    transpose_lanes,
)
from distbp.machine.pointers import prefetch_to_second

TERMS = 256  # of a part; part of the numerics
KEPT_BYTES = 512 * 1024  # of the left operand
# With more lines and more terms than this, panels are wide, since wide panels cost less to pack and to write.
# Otherwise strips have more lines, so that a few lines are cut into fewer strips.
FEW = 192
LEAST = 32  # rows, columns and terms; with fewer, packing costs more than it saves
LINE = 64  # bytes of a cache line


@jit
def _pack(source: int, step: int, in_rows: bool, lines: int, terms: int, to: int, wide: int) -> None:
    """Packs lines of an operand to `to`. The values of a term lie together, `wide` bytes from the next term.
    source: address of the first float32. step: bytes from one row to the next. in_rows: whether a row of the
    source holds a line or a term."""
    if in_rows:
        for term in range(0, terms, LANES):
            some = min(LANES, terms - term)
            for j in range(0, lines, LANES):
                at = source + j * step + 4 * term
                transpose_lanes(at, step, min(LANES, lines - j), some, to + term * wide + 4 * j, wide)
        return
    whole = lines // LANES * LANES
    for term in range(terms):
        at, place = source + term * step, to + term * wide
        for j in range(0, whole, LANES):
            copy_lanes(at + 4 * j, LANES, place + 4 * j)
        if whole < lines:
            copy_lanes(at + 4 * whole, lines - whole, place + 4 * whole)


@jit
def _prefetch(source: int, step: int, in_rows: bool, lines: int, terms: int, part: int, parts: int) -> None:
    """Prefetches part `part` of `parts` equal parts of what `_pack` reads, into the second cache."""
    if in_rows:
        rows, begin, end = lines, 4 * terms * part // parts, 4 * terms * (part + 1) // parts
        first = 0
    else:
        first, rows = terms * part // parts, terms * (part + 1) // parts
        begin, end = 0, 4 * lines
    for row in range(first, rows):
        for at in range(source + row * step + begin, source + row * step + end, LINE):
            prefetch_to_second(at)
        if not in_rows:  # a row need not begin with a cache line
            prefetch_to_second(source + row * step + end - 1)


@jit
def _multiply_part(
    strips: int, rows: int, count: int, panel: int, columns: int, terms: int, to: int, step: int, add: bool,
    source: int, source_step: int, in_rows: bool, following: int,
) -> None:  # fmt: skip
    """Multiplies all `count` strips with a panel; meanwhile prefetches the `following` lines of the next one.
    strips, panel, to, source: addresses. step, source_step: bytes from one row to the next. add: whether the
    products are added to what is at `to`. in_rows: as of `_pack`, of the next panel."""
    for i in range(count):
        first, last = i * rows // count, (i + 1) * rows // count
        _prefetch(source, source_step, in_rows, following, terms if following else 0, i, count)
        strip = strips + 4 * first * terms
        multiply_strip(last - first, strip, panel, terms, to + first * step, step, columns, int(add))


@jit
def _multiply(
    m: int, n: int, k: int, a: int, a_step: int, a_in_rows: bool, b: int, b_step: int, b_in_rows: bool,
    to: int, step: int,
) -> None:  # fmt: skip
    """Writes the inner products, (m, n), of m and n lines over k terms to `to`. Addresses; steps are in
    bytes."""
    parts = -(-k // TERMS)
    longest = -(-k // parts)
    vectors = -(-n // LANES)
    fewer = -(-vectors // WIDE[1]) < -(-vectors // NARROW[1])
    lines, side = WIDE if fewer and m > FEW and k > FEW else NARROW
    most = max(1, KEPT_BYTES // (4 * longest * lines)) * lines
    panels = -(-vectors // side)
    # A panel and strips, each with room for what `transpose_lanes` may write behind its end.
    panel_bytes = 4 * LANES * side * (longest + LANES)
    room = np.empty(LINE + panel_bytes + 4 * min(m, most) * longest + 4 * LANES * (lines + 1), np.uint8)
    panel = (room.ctypes.data + LINE - 1) // LINE * LINE
    strips = panel + panel_bytes
    for top in range(0, m, most):
        rows = min(most, m - top)
        count = -(-rows // lines)
        for part in range(parts):
            term = part * k // parts
            terms = (part + 1) * k // parts - term
            for i in range(count):
                first, last = i * rows // count, (i + 1) * rows // count
                line, some = top + first, last - first
                start = a + (line * a_step + 4 * term if a_in_rows else term * a_step + 4 * line)
                _pack(start, a_step, a_in_rows, some, terms, strips + 4 * first * terms, 4 * some)
            left, source = 0, b + (4 * term if b_in_rows else term * b_step)
            for number in range(panels):
                right = min(n, LANES * ((number + 1) * vectors // panels))
                after = min(n, LANES * ((number + 2) * vectors // panels))
                some = right - left
                _pack(source, b_step, b_in_rows, some, terms, panel, 4 * LANES * -(-some // LANES))
                source += some * (b_step if b_in_rows else 4)
                place = to + top * step + 4 * left
                _multiply_part(
                    strips, rows, count, panel, some, terms, place, step, part > 0,
                    source, b_step, b_in_rows, max(0, after - right),
                )  # fmt: skip
                left = right
    room[0] = 0  # keeps the array alive until here: the code above uses its address


def _sgemm(
    layout: int, left: int, right: int, m: int, n: int, k: int, alpha: float,
    a: int, lda: int, b: int, ldb: int, beta: float, c: int, ldc: int,
) -> None:  # fmt: skip
    _multiply(m, n, k, a, 4 * lda, left != TRANSPOSED, b, 4 * ldb, right == TRANSPOSED, c, 4 * ldc)


def vector_sgemm() -> int:
    """The address of a function with the arguments of cblas_sgemm, all whole numbers with 64 bits.

    It takes row-major matrices, alpha 1 and beta 0, and waits. Compiles it first, where no process has kept
    it."""
    return int(compiled_as_sgemm(_sgemm).address)
