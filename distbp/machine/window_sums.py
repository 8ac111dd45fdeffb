"""Sums over windows of images on vector registers, for compiled code (Numba, optional).

The channels of a place lie side by side, and behind them those of the place on its right. So the terms of a
window are a few *runs* of consecutive numbers. No window is copied: a number of the image is multiplied with
a vector of weights of the filters. Registers hold the sums (Georganas et al., "Anatomy of High-Performance
Deep Learning Convolutions on SIMD Architectures", SC 2018, section II). Weights lie packed, the filters of a
term together, in *panels* of one or two vectors. Addresses and steps are int64 numbers of bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from numba import types

from distbp.machine import lanes
from distbp.machine.jit import inner
from distbp.machine.lanes import LANES, LONG, ZEROS
from distbp.machine.pointers import emits

VECTORS = 2  # in a panel, at most
# Sums of a panel's vector at a time, of so many places or terms, for panels of 0, 1 and 2 vectors.
MOST = (0, *(lanes.sums_beside(vectors) for vectors in range(1, VECTORS + 1)))
BYTES = 4 * LANES  # of a vector
_WAITING = 8  # fused multiply-adds that must be under way, each for a sum of its own


@inner
def turns_of(terms: int) -> int:
    """How many sums `sum_places` has for each term of a run of so many terms. They take the places in
    turn."""
    turns = 1
    while turns * terms < _WAITING:
        turns *= 2
    return turns


def _case(many: int, vectors: int, turns: int = 1) -> Any:
    return (turns * lanes.MOST_SUMS + many) * VECTORS + vectors


def _choose(
    builder: Any, cases: Mapping[int, Any], many: Any, vectors: Any, turns: Any, values: Sequence[Any]
) -> None:
    """Emits a call of the routine that is made for so many places or terms, so many vectors, and so many
    turns."""
    case = builder.add(builder.mul(turns, LONG(lanes.MOST_SUMS)), many)
    case = builder.add(builder.mul(case, LONG(VECTORS)), vectors)
    lanes.choose(builder, cases, case, values)


@emits(types.void, *[types.int64] * 13)
def sum_windows(
    builder: Any, places: Any, vectors: Any, source: Any, step: Any, runs: Any, count: Any, terms: Any,
    panel: Any, start: Any, to: Any, to_step: Any, columns: Any, add: Any,
) -> None:  # fmt: skip
    """Writes for up to MOST[vectors] places the sums of a panel: start + the products of the terms, in order,
    by fused multiply-adds.

    source: of the first place; the next is `step` further. runs: address of `count` int64, from the place to
    each run of `terms` float32. panel: (count * terms, vectors * LANES) float32. start: the vectors that sums
    begin with. to: where the sums of the first place go; the next are `to_step` further. columns: how many of
    the last vector's sums are written. add: if not 0, they are added to what is there, place after place."""
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
            # An address of every third place: the two after it are reached with the step times one and two.
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
    """Adds to `to`, a matrix (terms, vectors * LANES), for each of some terms of a run and each filter of a
    panel, the sum over rows of places of the term's number times the filter's d. turns: `turns_of` the whole
    run. terms: those of one part of the run, which is cut into as few equal parts as possible, of at most
    MOST[vectors] // turns terms, or of one.

    source: of the first term at the first place; the next term follows, the next place is `step` further, the
    next row `source_row`. d: of the first filter at the first place, with `d_step` and `d_row`. columns: of
    the last vector. Fused multiply-adds make a sum, place after place. If a run has few terms, each has
    several sums, which take the places in turn and are then added in order."""
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
