"""Joins the sums of a step's blocks and applies a compiled rule to them, in one pass over memory (Numba,
optional).

The joined gradient of a few thousand parameters is used while it lies in the nearest cache, and is never
written out. The additions are those of the fixed tree, and the rules those of `compiled`, so the bits are
those of joining first and updating then. For rules that need no gradient norm, and gradients that are known
to be finite: nothing is checked here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import numpy as np

from distbp.nn.arrays import Array
from distbp.nn.jit import jit
from distbp.nn.pointers import vector_at
from distbp.optimizers.compiled import Rule, update_shared
from distbp.optimizers.parts import Step
from distbp.schedules import PlateauState

STRETCH = 4096  # parameters at a time: with their gradients and slots they stay in a core's first cache
WORTH_A_THREAD = 131072  # parameters; waking a thread costs about as much as updating so many


@jit
def joined_sums(sources: Array, order: Array, start: int, like: Array, room: Array) -> Array:
    """The joined gradient of the parameters `like`, which begin at `start`: the last addition's result in
    `room`, or the only block's own sums."""
    count, offset = like.size, start * like.itemsize
    sums = vector_at(sources[0] + offset, count, like)
    for j in range(order.shape[0]):
        left = vector_at(sources[order[j, 0]] + offset, count, like)
        right = vector_at(sources[order[j, 1]] + offset, count, like)
        sums = left if j < order.shape[0] - 1 else room[:count]
        for n in range(count):
            sums[n] = left[n] + right[n]
    return sums  # type: ignore[no-any-return]


@jit
def join_and_update(
    sources: Array,
    order: Array,
    stretches: Array,
    rule: int,
    parameters: Array,
    first: Array,
    second: Array,
    scale: float,
    l2: float,
    constants: Array,
) -> None:
    """sources: addresses of the blocks' sums; order: the additions (left, right) of `reduction.joins`, in
    place but for the last; stretches: (start, stop, whether it decays); constants: keep, and what follows it
    (see `compiled.update`)."""
    room = np.empty(STRETCH, parameters.dtype)
    keep, after_keep = constants[0], constants[1:]
    for i in range(stretches.shape[0]):
        start, stop, decays = stretches[i, 0], stretches[i, 1], stretches[i, 2]
        sums = joined_sums(sources, order, start, parameters[start:stop], room)
        update_shared(
            rule, parameters[start:stop], sums, first[start:stop], second[start:stop],
            scale, l2 if decays else 0.0, keep if decays else 1.0, after_keep,
        )  # fmt: skip


def stretches_of(size: int, decays: Sequence[tuple[int, int]]) -> Array:
    """[0, size) as (start, stop, whether it decays), int64, in order and none longer than STRETCH."""
    cuts = sorted({0, size, *(at for pair in decays for at in pair), *range(0, size, STRETCH)})
    starts = np.array(cuts[:-1], np.int64)
    ends = np.array(cuts[1:], np.int64)
    return with_decays(starts, ends, decays)


def with_decays(starts: Array, ends: Array, decays: Sequence[tuple[int, int]]) -> Array:
    """(start, stop, whether it decays) for each, int64. Raises ValueError where only some of one does."""
    decayed = np.zeros(len(starts), np.int64)
    for a, b in decays:
        within = (starts >= a) & (ends <= b)
        if (~within & (starts < b) & (a < ends)).any():
            raise ValueError(f"decay of {a}..{b} begins or ends within one of the parts of the vector")
        decayed[within] = 1
    return np.stack([starts, ends, decayed], axis=1)


def shares_of(stretches: Array, threads: int) -> list[Array]:
    """Consecutive rows, about as many for each thread."""
    cuts = [len(stretches) * thread // threads for thread in range(threads + 1)]
    return [stretches[a:b] for a, b in pairwise(cuts)]


def slots_of(rule: Rule, slots: Mapping[str, Array], like: Array) -> tuple[Array, Array]:
    """The two that `update` takes; empty ones where the rule has fewer."""
    found = [slots[name] for name in rule.slots]
    first, second = (*found, *[like[:0]] * (2 - len(found)))
    return first, second


def constants_of(rule: Rule, step: Step) -> tuple[float, ...]:
    """keep, and what follows it, at one step."""
    return 1.0 - step.learning_rate * rule.decay, *rule.constants(step)


def constants_of_steps(
    rule: Rule, learning_rate: Callable[[int, PlateauState], float], plateau: PlateauState, steps: range
) -> Array:
    """(steps, ...): `constants_of` each. For rules that ask for no gradient norm."""
    rates = [float(learning_rate(step, plateau)) for step in steps]
    infos = [Step(step + 1, rate) for step, rate in zip(steps, rates, strict=True)]
    return np.array([constants_of(rule, info) for info in infos])


def address(vector: Array) -> int:
    """Of a vector's first value. Keep the vector while the address is used."""
    return int(vector.__array_interface__["data"][0])


def worth_threads(size: int, most: int) -> int:
    """How many threads, at most `most`, a vector of `size` is worth."""
    return max(1, min(most, size // WORTH_A_THREAD))
