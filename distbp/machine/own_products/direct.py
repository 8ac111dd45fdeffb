"""Products of small float32 matrices on vector registers, from where they lie (Numba, optional).

Nothing is packed: a value of the left operand is multiplied with one or two vectors of a row of the right
one, and registers hold the sums of some rows and these columns (Goto, van de Geijn: Anatomy of
High-Performance Matrix Multiplication, 2008, section 6). A library packs both operands first, which takes as
long as a small product itself. An element's terms are added up in order, in parts of up to TERMS, and then
the parts.

If the right operand is transposed or has one column, vectors hold terms in place of columns. Then an element
has SUMS sums, which take its terms in turn. The second half of these is added to the first half until one sum
is left. The bits of an element depend on its terms and on this order alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numba import types

from distbp.machine import lanes
from distbp.machine.gemm import TRANSPOSED, compiled_as_sgemm
from distbp.machine.jit import inner
from distbp.machine.lanes import FLOAT, LANES, LONG, ZEROS
from distbp.machine.pointers import compact, emits
from distbp.machine.scalars import smaller

TERMS = 128  # of a part
VECTORS = 2  # of columns, at most
# The most rows, for 0, 1 and 2 vectors. Eight sums hide how long an addition takes.
ROWS = (0, 8, lanes.sums_beside(VECTORS))
VECTOR = 4 * LANES  # bytes
# Of a product with a transposed matrix: sums of an element, the most rows, the most columns at a time.
SUMS, LINES, UNITS = 16, 3, 2


@emits(types.void, *[types.int64] * 11)
def _multiply_rows(
    builder: Any, rows: Any, columns: Any, a: Any, a_row: Any, a_term: Any, b: Any, b_term: Any, terms: Any,
    to: Any, step: Any, add: Any,
) -> None:  # fmt: skip
    """Writes the products of up to ROWS rows and `columns` columns over `terms` > 0 terms. The columns fill
    VECTORS vectors, or at most one. If `add` is not 0, they are added to what is there.

    a, b, to: addresses. a_row, a_term, b_term: from one row, or one term, to the next. step: of the
    result."""
    cases = {
        rows * VECTORS + vectors - 1: _routine(builder.module, rows, vectors)
        for vectors in range(1, VECTORS + 1)
        for rows in range(1, ROWS[vectors] + 1)
    }
    several = builder.zext(builder.icmp_signed(">", columns, LONG(LANES)), LONG)
    case = builder.add(builder.mul(rows, LONG(VECTORS)), several)
    lanes.choose(builder, cases, case, [columns, a, a_row, a_term, b, b_term, terms, to, step, add])


def _routine(module: Any, rows: int, vectors: int) -> Any:
    def emit(
        builder: Any, columns: Any, a: Any, a_row: Any, a_term: Any, b: Any, b_term: Any, terms: Any,
        to: Any, step: Any, add: Any,
    ) -> None:  # fmt: skip
        which = [None] * vectors if vectors > 1 else [lanes.first(builder, columns)]
        # An address of every third row: the two after it are reached with the step times one and two.
        starts = [lanes.plus(builder, a, a_row, i) for i in range(0, rows, 3)]

        def term(_: Any, carried: Sequence[Any]) -> Sequence[Any]:
            bases, b, sums = carried[: len(starts)], carried[len(starts)], carried[len(starts) + 1 :]
            line = [
                lanes.load(builder, builder.add(b, LONG(VECTOR * v)), some) for v, some in enumerate(which)
            ]
            found = []
            for i in range(rows):
                value = lanes.load_everywhere(builder, lanes.plus(builder, bases[i // 3], a_row, i % 3))
                found += [lanes.fused(builder, value, line[v], sums[i * vectors + v]) for v in range(vectors)]
            return [*(builder.add(one, a_term) for one in bases), builder.add(b, b_term), *found]

        sums = lanes.repeat(builder, terms, [*starts, b, *[ZEROS] * (rows * vectors)], term)
        places = [
            builder.add(lanes.plus(builder, to, step, i), LONG(VECTOR * v))
            for i in range(rows)
            for v in range(vectors)
        ]
        lanes.put(builder, sums[len(starts) + 1 :], places, which * rows, add)

    return lanes.routine(module, f"distbp_direct_{rows}_{vectors}", 10, emit)


@inner
def _multiply(
    m: int, n: int, k: int, a: int, a_row: int, a_term: int, b: int, b_term: int, to: int, step: int,
    kept: int,
) -> None:  # fmt: skip
    """Writes the products (m, n) of k terms to `to`. Addresses; steps are in bytes. kept: whether they are
    added to what is there."""
    compact()
    parts = -(-k // TERMS)
    for part in range(parts):
        term = part * k // parts
        terms, add = (part + 1) * k // parts - term, int(kept or part > 0)
        left = 0
        while left < n:
            columns = VECTORS * LANES if n - left >= VECTORS * LANES else smaller(LANES, n - left)
            most = ROWS[VECTORS if columns > LANES else 1]
            tiles, row = -(-m // most), 0
            for tile in range(tiles):
                after = m * (tile + 1) // tiles
                _multiply_rows(
                    after - row, columns, a + row * a_row + term * a_term, a_row, a_term,
                    b + term * b_term + 4 * left, b_term, terms, to + row * step + 4 * left, step, add,
                )  # fmt: skip
                row = after
            left += columns


@emits(types.void, *[types.int64] * 10)
def _multiply_lines(
    builder: Any, rows: Any, units: Any, a: Any, a_step: Any, b: Any, b_step: Any, terms: Any, to: Any,
    step: Any, add: Any,
) -> None:  # fmt: skip
    """Writes the inner products of up to LINES rows and UNITS units over `terms` terms, which follow each
    other. If `add` is not 0, they are added to what is there. a, b, to: addresses, with their steps."""
    cases = {
        r * (UNITS + 1) + u: _lines(builder.module, r, u)
        for r in range(1, LINES + 1)
        for u in range(1, UNITS + 1)
    }
    case = builder.add(builder.mul(rows, LONG(UNITS + 1)), units)
    lanes.choose(builder, cases, case, [a, a_step, b, b_step, terms, to, step, add])


def _lines(module: Any, rows: int, units: int) -> Any:
    vectors, pairs = SUMS // LANES, [(i, j) for i in range(rows) for j in range(units)]

    def emit(
        builder: Any, a: Any, a_step: Any, b: Any, b_step: Any, terms: Any, to: Any, step: Any, add: Any
    ) -> None:
        def several(at: Any, sums: Sequence[Any], which: Sequence[Any]) -> list[Any]:
            """Adds the products of the next SUMS terms, or of some of them, `at` bytes from the first."""

            def line(start: Any, step: Any, number: int) -> list[Any]:
                place = builder.add(lanes.plus(builder, start, step, number), at)
                return [
                    lanes.load(builder, builder.add(place, LONG(VECTOR * v)), some)
                    for v, some in enumerate(which)
                ]

            left, right = (
                [line(a, a_step, i) for i in range(rows)],
                [line(b, b_step, j) for j in range(units)],
            )
            return [
                lanes.fused(builder, left[i][v], right[j][v], sums[number * vectors + v])
                for number, (i, j) in enumerate(pairs)
                for v in range(vectors)
            ]

        adding = builder.icmp_signed("!=", add, LONG(0))
        size, start = LONG(4 * SUMS), [ZEROS] * (len(pairs) * vectors)
        whole = builder.sdiv(terms, LONG(SUMS))
        sums = lanes.repeat(
            builder, whole, start, lambda n, sums: several(builder.mul(n, size), sums, [None] * vectors)
        )
        rest = builder.srem(terms, LONG(SUMS))
        some = [lanes.first(builder, rest, LANES * v) for v in range(vectors)]
        sums = several(builder.mul(whole, size), sums, some)
        for number, (i, j) in enumerate(pairs):
            total = lanes.added_up(builder, sums[number * vectors : (number + 1) * vectors])
            place = builder.add(lanes.plus(builder, to, step, i), LONG(4 * j))
            place = lanes.pointer(builder, place, FLOAT)
            before = builder.select(adding, builder.load(place, align=4), FLOAT(0.0))
            builder.store(builder.fadd(before, total), place, align=4)

    return lanes.routine(module, f"distbp_lines_{rows}_{units}", 8, emit)


@inner
def _multiply_transposed(
    m: int, n: int, k: int, a: int, a_step: int, b: int, b_step: int, to: int, step: int, kept: int
) -> None:
    """As `_multiply`, where the terms of a row and those of a column follow each other."""
    compact()
    tiles = -(-m // LINES)
    for unit in range(0, n, UNITS):
        row, units = 0, smaller(UNITS, n - unit)
        for tile in range(tiles):
            after = m * (tile + 1) // tiles
            _multiply_lines(
                after - row, units, a + row * a_step, a_step, b + unit * b_step, b_step, k,
                to + row * step + 4 * unit, step, kept,
            )  # fmt: skip
            row = after


def _sgemm(
    layout: int, left: int, right: int, m: int, n: int, k: int, alpha: float,
    a: int, lda: int, b: int, ldb: int, beta: float, c: int, ldc: int,
) -> None:  # fmt: skip
    compact()
    kept = int(beta != 0)
    # The terms of a single column follow each other, too; vectors of columns would hold one number each.
    if right == TRANSPOSED or (n == 1 and ldb == 1 and left != TRANSPOSED):
        _multiply_transposed(m, n, k, a, 4 * lda, b, 4 * ldb, c, 4 * ldc, kept)
        return
    a_row, a_term = (4, 4 * lda) if left == TRANSPOSED else (4 * lda, 4)
    _multiply(m, n, k, a, a_row, a_term, b, 4 * ldb, c, 4 * ldc, kept)


def direct_sgemm() -> int:
    """The address of a function with the arguments of cblas_sgemm, all whole numbers with 64 bits.

    It takes row-major matrices, of which at most one is transposed, alpha 1, and beta 0 or 1; and waits.
    Compiles it first, where no process has kept it."""
    return int(compiled_as_sgemm(_sgemm).address)
