"""What the pieces of compiled steps are given: a structure each, of what a piece reads and writes."""

from __future__ import annotations

from typing import NamedTuple

from distbp.machine.structures import (
    Doubles,
    DoubleSeries,
    DoubleTable,
    Singles,
    Wholes,
    WholeTable,
)


class Computing(NamedTuple):
    """What slices are computed with. run: address of `run_rows`; program: of the ops; tables: of spaces,
    (shards, ...); totals: (shards, ...). Of the rows: sources: (shards, 3) addresses of inputs, targets and
    weights (0: none); widths: of a row of each, in 4 bytes; orders: (shards, ...) row numbers; counts,
    firsts: (steps, shards), rows of each slice and where they begin in `orders`."""

    run: int
    program: int
    tables: WholeTable
    totals: DoubleTable
    sources: WholeTable
    widths: Wholes
    orders: WholeTable
    counts: WholeTable
    firsts: WholeTable


class Deferred(NamedTuple):
    """The deferred products of a thread, and the rule for them. words, starts: of the network's ops; joining:
    address of a `Joining`; vector: of the parameters; additions: that join the shards' sums; parts: (op,
    first unit, stop unit, start, stop, group); room: for the gradients of a part, of each shard; constants:
    bytes of those of a group; shared: as of `Joining`; tables, counts: as of `Computing`."""

    words: Wholes
    starts: Wholes
    joining: int
    vector: int
    additions: WholeTable
    parts: WholeTable
    room: Singles
    constants: int
    shared: int
    tables: WholeTable
    counts: WholeTable


class Clipping(NamedTuple):
    """What a thread finds the squares of. gradients: addresses of the shards' gradients; pieces: (start,
    stop, number); squares: takes the sum of each piece; single, double: addresses of the inner products."""

    gradients: Wholes
    additions: WholeTable
    pieces: WholeTable
    squares: Doubles
    single: int
    double: int


class Carrying(NamedTuple):
    """What the shards' sums hold beside gradients. vector: address of the parameters; statistics: (start,
    stop) of each running statistic, and its rate in `rates`; states: (start, stop) of the stretches that
    hold what layers carry from window to window."""

    gradients: Wholes
    additions: WholeTable
    vector: int
    statistics: WholeTable
    rates: Doubles
    states: WholeTable


class Steps(NamedTuple):
    """The steps of one thread. Each piece is an address, with the address of its structure; both are 0 where
    it has nothing to do. positions: (shards, 6); totals, counts: as of `Computing`; additions: that join the
    shards' sums; squares: of all threads; several: 1 if slices of one row do not count; scaled: the op whose
    factor the scale belongs to; clip: the largest norm, 0: none; sums (shards, 2): to work in; found: (steps,
    3), takes the loss sum, the weight and the counted rows of each; live: (threads, units), to which the live
    rows of applied steps are added; done: its first number becomes that of the applied steps, and the first
    thread's next ones the nanoseconds that steps took after the first of them, and how many these were;
    counters: see `pointers.meet`, the second number of the last line is 1 to end early; me: the number of the
    thread, which has the shards [start, stop); offer, nap: as `pointers.WAYS`; clock: `pointers.CLOCK`."""

    compute: int
    computing: int
    update: int
    joining: int
    stretches: int
    update_deferred: int
    deferred: int
    find_squares: int
    clipping: int
    carry: int
    carrying: int
    positions: WholeTable
    totals: DoubleTable
    counts: WholeTable
    additions: WholeTable
    squares: Doubles
    several: int
    scaled: int
    clip: float
    sums: DoubleTable
    found: DoubleTable
    live: DoubleTable
    done: Wholes
    counters: WholeTable
    me: int
    start: int
    stop: int
    offer: int
    nap: int
    clock: int


class Call(NamedTuple):
    """constants: (steps, groups, ops, 4) of the steps to train, which the thread multiplies by the scale;
    first_step: the number of the first one; meeting: the number of the last one that there was; limit:
    nanoseconds after the first step in which no step begins any more."""

    constants: DoubleSeries
    first_step: int
    meeting: int
    limit: int
