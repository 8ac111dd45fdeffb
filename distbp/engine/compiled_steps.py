"""Many steps of a job, each thread in one compiled call (Numba, optional).

Each thread has some of the shards, as a worker has, and some of the parameters, as a server of a range has.
Twice in a step they meet: when all shards are computed, and when all parameters are updated; where
gradients are clipped by their norm, once more between. Ops, rules and the order of every sum are those of
`Worker.compute` and `ParameterServer.apply`, and so are the bits.

A product into the gradient may be deferred: the thread that updates some units computes their gradients, of
all shards, from everybody's factors, and joins and applies them while they lie in a near cache. Other
gradients are written out.
"""

from __future__ import annotations

import numpy as np

from distbp.core.arrays import Array
from distbp.data.compiled_rows import take_rows
from distbp.engine.compiled_parts import Ops, Rows, Shards, Share, Update
from distbp.engine.totals import SURELY_FINITE
from distbp.machine.blas import Dots
from distbp.machine.dot import sum_of_squares
from distbp.machine.jit import inner, jit
from distbp.machine.pointers import ask_to_write, meet
from distbp.nn.ops.loops_products import deferred_part
from distbp.nn.ops.rows import SPACES, address_of, floats, runs
from distbp.nn.run_compiled import call_op
from distbp.nn.tape import TOTALS, Space
from distbp.optim.compiled import STRETCH, add_into, apply_rule, joined_sums
from distbp.optim.parts import CONSTANTS

INPUTS, TARGETS, WEIGHTS = int(Space.INPUTS), int(Space.TARGETS), int(Space.WEIGHTS)
LOSS, WEIGHT, BOUND = 0, 1, 2  # of the totals of a slice
LINE = 16  # float32 numbers in 64 bytes


@inner
def _compute(net: Ops, shards: Shards, rows: Rows, step: int, shard: int) -> None:
    count, table = rows.counts[step, shard], shards.tables[shard]
    shards.totals[shard, :] = 0
    if count == 0:
        return
    for number, space in ((0, INPUTS), (1, TARGETS), (2, WEIGHTS)):
        if rows.sources[shard, number]:
            take_rows(
                rows.sources[shard, number],
                rows.widths[number],
                rows.orders[shard],
                rows.firsts[step, shard],
                count,
                table[space],
            )
    words, spaces = address_of(net.words), address_of(table)
    for i in range(net.ops.size):
        row = words + 8 * net.starts[i]
        if not shards.skipped[i] and runs(row, spaces):
            call_op(net.ops[i], row, spaces, count)


@inner
def _update(
    net: Ops,
    shards: Shards,
    rule: Ops,
    update: Update,
    share: Share,
    step: int,
    counts: Array,
    numbers: Array,
    joined: bool,
    shared: bool,
    rooms: Array,
    addresses: Array,
) -> None:
    """numbers: (groups, ops, 4) with the scale. joined: the gradients already lie joined in the first
    shard's. rooms (2, STRETCH) and addresses (SPACES,): to work in."""
    base, room, direction = address_of(numbers), address_of(rooms), address_of(rooms[1])
    size, nothing = 8 * CONSTANTS * rule.ops.size, shards.additions[:0]
    for i in range(share.stretches.shape[0]):
        start, stop, group = share.stretches[i]
        if shared:
            ask_to_write(update.vectors[0] + 4 * start, 4 * (stop - start))
        order = nothing if joined else shards.additions
        sums = joined_sums(shards.gradients, order, start, stop - start, room)
        apply_rule(
            rule.words,
            rule.starts,
            rule.ops,
            update.vectors,
            sums,
            start,
            stop - start,
            direction,
            base + size * group,
            addresses,
        )
    for i in range(share.parts.shape[0]):
        op, begin, end, start, stop, group = share.parts[i]
        if shared:
            ask_to_write(update.vectors[0] + 4 * start, 4 * (stop - start))
        at = start % LINE  # relative to 64 bytes a part begins as it would in the gradient
        row = address_of(net.words) + 8 * net.starts[op]
        for shard in range(share.room.shape[0]):
            out = address_of(share.room[shard]) + 4 * at
            deferred_part(row, address_of(shards.tables[shard]), counts[shard], begin, end, out)
        for j in range(shards.additions.shape[0]):
            left = share.room[shards.additions[j, 0]].ctypes.data + 4 * at
            add_into(left, share.room[shards.additions[j, 1]].ctypes.data + 4 * at, left, stop - start)
        for first in range(start, stop, STRETCH):
            count = min(STRETCH, stop - first)
            apply_rule(
                rule.words,
                rule.starts,
                rule.ops,
                update.vectors,
                address_of(share.room) + 4 * (at + first - start),
                first,
                count,
                direction,
                base + size * group,
                addresses,
            )


