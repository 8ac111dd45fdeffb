"""Joins a step's sums and applies a rule, stretch by stretch, in one pass over memory (Numba, optional).

The joined gradient of a few thousand parameters is used while it lies in the first-level cache. It is never
written to memory. The additions are those of the fixed tree. Nothing is checked here: the caller knows that
the gradients are finite.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from distbp.core.arrays import Array
from distbp.machine.jit import inner
from distbp.machine.pointers import compact
from distbp.machine.structures import (
    DoubleTable,
    Placed,
    Wholes,
    WholeTable,
    address,
    address_of,
    placed,
    reader,
    stack,
    wholes,
)
from distbp.machine.vectors import add_into, ask_to_write, copy, squares_of, subtract_into
from distbp.nn.ops.rows import SPACES, call_op
from distbp.optim.parts import CONSTANTS, Vector

STRETCH = 4096  # parameters at a time: with their gradients and slots they stay in a core's first cache
ROOM = 4 * STRETCH  # bytes
TABLE = 8 * SPACES
PARAMETERS, SUMS, DIRECTION = int(Vector.PARAMETERS), int(Vector.SUMS), int(Vector.DIRECTION)
SLOTS, NUMBERS = int(Vector.SLOTS), int(Vector.CONSTANTS)


class Joining(NamedTuple):
    """A rule and the sums that it is applied to. words, starts, ops: the rule's program: the words of its
    ops, where each op begins, and the addresses of their functions. vectors: addresses of the parameters and
    of the slots. sources: (blocks,), addresses of the blocks' sums. order: (n, 2), the additions (left,
    right); all but the last are in place. shared: 1 if other threads have read the parameters; these are
    then prefetched before they are written."""

    words: Wholes
    starts: Wholes
    ops: Wholes
    vectors: Wholes
    sources: Wholes
    order: WholeTable
    shared: int


class Stretches(NamedTuple):
    """The parameters to update. stretches: (n, 3), start, stop and group of each. squares: (n, 3), receives
    the sums of squares if they are measured; each stretch then lies in one tensor. Else it has no rows."""

    stretches: WholeTable
    squares: DoubleTable


joining_at, stretches_at = reader(Joining), reader(Stretches)


def joining_of(
    program: tuple[Array, Array, Array, Array],
    sums: Sequence[Array],
    order: Sequence[tuple[int, int]],
    shared: bool,
) -> Placed:
    """A `Joining` for compiled code. program: its first four fields. sums: (parameters,) float32 for each
    block; keep them while the result is used."""
    sources = np.array([address(one) for one in sums], np.int64)
    return placed(Joining(*program, sources, np.array(order, np.int64).reshape(-1, 2), int(shared)))


def part_of(stretches: Array, squares: Array | None = None) -> Placed:
    return placed(Stretches(stretches, np.empty((0, 3)) if squares is None else squares))


@inner
def joined_sums(sources: Array, order: Array, start: int, count: int, room: int) -> int:
    """Joins the sums of `count` parameters from `start` on, and returns the address of the result: `room`,
    or, if there is one block only, a place in its sums. sources, order: see `Joining`."""
    compact()
    at = sources[0] + 4 * start
    for j in range(order.shape[0]):
        left, right = sources[order[j, 0]] + 4 * start, sources[order[j, 1]] + 4 * start
        at = left if j < order.shape[0] - 1 else room
        add_into(left, right, at, count)
    return at  # type: ignore[no-any-return]


@inner
def apply_rule(joining: int, sums: int, start: int, count: int, constants: int) -> None:
    """Runs the ops of a rule on `count` parameters from `start` on. joining: address of a `Joining`. sums:
    address of the sums of their gradients. constants: address of (rows, 4) float64."""
    compact()
    rule, spaces = joining_at(joining), stack(TABLE)
    table = wholes(spaces, SPACES)
    table[PARAMETERS] = rule.vectors[0] + 4 * start
    table[SUMS] = sums
    table[DIRECTION] = stack(ROOM)
    for slot in range(rule.vectors.size - 1):
        table[SLOTS + slot] = rule.vectors[1 + slot] + 4 * start
    table[NUMBERS] = constants
    for i in range(rule.ops.size):
        call_op(rule.ops[i], address_of(rule.words) + 8 * rule.starts[i], spaces, count)


def update(joining: int, part: int, constants: int) -> None:
    """Updates the parameters of some stretches. joining, part: addresses of a `Joining` and of `Stretches`.
    constants: address of (groups, rows, 4) float64, already multiplied by the scale. Squares are those of the
    gradient sums, of the parameters before the update, and of the update."""
    compact()
    rule, it = joining_at(joining), stretches_at(part)
    stretches, squares = it.stretches, it.squares
    room, change = stack(ROOM), stack(ROOM)
    for i in range(stretches.shape[0]):
        start, count, group = stretches[i, 0], stretches[i, 1] - stretches[i, 0], stretches[i, 2]
        values = rule.vectors[0] + 4 * start
        if rule.shared:
            ask_to_write(values, 4 * count)
        sums = joined_sums(rule.sources, rule.order, start, count, room)
        if squares.shape[0]:
            squares[i, 0], squares[i, 1] = squares_of(sums, count), squares_of(values, count)
            copy(values, change, 4 * count)
        apply_rule(joining, sums, start, count, constants + 8 * CONSTANTS * rule.ops.size * group)
        if squares.shape[0]:
            subtract_into(values, change, change, count)
            squares[i, 2] = squares_of(change, count)
