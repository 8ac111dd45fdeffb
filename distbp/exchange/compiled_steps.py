"""Many steps of a stack of dense layers, each thread in one compiled call (Numba, optional).

Each thread has some of the shards, as a worker has, and some of the parameters, as a server of a range has.
Twice in a step they meet: when all shards are computed, and when all parameters are updated. Kernels,
products and their shapes are those of `dense_stack` and `optimizers.compiled`, in the same order for every
element, so the bits are those of `Worker.compute` and `ParameterServer.apply` for the same steps.

Where the factors of the weights' gradients are fewer numbers than these gradients, gradients are not written
out: whoever updates some units computes their gradients, of all shards, from everybody's factors, and joins
and applies them, with slices of up to 128 rows while they lie in a near cache (see `units_at_once`). Else
each thread computes its shards' gradients whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from distbp.data.compiled_rows import take_rows
from distbp.nn.arrays import Array
from distbp.nn.dense_stack import (
    LINE,
    Plan,
    add_live_rows,
    backward_to_biases,
    block,
    bound_by_factors,
    bound_of,
    factors,
    factors_are_fewer,
    units_at_once,
    weight_gradients,
)
from distbp.nn.gemm import PLAIN, TRANSPOSED, product
from distbp.nn.jit import jit
from distbp.nn.network import Network
from distbp.nn.pointers import meet
from distbp.optimizers.compiled import update, update_shared
from distbp.optimizers.joined import join_and_update, shares_of, stretches_of, with_decays
from distbp.totals import SURELY_FINITE

BIAS = -1  # in place of a layer: the gradients of these parameters are written out in any case
UNEQUAL = 1.15  # times a fair share of the parameters: then the others would wait too long for one thread


@jit
def joined(sums: Array, additions: Array, start: int, stop: int) -> Array:
    """The sum over all rows of `sums` of [start, stop). It ends in the first; others are overwritten, too."""
    for j in range(additions.shape[0]):
        left, right = sums[additions[j, 0], start:stop], sums[additions[j, 1], start:stop]
        for n in range(left.size):
            left[n] += right[n]
    return sums[0, start:stop]


@jit
def train_steps(
    places: Plan,
    vector: Array,
    inputs: Array,
    targets: Array,
    gradients: Array,
    sources: Array,
    xs: Array,
    labels: Array,
    works: Array,
    written: bool,
    sums: Array,
    additions: Array,
    rule: int,
    first: Array,
    second: Array,
    l2: float,
    counters: Array,
    ways: tuple[int, int],
    meeting: int,
    orders: Array,
    constants: Array,
    loss_sums: Array,
    me: int,
    start: int,
    stop: int,
    parts: Array,
    stretches: Array,
    rooms: Array,
    losses: Array,
    totals: Array,
    live: Array,
    of_step: Array,
) -> int:
    """Steps on the rows of `orders` (shards, steps * rows), one for each line of `constants`; returns how
    many were applied, the same in every thread. A step that is not is left as if it had not begun.

    gradients: (shards, size or more), at the addresses `sources`; xs, labels, works: what a slice is computed
    with, for each thread where gradients are `written`, else for each shard; sums: (shards, 2), loss and
    bound; meeting: number of the last one.

    This thread, `me`, has the shards [start, stop), and `parts` or `stretches` of the parameters (see
    `Share`); all that follows is scratch of its own, but `live`: to it the rows of applied steps are added in
    which its units were live (see `totals`), float64, like `of_step`, float32."""
    shards, rows, shared = sums.shape[0], xs.shape[1], counters.shape[0] > 2  # threads, and one more
    scale = 1.0 / float(shards * rows)
    for step in range(constants.shape[0]):
        of_step[:] = 0
        for shard in range(start, stop):
            at = me if written else shard
            x, work = xs[at], works[at]
            take_rows(inputs, targets, orders[shard], step * rows, x, labels[at])
            gradient = gradients[shard]
            sums[shard, 0] = backward_to_biases(
                places, vector, gradient, work, x, labels[at], None, losses, totals
            )
            add_live_rows(places, work, rows, of_step)
            if written:
                weight_gradients(places, gradient, work, x)
                sums[shard, 1] = bound_of(places, gradient, work, x)
            else:
                sums[shard, 1] = bound_by_factors(places, work, x)
        if not meet(counters, me, meeting + 2 * step + 1, ways):
            return step
        bound, loss = 0.0, sums[:, 0].copy()
        for shard in range(shards):
            bound += sums[shard, 1]
        for j in range(additions.shape[0]):
            loss[additions[j, 0]] += loss[additions[j, 1]]
        if not (np.isfinite(loss[0]) and bound < SURELY_FINITE):
            return step
        if written:
            join_and_update(
                sources, additions, stretches, rule, vector, first, second, scale, l2, constants[step]
            )
        keep, after_keep = constants[step, 0], constants[step, 1:]
        for p in range(parts.shape[0]):
            layer, begin, end, at, to, decays = parts[p]
            if layer == BIAS:
                summed = joined(gradients, additions, at, to)
            else:
                start_in_room = at % LINE  # relative to 64 bytes it begins as it would in the gradient
                for shard in range(shards):
                    dz, below = factors(places, works[shard], xs[shard], layer)
                    some = block(rooms[shard], start_in_room, end - begin, below.shape[1])
                    product(places.gemm, TRANSPOSED, PLAIN, dz[:, begin:end], below, some)
                summed = joined(rooms, additions, start_in_room, start_in_room + to - at)
            decay, kept = (l2, keep) if decays else (0.0, 1.0)
            mine, one, two = vector[at:to], first[at:to], second[at:to]
            if shared:
                update_shared(rule, mine, summed, one, two, scale, decay, kept, after_keep)
            else:
                update(rule, mine, summed, one, two, scale, decay, kept, after_keep)
        if me == 0:
            loss_sums[step] = loss[0]
        if not meet(counters, me, meeting + 2 * step + 2, ways):
            return step
        live += of_step
    return len(constants)


class Share(NamedTuple):
    """What one thread updates: where gradients are written out, `stretches`, each (start, stop, whether it
    decays); else `parts`, each (layer or BIAS, first unit, stop unit, start, stop, whether it decays)."""

    parts: Array
    stretches: Array

    @property
    def room(self) -> int:
        """For how many gradients at a time it needs room."""
        sizes = self.parts[:, 4] - self.parts[:, 3]
        return int(sizes[self.parts[:, 0] != BIAS].max(initial=0))


def written_shares(count: int, decays: Sequence[tuple[int, int]], threads: int) -> list[Share]:
    """`count` parameters dealt to threads, where gradients are written out."""
    nothing = np.empty((0, 6), np.int64)
    return [Share(nothing, one) for one in shares_of(stretches_of(count, decays), threads)]


def shares_of_units(
    network: Network, rows: int, decays: Sequence[tuple[int, int]], threads: int
) -> list[Share] | None:
    """The parameters of a stack of dense layers dealt to threads, in the parts in which the gradients of
    slices of `rows` rows are computed. None where gradients should be written out: as they are fewer numbers
    than their factors, or as the parts cannot be dealt equally."""
    shapes = list(pairwise(shape[0] for shape in network.shapes))
    if not factors_are_fewer(rows, shapes[0][0], sum(units for _, units in shapes), network.size):
        return None
    parts = np.array(list(_parts(network, rows, shapes)), np.int64)
    sizes = parts[:, 4] - parts[:, 3]
    parts = np.column_stack([parts, with_decays(parts[:, 3], parts[:, 4], decays)[:, 2]])
    dealt: list[list[int]] = [[] for _ in range(threads)]
    loads = [0] * threads
    for part in np.argsort(-sizes, kind="stable"):
        least = loads.index(min(loads))
        dealt[least].append(int(part))
        loads[least] += int(sizes[part])
    if max(loads) > UNEQUAL * sum(loads) / threads:
        return None
    return [Share(parts[sorted(mine)], np.empty((0, 3), np.int64)) for mine in dealt]


def _parts(
    network: Network, rows: int, shapes: Sequence[tuple[int, int]]
) -> Iterator[tuple[int, int, int, int, int]]:
    for tensor in network.tensors:
        features, units = shapes[tensor.layer]
        if tensor.name == "bias":
            yield BIAS, 0, 0, tensor.start, tensor.stop
            continue
        many = units_at_once(rows, units, features)
        for begin in range(0, units, many):
            end = min(begin + many, units)
            yield tensor.layer, begin, end, tensor.start + begin * features, tensor.start + end * features
