"""Many steps of a job, in one compiled call for each thread (Numba, optional).

Each thread owns some shards, like a worker, and some parameters, like a server of a range. The threads meet
twice in a step: when all shards are computed, and when all parameters are updated. They meet once more
between if gradients are clipped by their norm. Ops, rules and the order of every sum are those of
`Worker.compute` and `ParameterServer.apply`, and so are the bits.

A product into the gradient may be deferred. The thread that owns the parameters of some units then computes
their gradients for all shards, joins them and applies them while they lie in a near cache. Other gradients
are written to memory first.

The pieces of a step are compiled one by one and called by their addresses, as ops are. So a job compiles only
the pieces that it uses, and each once.
"""

from __future__ import annotations

import numpy as np

from distbp.data.compiled_rows import take_rows
from distbp.engine.compiled_parts import Call, Carrying, Clipping, Computing, Deferred, Steps
from distbp.engine.totals import SURELY_FINITE
from distbp.machine.dot import sum_of_squares
from distbp.machine.pointers import compact, load, meet, nanoseconds, store
from distbp.machine.scalars import smaller
from distbp.machine.structures import address_of, floats, reader
from distbp.machine.vectors import add_into, ask_to_write
from distbp.nn.ops.loops_products import deferred_part
from distbp.nn.ops.rows import call_op
from distbp.nn.tape import BOUND_TOTAL, LOSS_TOTAL, TOTALS, WEIGHT_TOTAL, Space
from distbp.optim.compiled import STRETCH, apply_rule, joined_sums

LOSS, WEIGHT, BOUND = LOSS_TOTAL.start, WEIGHT_TOTAL.start, BOUND_TOTAL.start  # places in a slice's totals
LINE = 16  # float32 numbers in 64 bytes

ROOMS = (int(Space.INPUTS), int(Space.TARGETS), int(Space.WEIGHTS))  # the spaces that rows are copied to
computing_at, deferred_at, clipping_at = reader(Computing), reader(Deferred), reader(Clipping)
carrying_at, steps_at, call_at = reader(Carrying), reader(Steps), reader(Call)


def compute(computing: int, step: int, shard: int) -> None:
    """Gathers a shard's slice of a step and runs the ops on it. computing: address of a `Computing`."""
    compact()
    it = computing_at(computing)
    for i in range(it.totals.shape[1]):
        it.totals[shard, i] = 0.0
    count = it.counts[step, shard]
    if count == 0:
        return
    for number in range(it.sources.shape[1]):
        source, order = it.sources[shard, number], it.orders[shard]
        if source:
            to = it.tables[shard, ROOMS[number]]
            take_rows(source, it.widths[number], order, it.firsts[step, shard], count, to)
    call_op(it.run, it.program, address_of(it.tables[shard]), count)


def update_deferred(deferred: int, step: int, constants: int) -> None:
    """Computes, joins and applies the deferred gradients of a thread. deferred: address of a `Deferred`.
    constants: address of (groups, ops, 4), already multiplied by the scale."""
    compact()
    it = deferred_at(deferred)
    for i in range(it.parts.shape[0]):
        op, begin, end = it.parts[i, 0], it.parts[i, 1], it.parts[i, 2]
        start, stop, group = it.parts[i, 3], it.parts[i, 4], it.parts[i, 5]
        if it.shared:
            ask_to_write(it.vector + 4 * start, 4 * (stop - start))
        at = start % LINE  # a part begins at the same offset from a cache line as it would in the gradient
        row = address_of(it.words) + 8 * it.starts[op]
        for shard in range(it.room.shape[0]):
            out, table = address_of(it.room[shard]) + 4 * at, address_of(it.tables[shard])
            deferred_part(row, table, it.counts[step, shard], begin, end, out)
        for j in range(it.additions.shape[0]):
            left = address_of(it.room[it.additions[j, 0]]) + 4 * at
            right = address_of(it.room[it.additions[j, 1]]) + 4 * at
            add_into(left, right, left, stop - start)
        for first in range(start, stop, STRETCH):
            count = smaller(STRETCH, stop - first)
            sums = address_of(it.room) + 4 * (at + first - start)
            apply_rule(it.joining, sums, first, count, constants + it.constants * group)


def find_squares(clipping: int, _: int, __: int) -> None:
    """Joins a thread's pieces into the gradient of the first shard, and computes the sum of squares of each.
    clipping: address of a `Clipping`."""
    it = clipping_at(clipping)
    for i in range(it.pieces.shape[0]):
        start, count = it.pieces[i, 0], it.pieces[i, 1] - it.pieces[i, 0]
        first = it.gradients[0] + 4 * start
        joined_sums(it.gradients, it.additions, start, count, first)
        it.squares[it.pieces[i, 2]] = sum_of_squares(it.single, it.double, floats(first, count))


