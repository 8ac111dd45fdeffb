"""Products of small float32 matrices on vector registers, from where they lie (Numba, optional).

Nothing is packed: a value of the left operand is multiplied with one or two vectors of a row of the right
one, and registers hold the sums of some rows and these columns (Goto, van de Geijn: Anatomy of
High-Performance Matrix Multiplication, 2008, section 6). A library packs both operands first, which takes as
long as a small product itself. An element's terms are added up as in `vector_product`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numba import types

from distbp.machine import lanes
from distbp.machine.gemm import TRANSPOSED, compiled_as_sgemm
from distbp.machine.jit import inner
from distbp.machine.lanes import LANES, LONG, ZEROS
from distbp.machine.pointers import compact, emits
from distbp.machine.scalars import smaller

TERMS = 128  # of a part
VECTORS = 2  # of columns, at most
# The most rows, for 0, 1 and 2 vectors. Eight sums hide how long an addition takes.
ROWS = (0, 8, lanes.sums_beside(VECTORS))
VECTOR = 4 * LANES  # bytes


@emits(types.void, *[types.int64] * 11)
def _multiply_rows(
    builder: Any, rows: Any, columns: Any, a: Any, a_row: Any, a_term: Any, b: Any, b_term: Any, terms: Any,
    to: Any, step: Any, add: Any,
) -> None:  # fmt: skip
    """Writes the products of up to ROWS rows and `columns` columns, over `terms` > 0 terms: as many columns
    as VECTORS vectors have, or at most as many as one. If `add` is not 0, they are added to what is there.

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


def _sgemm(
    layout: int, left: int, right: int, m: int, n: int, k: int, alpha: float,
    a: int, lda: int, b: int, ldb: int, beta: float, c: int, ldc: int,
) -> None:  # fmt: skip
    compact()
    a_row, a_term = (4, 4 * lda) if left == TRANSPOSED else (4 * lda, 4)
    _multiply(m, n, k, a, a_row, a_term, b, 4 * ldb, c, 4 * ldc, int(beta != 0))


def direct_sgemm() -> int:
    """The address of a function with the arguments of cblas_sgemm, all whole numbers with 64 bits.

    It takes row-major matrices, a right operand that is not transposed, alpha 1, and beta 0 or 1; and waits.
    Compiles it first, where no process has kept it."""
    return int(compiled_as_sgemm(_sgemm).address)
