"""Products of large float32 matrices on the processor's vector registers (Numba, optional; see `strips`).

An element is a sum of parts of up to TERMS terms. The terms of a part are added in order by fused
multiply-adds, then the parts in order. Which terms make a part depends on their number alone: not on where
the element stands, how many others there are, or where the operands lie.

Of the left operand as much is packed as fits beside the rest in the second cache, of 1 MB or more (half of
that where it is smaller, which costs time only); of the right one a panel at a time. While it is multiplied,
the caches take in what the next one is made from.
"""

from __future__ import annotations

import numpy as np

from distbp.nn.gemm import TRANSPOSED, compiled_as_sgemm
from distbp.nn.jit import jit
from distbp.nn.pointers import prefetch_to_second
from distbp.nn.strips import LANES, NARROW, WIDE, copy_lanes, multiply_strip, transpose_lanes

TERMS = 256  # of a part; part of the numerics
KEPT_BYTES = 512 * 1024  # of the left operand
# Panels are wide where more lines than that are added up over more terms: then they cost less to pack and to
# write. Else strips have more lines, so that a part of a few lines is cut into fewer.
FEW = 192
LEAST = 32  # rows, columns and terms; for fewer of them packing costs more than it saves
LINE = 64  # bytes of a cache


@jit
def _pack(source: int, step: int, in_rows: bool, lines: int, terms: int, to: int, wide: int) -> None:
    """Lines of an operand so that the values of a term lie together, `wide` bytes from those of the next one.
    Lines stand in rows, or terms do; rows are `step` bytes apart."""
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
    """One of equal parts of what `_pack` reads."""
    if in_rows:
        rows, begin, end = lines, 4 * terms * part // parts, 4 * terms * (part + 1) // parts
        first = 0
    else:
        first, rows = terms * part // parts, terms * (part + 1) // parts
        begin, end = 0, 4 * lines
    for row in range(first, rows):
        for at in range(source + row * step + begin, source + row * step + end, LINE):
            prefetch_to_second(at)
        if not in_rows:  # which need not begin with a line of the cache
            prefetch_to_second(source + row * step + end - 1)


@jit
def _multiply_part(
    strips: int, rows: int, count: int, panel: int, columns: int, terms: int, to: int, step: int, add: bool,
    source: int, source_step: int, in_rows: bool, following: int,
) -> None:  # fmt: skip
    """All `count` strips with a panel. Meanwhile what lies at `source`, for the `following` lines of the next
    panel, is prefetched."""
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
    """The inner products of m and n lines of two operands over k terms, at addresses; steps are in bytes."""
    parts = -(-k // TERMS)
    longest = -(-k // parts)
    lines, side = WIDE if m > FEW and k > FEW else NARROW
    most = max(1, KEPT_BYTES // (4 * longest * lines)) * lines
    vectors = -(-n // LANES)
    panels = -(-vectors // side)
    # A panel, and strips; with them what `transpose_lanes` may write beyond their end.
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
    room[0] = 0  # it is used by its address: until here


def _sgemm(
    layout: int, left: int, right: int, m: int, n: int, k: int, alpha: float,
    a: int, lda: int, b: int, ldb: int, beta: float, c: int, ldc: int,
) -> None:  # fmt: skip
    _multiply(m, n, k, a, 4 * lda, left != TRANSPOSED, b, 4 * ldb, right == TRANSPOSED, c, 4 * ldc)


def vector_sgemm() -> int:
    """The address of a function with the arguments of cblas_sgemm, all whole numbers of 64 bits, for
    row-major matrices, alpha 1 and beta 0. Waits."""
    return int(compiled_as_sgemm(_sgemm).address)
