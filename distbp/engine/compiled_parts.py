"""The arguments of the compiled pieces of a step: one structure for each piece."""

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
    """The arguments of `compute`. run: address of `run_rows`. program: address of the ops. tables: (shards,
    spaces), the addresses of each shard's spaces. totals: (shards, totals). sources: (shards, 3), addresses
    of inputs, targets and weights (0: no weights). widths: (3,), their widths in units of 4 bytes. orders:
    (shards, rows), row numbers. counts: (steps, shards), rows of each slice. firsts: (steps, shards), where a
    slice begins in `orders`."""

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
    """The deferred products of a thread, and the update rule for them. words, starts: the words of the
    network's ops, and where each op begins. joining: address of a `Joining`. vector: address of the
    parameters. additions: (n, 2), the joins of the shards' sums, in order. parts: (n, 6), see
    `thread_shares`. room: (shards, parameters), the gradients of a part. constants: bytes of a group's
    constants. shared: as in `Joining`. tables, counts: as in `Computing`."""

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
    """The arguments of `find_squares`. gradients: (shards,), addresses of the shards' gradients. additions:
    as in `Deferred`. pieces: (n, 3), start, stop and number of each piece of the thread. squares: receives
    the sum of squares of each piece. single, double: addresses of BLAS's inner products in both
    precisions."""

    gradients: Wholes
    additions: WholeTable
    pieces: WholeTable
    squares: Doubles
    single: int
    double: int


class Carrying(NamedTuple):
    """The arguments of `carry`. gradients, additions: as in `Clipping`. vector: address of the parameters.
    statistics: (n, 2), start and stop of each running statistic. rates: (n,), their rates. states: (n, 2),
    start and stop of the stretches with the states that layers carry from window to window."""

    gradients: Wholes
    additions: WholeTable
    vector: int
    statistics: WholeTable
    rates: Doubles
    states: WholeTable


class Steps(NamedTuple):
    """The steps of one thread. Each piece is the address of a function, followed by the address of its
    structure; both are 0 if the piece has nothing to do. positions: (shards, 6). totals, counts: as in
    `Computing`. additions: as in `Deferred`. squares: of all threads. several: 1 if slices of one row do not
    count. scaled: the number of the rule's op that multiplies by the scale. clip: the largest norm; 0: none.
    sums: (shards, 2), scratch. found: (steps, 3), receives loss sum, weight and counted rows of each step.
    live: (threads, units), receives the live rows of applied steps. done: receives the number of applied
    steps and, in the first thread, the nanoseconds that the steps after the first one took and their number.
    counters: see `pointers.meet`; the second number of the last line is 1 to end early. me: the number of the
    thread. start, stop: its shards [start, stop). offer, nap: see `pointers.WAYS`. clock:
    `pointers.CLOCK`."""

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
    """constants: (steps, groups, ops, 4), the update rule's constants at each step to train; the thread
    multiplies one by the scale. first_step: the number of the first step. meeting: the number of the threads'
    last meeting before this call. limit: no step begins later than these nanoseconds after the first one."""

    constants: DoubleSeries
    first_step: int
    meeting: int
    limit: int