def carry(carrying: int, counted: int, _: int) -> None:
    """Updates the running statistics from `counted` rows, and copies the states of the shards into the
    vector, as `ParameterServer` does. carrying: address of a `Carrying`."""
    it = carrying_at(carrying)
    for i in range(it.statistics.shape[0] if counted else 0):
        start, count = it.statistics[i, 0], it.statistics[i, 1] - it.statistics[i, 0]
        first = it.gradients[0] + 4 * start
        joined_sums(it.gradients, it.additions, start, count, first)
        sums, values = floats(first, count), floats(it.vector + 4 * start, count)
        kept, new = np.float32(1.0 - it.rates[i]), np.float32(it.rates[i] / counted)
        for j in range(count):
            values[j] = values[j] * kept + sums[j] * new
    for i in range(it.states.shape[0]):
        start, count = it.states[i, 0], it.states[i, 1] - it.states[i, 0]
        first = it.gradients[0] + 4 * start
        joined_sums(it.gradients, it.additions, start, count, first)
        found, values = floats(first, count), floats(it.vector + 4 * start, count)
        for j in range(count):
            values[j] = found[j]


def train_steps(steps: int, call: int, _: int) -> None:
    """Trains the steps of a `Call`. steps, call: addresses of a thread's `Steps` and `Call`. Every thread
    calls this; it waits for the others. A step whose sums may not be finite is not applied in any thread, and
    ends the call. At least one step is applied before the limit of time ends the call."""
    compact()
    it, asked = steps_at(steps), call_at(call)
    constants, meeting = asked.constants, asked.meeting
    totals, sums, counts, additions = it.totals, it.sums, it.counts, it.additions
    counters, threads, ways = address_of(it.counters), it.counters.shape[0] - 1, (it.offer, it.nap)
    early = counters + 64 * threads + 8
    it.done[0] = it.done[1] = it.done[2] = began = 0
    for step in range(constants.shape[0]):
        for shard in range(it.start, it.stop):
            it.positions[shard, 0] = asked.first_step + step
            call_op(it.compute, it.computing, step, shard)
        if it.me == 0 and step > 0:
            # No thread reads this between here and the meeting: all have met since they read it last.
            store(early, nanoseconds(it.clock) - began > asked.limit)
        meeting += 1
        if not meet(counters, threads, it.me, meeting, ways):
            return
        if load(early):
            break
        bound, counted = 0.0, 0
        for shard in range(totals.shape[0]):
            sums[shard, 0], sums[shard, 1] = totals[shard, LOSS], totals[shard, WEIGHT]
            bound += totals[shard, BOUND]
            if counts[step, shard] > it.several:  # as `Worker` counts them
                counted += counts[step, shard]
        for j in range(additions.shape[0]):
            left, right = additions[j, 0], additions[j, 1]
            sums[left, 0] += sums[right, 0]
            sums[left, 1] += sums[right, 1]
        loss, weight = sums[0, 0], sums[0, 1]
        if not (loss - loss == 0 and bound < SURELY_FINITE):  # inf - inf is NaN
            return
        scale = 1.0 / weight if weight > 0 else 0.0
        if it.clip > 0:
            call_op(it.find_squares, it.clipping, 0, 0)
            meeting += 1
            if not meet(counters, threads, it.me, meeting, ways):
                return
            total = 0.0
            for i in range(it.squares.size):
                total += it.squares[i]
            scale *= smaller(1.0, it.clip / (np.sqrt(total) * scale + 1e-6))
        for group in range(constants.shape[1]):
            constants[step, group, it.scaled, 0] *= scale
        numbers = address_of(constants[step])
        call_op(it.update, it.joining, it.stretches, numbers)
        if it.update_deferred:
            call_op(it.update_deferred, it.deferred, step, numbers)
        for shard in range(it.start, it.stop):
            for unit in range(it.live.shape[1]):
                it.live[it.me, unit] += totals[shard, TOTALS + unit]
        if it.me == 0:
            if it.carry:
                call_op(it.carry, it.carrying, counted, 0)
            it.found[step, 0], it.found[step, 1], it.found[step, 2] = loss, weight, counted
        meeting += 1
        if not meet(counters, threads, it.me, meeting, ways):
            return
        it.done[0] = step + 1
        if it.me == 0 and step == 0:
            began = nanoseconds(it.clock)
    if it.me == 0:
        it.done[1], it.done[2] = nanoseconds(it.clock) - began, it.done[0] - 1
