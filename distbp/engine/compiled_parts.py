"""What compiled steps are given: ops, shards and their rows, and what each thread updates."""

from __future__ import annotations

from typing import NamedTuple

from distbp.core.arrays import Array


class Ops(NamedTuple):
    """A list of ops: words, where each begins, the addresses of the compiled ones."""

    words: Array
    starts: Array
    ops: Array


class Shards(NamedTuple):
    """What is computed with. tables: of spaces, (shards, ...); positions: (shards, 5); totals: (shards, 3);
    gradients: the addresses of the shards' gradients; skipped: which ops are deferred; additions: that join
    the shards' sums."""

    tables: Array
    positions: Array
    totals: Array
    gradients: Array
    skipped: Array
    additions: Array


class Rows(NamedTuple):
    """The rows of some steps. sources: (shards, 3) addresses of inputs, targets and weights (0: none);
    widths: of a row of each, in 4 bytes; orders: (shards, ...) row numbers; counts, firsts: (steps,
    shards), rows of each slice and where they begin in `orders`."""

    sources: Array
    widths: Array
    orders: Array
    counts: Array
    firsts: Array


class Share(NamedTuple):
    """What one thread updates. `stretches`: (start, stop, group), whose gradients are written out; `parts`:
    (op, first unit, stop unit, start, stop, group), of deferred products; `pieces`: (start, stop, number), of
    whose joined gradient it finds the squares where gradients are clipped; `room`: for the gradients of a
    part, of each shard."""

    stretches: Array
    parts: Array
    pieces: Array
    room: Array


class Update(NamedTuple):
    """vectors: addresses of the parameters and slots; scaled: the op whose factor the scale belongs to;
    clip: the largest norm, 0: none; squares: of each piece; statistics: (start, stop) of each running
    statistic, and its rate in rates; states: (start, stop) of the stretches of the vector that hold what
    layers carry from window to window."""

    vectors: Array
    scaled: int
    clip: float
    squares: Array
    statistics: Array
    rates: Array
    states: Array
