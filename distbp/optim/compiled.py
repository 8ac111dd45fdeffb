"""Joins a step's sums and applies a rule, stretch by stretch, in one pass over memory (Numba, optional).

The joined gradient of a few thousand parameters is used while it lies in the nearest cache, and is never
written out. The additions are those of the fixed tree. Nothing is checked here: the gradients are known to
be finite.
"""

from __future__ import annotations

import numpy as np

from distbp.core.arrays import Array
from distbp.machine.jit import inner, jit
from distbp.machine.pointers import ask_to_write
from distbp.nn.ops.rows import SPACES, address_of, floats
from distbp.nn.run_compiled import call_op
from distbp.optim.parts import CONSTANTS, Vector

STRETCH = 4096  # parameters at a time: with their gradients and slots they stay in a core's first cache
PARAMETERS, SUMS, DIRECTION = int(Vector.PARAMETERS), int(Vector.SUMS), int(Vector.DIRECTION)
SLOTS, NUMBERS = int(Vector.SLOTS), int(Vector.CONSTANTS)


@inner
def add_into(left: int, right: int, out: int, count: int) -> None:
    """out <- left + right, of `count` float32 numbers at addresses."""
    a, b, c = floats(left, count), floats(right, count), floats(out, count)
    for n in range(count):
        c[n] = a[n] + b[n]


@inner
def joined_sums(sources: Array, order: Array, start: int, count: int, room: int) -> int:
    """The address of the joined gradient of `count` parameters from `start` on: `room`, or in the only
    block's own sums."""
    at = sources[0] + 4 * start
    for j in range(order.shape[0]):
        left, right = sources[order[j, 0]] + 4 * start, sources[order[j, 1]] + 4 * start
        at = left if j < order.shape[0] - 1 else room
        add_into(left, right, at, count)
    return at  # type: ignore[no-any-return]


@inner
def apply_rule(
    words: Array,
    starts: Array,
    ops: Array,
    vectors: Array,
    sums: int,
    start: int,
    count: int,
    room: int,
    constants: int,
    table: Array,
) -> None:
    """Runs the ops of a rule on `count` parameters from `start` on. vectors: addresses of the parameters and
    of the slots; sums: of their gradient sums; room: of as many numbers; constants: of (rows, 4); table:
    takes the addresses of the spaces, (SPACES,)."""
    table[PARAMETERS] = vectors[0] + 4 * start
    table[SUMS] = sums
    table[DIRECTION] = room
    for slot in range(vectors.size - 1):
        table[SLOTS + slot] = vectors[1 + slot] + 4 * start
    table[NUMBERS] = constants
    for i in range(ops.size):
        call_op(ops[i], address_of(words) + 8 * starts[i], address_of(table), count)


@jit
def update(
    words: Array,
    starts: Array,
    ops: Array,
    vectors: Array,
    sources: Array,
    order: Array,
    stretches: Array,
    constants: Array,
    shared: bool,
) -> None:
    """Updates the stretches, (start, stop, group) each. sources: addresses of the blocks' sums; order: the
    additions (left, right), in place but for the last; constants: (groups, rows, 4) with the scale. shared:
    other threads have read the parameters, so they are asked for before they are written."""
    rooms, table = np.empty((2, STRETCH), np.float32), np.empty(SPACES, np.int64)
    base, room, direction = address_of(constants), address_of(rooms), address_of(rooms[1])
    size = 8 * CONSTANTS * ops.size
    for i in range(stretches.shape[0]):
        start, count, group = stretches[i, 0], stretches[i, 1] - stretches[i, 0], stretches[i, 2]
        if shared:
            ask_to_write(vectors[0] + 4 * start, 4 * count)
        sums = joined_sums(sources, order, start, count, room)
        apply_rule(words, starts, ops, vectors, sums, start, count, direction, base + size * group, table)
    rooms[0, 0] = 0  # it is used by its address until here


@inner
def squares_of(at: int, count: int) -> float:
    """The sum of squares of float32 numbers, in float64: eight sums, added one after the other.

    Numba's `float` would leave the numbers as they are, and their squares may be beyond float32."""
    x = floats(at, count)
    lanes = np.zeros(8)
    most = count - count % 8
    for i in range(0, most, 8):
        for k in range(8):
            v = np.float64(x[i + k])
            lanes[k] += v * v
    total = 0.0
    for k in range(8):
        total += lanes[k]
    for i in range(most, count):
        total += np.float64(x[i]) * np.float64(x[i])
    return total


@jit
def measured_update(
    words: Array,
    starts: Array,
    ops: Array,
    vectors: Array,
    sources: Array,
    order: Array,
    parts: Array,
    constants: Array,
    squares: Array,
) -> None:
    """As `update`, of parts that lie in one tensor each; squares: (parts, 3), the sums of squares of the
    gradient sums, of the parameters before, and of the update."""
    rooms, table = np.empty((3, STRETCH), np.float32), np.empty(SPACES, np.int64)
    base, room, direction, change = (
        address_of(constants),
        address_of(rooms),
        address_of(rooms[1]),
        address_of(rooms[2]),
    )
    size = 8 * CONSTANTS * ops.size
    for i in range(parts.shape[0]):
        start, count, group = parts[i, 0], parts[i, 1] - parts[i, 0], parts[i, 2]
        values = vectors[0] + 4 * start
        sums = joined_sums(sources, order, start, count, room)
        squares[i, 0], squares[i, 1] = squares_of(sums, count), squares_of(values, count)
        before, after = floats(change, count), floats(values, count)
        for n in range(count):
            before[n] = after[n]
        apply_rule(words, starts, ops, vectors, sums, start, count, direction, base + size * group, table)
        for n in range(count):
            before[n] = after[n] - before[n]
        squares[i, 2] = squares_of(change, count)
    rooms[0, 0] = 0  # it is used by its address until here
