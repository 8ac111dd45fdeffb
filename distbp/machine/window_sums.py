"""Sums over windows of images on vector registers, for compiled code (Numba, optional).

The channels of a place are adjacent in memory, followed by the channels of the place on its right. So the
terms of a window are a few *runs* of consecutive numbers. No window is copied: a number of the image is
multiplied by a vector of the filters' weights. Registers hold the sums (Georganas et al., "Anatomy of
High-Performance Deep Learning Convolutions on SIMD Architectures", SC 2018, section II). Weights are packed
in *panels* of one or two vectors: the filters' weights for a term are adjacent. Addresses and steps are int64
numbers of bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from numba import types

from distbp.machine import lanes
from distbp.machine.jit import inner
from distbp.machine.lanes import LANES, LONG, ZEROS
from distbp.machine.pointers import emits

VECTORS = 2  # the most vectors in a panel
# The most places or terms whose sums are computed at a time, for panels of 0, 1 and 2 vectors.
MOST = (0, *(lanes.sums_beside(vectors) for vectors in range(1, VECTORS + 1)))
BYTES = 4 * LANES  # the size of a vector
_WAITING = 8  # independent fused multiply-adds that keep the processor busy, each for another sum


@inner
def turns_of(terms: int) -> int:
    """The number of sums that `sum_places` has for each term of a run of `terms` terms. The sums take the
    places in turn."""
    turns = 1
    while turns * terms < _WAITING:
        turns *= 2
    return turns


def _case(many: int, vectors: int, turns: int = 1) -> Any:
    return (turns * lanes.MOST_SUMS + many) * VECTORS + vectors


def _choose(
    builder: Any, cases: Mapping[int, Any], many: Any, vectors: Any, turns: Any, values: Sequence[Any]
) -> None:
    """Emits a call of the routine for a number of places or terms, of vectors, and of turns."""
    case = builder.add(builder.mul(turns, LONG(lanes.MOST_SUMS)), many)
    case = builder.add(builder.mul(case, LONG(VECTORS)), vectors)
    lanes.choose(builder, cases, case, values)


@emits(types.void, *[types.int64] * 13)
def sum_windows(
    builder: Any, places: Any, vectors: Any, source: Any, step: Any, runs: Any, count: Any, terms: Any,
    panel: Any, start: Any, to: Any, to_step: Any, columns: Any, add: Any,
) -> None:  # fmt: skip
    """Writes a panel's sums for up to MOST[vectors] places: start + the products of the terms, in order, by
    fused multiply-adds.

    source: address of the first place; the next place is `step` further. runs: address of `count` int64, the
    offsets from a place to its runs of `terms` float32. panel: (count * terms, vectors * LANES) float32.
    start: the vectors with which sums begin. to: address for the sums of the first place; those of the next
    place go `to_step` further. columns: the number of sums of the last vector that are written. add: if it is
    not 0, sums are added to the values there, place after place."""
    rest = source, step, runs, count, terms, panel, start, to, to_step, columns, add
    cases = {
        _case(p, v): _sum_windows(builder.module, p, v)
        for v in range(1, VECTORS + 1)
        for p in range(1, MOST[v] + 1)
    }
    _choose(builder, cases, places, vectors, LONG(1), rest)


def _sum_windows(module: Any, places: int, vectors: int) -> Any:
    def emit(
        builder: Any, source: Any, step: Any, runs: Any, count: Any, terms: Any, panel: Any, start: Any,
        to: Any, to_step: Any, columns: Any, add: Any,
    ) -> None:  # fmt: skip
        first = [lanes.load(builder, builder.add(start, LONG(BYTES * v)), None) for v in range(vectors)]

        def run(number: Any, carried: Sequence[Any]) -> Sequence[Any]:
            panel, *sums = carried
            offset = builder.load(lanes.pointer(builder, lanes.plus(builder, runs, number, 8), LONG))
            base = builder.add(source, offset)
            # The address of every third place. The two places after it are one and two steps further.
            starts = [lanes.plus(builder, base, step, p) for p in range(0, places, 3)]

            def term(_: Any, carried: Sequence[Any]) -> Sequence[Any]:
                bases, panel, sums = carried[: len(starts)], carried[len(starts)], carried[len(starts) + 1 :]
                weights = [
                    lanes.load(builder, builder.add(panel, LONG(BYTES * v)), None) for v in range(vectors)
                ]
                found = []
                for p in range(places):
                    value = lanes.load_everywhere(builder, lanes.plus(builder, bases[p // 3], step, p % 3))
                    found += [
                        lanes.fused(builder, value, weights[v], sums[p * vectors + v]) for v in range(vectors)
                    ]
                return [
                    *(builder.add(one, LONG(4)) for one in bases),
                    builder.add(panel, LONG(BYTES * vectors)),
                    *found,
                ]

            return lanes.repeat(builder, terms, [*starts, panel, *sums], term)[len(starts) :]

        _, *sums = lanes.repeat(builder, count, [panel, *(first * places)], run)
        ends = [None] * (vectors - 1) + [lanes.first(builder, columns)]
        targets = [
            builder.add(lanes.plus(builder, to, to_step, p), LONG(BYTES * v))
            for p in range(places)
            for v in range(vectors)
        ]
        lanes.put(builder, sums, targets, ends * places, add)

    return lanes.routine(module, f"distbp_windows_{places}_{vectors}", 11, emit)


@emits(types.void, *[types.int64] * 13)
def sum_places(
    builder: Any, terms: Any, vectors: Any, source: Any, step: Any, source_row: Any, d: Any, d_step: Any,
    d_row: Any, rows: Any, places: Any, to: Any, columns: Any, turns: Any,
) -> None:  # fmt: skip
    """Adds sums to the matrix `to`, (terms, vectors * LANES) float32: for each term of a run and each filter
    of a panel, the sum over all places of all rows of the term's number times the filter's d. turns:
    `turns_of` the whole run. terms: the number of terms in this part of the run. A run is cut into as few
    equal parts as possible, of at most MOST[vectors] // turns terms, or of one.

    source: address of the first term at the first place. The next term follows; the next place is `step`
    further, the next row `source_row`. d: address of the first filter at the first place, with `d_step` and
    `d_row`. columns: the columns of the last vector. Fused multiply-adds make a sum, place after place. If a
    run has few terms, each has several sums, which take the places in turn and are then added in order."""
    rest = source, step, source_row, d, d_step, d_row, rows, places, to, columns
    cases = {
        _case(t, v, turns): _sum_places(builder.module, t, v, turns)
        for v in range(1, VECTORS + 1)
        for turns in (1, 2, 4, 8)
        for most in [max(1, MOST[v] // turns)]
        for t in range((most + 1) // 2, most + 1)  # a part has at least half of the most
    }
    _choose(builder, cases, terms, vectors, turns, rest)


def _sum_places(module: Any, terms: int, vectors: int, turns: int) -> Any:
    many = terms * vectors

    def emit(
        builder: Any, source: Any, step: Any, source_row: Any, d: Any, d_step: Any, d_row: Any, rows: Any,
        places: Any, to: Any, columns: Any,
    ) -> None:  # fmt: skip
        last = lanes.first(builder, columns)

        def place(source: Any, d: Any, sums: Sequence[Any]) -> list[Any]:
            values = [
                lanes.load(builder, builder.add(d, LONG(BYTES * v)), last if v == vectors - 1 else None)
                for v in range(vectors)
            ]
            found = []
            for t in range(terms):
                number = lanes.load_everywhere(builder, builder.add(source, LONG(4 * t)))
                found += [
                    lanes.fused(builder, number, values[v], sums[t * vectors + v]) for v in range(vectors)
                ]
            return found

        def several(_: Any, carried: Sequence[Any]) -> Sequence[Any]:
            source, d, *sums = carried
            for turn in range(turns):
                here = slice(turn * many, (turn + 1) * many)
                sums[here] = place(source, d, sums[here])
                source, d = builder.add(source, step), builder.add(d, d_step)
            return [source, d, *sums]

        def one(_: Any, carried: Sequence[Any]) -> Sequence[Any]:
            source, d, *sums = carried
            return [builder.add(source, step), builder.add(d, d_step), *place(source, d, sums)]

        def row(_: Any, carried: Sequence[Any]) -> Sequence[Any]:
            source, d, *sums = carried
            whole = builder.sdiv(places, LONG(turns))
            at, d_at, *sums = lanes.repeat(builder, whole, [source, d, *sums], several)
            if turns > 1:
                rest = builder.srem(places, LONG(turns))
                sums[:many] = lanes.repeat(builder, rest, [at, d_at, *sums[:many]], one)[2:]
            return [builder.add(source, source_row), builder.add(d, d_row), *sums]

        _, _, *sums = lanes.repeat(builder, rows, [source, d, *[ZEROS] * (many * turns)], row)
        for number in range(many):
            total = sums[number]
            for turn in range(1, turns):
                total = builder.fadd(total, sums[turn * many + number])
            place_ = builder.add(to, LONG(BYTES * number))
            lanes.store(builder, builder.fadd(lanes.load(builder, place_, None), total), place_, None)

    return lanes.routine(module, f"distbp_places_{terms}_{vectors}_{turns}", 10, emit)