@inner
def _find_squares(shards: Shards, share: Share, update: Update, dots: Dots) -> None:
    """Joins this thread's pieces in the gradient of the first shard, and finds the sum of squares of each."""
    for i in range(share.pieces.shape[0]):
        start, stop, number = share.pieces[i]
        first = shards.gradients[0] + 4 * start
        joined_sums(shards.gradients, shards.additions, start, stop - start, first)
        update.squares[number] = sum_of_squares(dots, floats(first, stop - start))


@inner
def _statistics(shards: Shards, update: Update, counted: float) -> None:
    """Moves the running statistics, as `ParameterServer` does. counted: rows that they are taken over."""
    for i in range(update.statistics.shape[0]):
        start, stop = update.statistics[i]
        first = shards.gradients[0] + 4 * start
        joined_sums(shards.gradients, shards.additions, start, stop - start, first)
        sums, values = floats(first, stop - start), floats(update.vectors[0] + 4 * start, stop - start)
        kept, new = np.float32(1.0 - update.rates[i]), np.float32(update.rates[i] / counted)
        for j in range(stop - start):
            values[j] = values[j] * kept + sums[j] * new


@inner
def _states(shards: Shards, update: Update) -> None:
    """Takes over the states that the shards have left, as `ParameterServer` does."""
    for i in range(update.states.shape[0]):
        start, stop = update.states[i]
        first = shards.gradients[0] + 4 * start
        joined_sums(shards.gradients, shards.additions, start, stop - start, first)
        found, values = floats(first, stop - start), floats(update.vectors[0] + 4 * start, stop - start)
        for j in range(stop - start):
            values[j] = found[j]


@jit
def train_steps(
    net: Ops,
    shards: Shards,
    rule: Ops,
    update: Update,
    dots: Dots,
    counters: Array,
    ways: tuple[int, int],
    rows: Rows,
    constants: Array,
    first_step: int,
    meeting: int,
    found: Array,
    live: Array,
    me: int,
    start: int,
    stop: int,
    share: Share,
) -> int:
    """Trains the steps of `rows` and `constants` (steps, groups, ops, 4); returns how many were applied, the
    same in every thread. A step that is not is left as if it had not begun.

    meeting: number of the last one; found: (steps, 3), takes the loss sum, the weight and the counted rows
    of each; to `live` (threads, units) the live rows of applied steps are added. This thread, `me`, has the
    shards [start, stop) and its share of the parameters."""
    shared, count = counters.shape[0] > 2, shards.totals.shape[0]  # threads, and one more
    rooms, addresses = np.empty((2, STRETCH), np.float32), np.empty(SPACES, np.int64)
    sums: Array = np.empty((count, 2))
    numbers: Array = np.empty(constants.shape[1:])
    for step in range(constants.shape[0]):
        for shard in range(start, stop):
            shards.positions[shard, 0] = first_step + step
            _compute(net, shards, rows, step, shard)
        meeting += 1
        if not meet(counters, me, meeting, ways):
            return step
        bound, counted = 0.0, 0
        for shard in range(count):
            sums[shard, 0], sums[shard, 1] = shards.totals[shard, LOSS], shards.totals[shard, WEIGHT]
            bound += shards.totals[shard, BOUND]
            if rows.counts[step, shard] > 1 or update.rates.size == 0:  # as `Worker` counts them
                counted += rows.counts[step, shard]
        for j in range(shards.additions.shape[0]):
            left, right = shards.additions[j]
            sums[left, 0] += sums[right, 0]
            sums[left, 1] += sums[right, 1]
        loss, weight = sums[0, 0], sums[0, 1]
        if not (np.isfinite(loss) and bound < SURELY_FINITE):
            return step
        scale = 1.0 / weight if weight > 0 else 0.0
        if update.clip > 0:
            _find_squares(shards, share, update, dots)
            meeting += 1
            if not meet(counters, me, meeting, ways):
                return step
            total = 0.0
            for i in range(update.squares.size):
                total += update.squares[i]
            scale *= min(1.0, update.clip / (np.sqrt(total) * scale + 1e-6))
        for group in range(numbers.shape[0]):
            for op in range(numbers.shape[1]):
                for i in range(numbers.shape[2]):
                    numbers[group, op, i] = constants[step, group, op, i]
            numbers[group, update.scaled, 0] *= scale
        _update(
            net,
            shards,
            rule,
            update,
            share,
            step,
            rows.counts[step],
            numbers,
            update.clip > 0,
            shared,
            rooms,
            addresses,
        )
        for shard in range(start, stop):
            for unit in range(live.shape[1]):
                live[me, unit] += shards.totals[shard, TOTALS + unit]
        if me == 0:
            if counted:
                _statistics(shards, update, float(counted))
            _states(shards, update)
            found[step, 0], found[step, 1], found[step, 2] = loss, weight, counted
        meeting += 1
        if not meet(counters, me, meeting, ways):
            return step
    rooms[0, 0], addresses[0], numbers[0, 0, 0] = 0, 0, 0  # they are used by their addresses until here
    return constants.shape[0]  # type: ignore[no-any-return]
