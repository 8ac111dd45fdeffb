"""Many steps of a job with several shards, each thread in one compiled call, for the inline exchange (Numba,
optional).

Each thread has some of the shards, as a worker has, and a part of the flat vector, as a server of a range
has. Twice in a step they meet: when all gradients are there, and when every part is updated. Kernels,
products and additions are those of `Worker.compute` and `ParameterServer.apply`, and so are the bits.

What needs more than that is left to those two: the last step of an epoch (norms, saturation), clipping, and a
step whose gradients are not known to be finite.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from distbp.blueprint import Blueprint
from distbp.data.batches import ShardReader
from distbp.data.compiled_rows import take_rows
from distbp.data.prepared import PreparedRows
from distbp.nn import kernels as kernel_sets
from distbp.nn.arrays import Array
from distbp.nn.blas import Gemm
from distbp.nn.dense_stack import LINE, Plan, backward_to_biases, bound_of, plan, weight_gradients
from distbp.nn.jit import jit
from distbp.nn.network import aligned_vector
from distbp.nn.pointers import WAYS, meet
from distbp.optimizers.compiled import Rule
from distbp.optimizers.joined import (
    address,
    constants_of_steps,
    join_and_update,
    shares_of,
    slots_of,
    stretches_of,
)
from distbp.parameter_server import ParameterServer
from distbp.reduction import Block, assign, joins
from distbp.schedules import PlateauState
from distbp.totals import SURELY_FINITE

# Calls of all threads begin together, which costs some 300 us; a tenth of a second later they have ended, and
# signals are heard.
FLOPS_A_CALL = 1e10
MOST_STEPS = 256
MOST_BYTES = 1 << 30  # of gradients: each shard has a vector of its own


@jit
def _train(
    places: Plan,
    vector: Array,
    inputs: Array,
    targets: Array,
    gradients: Array,
    sums: Array,
    sources: Array,
    additions: Array,
    rule: int,
    first: Array,
    second: Array,
    l2: float,
    scale: float,
    counters: Array,
    ways: tuple[int, int],
    meeting: int,
    orders: Array,
    constants: Array,
    loss_sums: Array,
    me: int,
    start: int,
    stop: int,
    stretches: Array,
    work: Array,
    x: Array,
    labels: Array,
    losses: Array,
    totals: Array,
) -> int:
    """Steps on the rows of `orders` (shards, steps * rows), one for each line of `constants`; returns how
    many were applied, the same in every thread. A step that is not is left as if it had not begun.

    This thread, `me`, has the shards [start, stop) and the `stretches`; all that follows is scratch of its
    own. gradients: (shards, size or more); sums: (shards, 2), loss and bound; meeting: of the last call."""
    rows = x.shape[0]
    for step in range(constants.shape[0]):
        for shard in range(start, stop):
            take_rows(inputs, targets, orders[shard], step * rows, x, labels)
            gradient = gradients[shard]
            sums[shard, 0] = backward_to_biases(
                places, vector, gradient, work, x, labels, None, losses, totals
            )
            weight_gradients(places, gradient, work, x)
            sums[shard, 1] = bound_of(places, gradient, work, x)
        if not meet(counters, me, meeting + 2 * step + 1, ways):
            return step
        bound, loss = 0.0, sums[:, 0].copy()
        for shard in range(sums.shape[0]):
            bound += sums[shard, 1]
        for j in range(additions.shape[0]):
            loss[additions[j, 0]] += loss[additions[j, 1]]
        if not (np.isfinite(loss[0]) and bound < SURELY_FINITE):
            return step
        join_and_update(
            sources, additions, stretches, rule, vector, first, second, scale, l2, constants[step]
        )
        if me == 0:
            loss_sums[step] = loss[0]
        if not meet(counters, me, meeting + 2 * step + 2, ways):
            return step
    return len(constants)


class ThreadedSteps:
    """`run(step, stop, plateau)`: trains some steps from `step` on, and returns how many; 0: the next one is
    not for here. `threads`: at most one for each shard."""

    def __init__(
        self,
        blueprint: Blueprint,
        rule: Rule,
        server: ParameterServer,
        readers: Sequence[ShardReader],
        data: PreparedRows,
        threads: int,
    ) -> None:
        shards, network, sharding = blueprint.shards, blueprint.network(), blueprint.sharding()
        self._server, self._rule = server, rule
        self._readers = readers
        self._epoch = -1
        self._rows = rows = blueprint.job.batch_size // shards
        self._steps_per_epoch = sharding.steps_per_epoch
        self._full_batches = sharding.rows // blueprint.job.batch_size
        flops = 6 * blueprint.job.batch_size * network.parameter_count
        self._most = int(max(1, min(MOST_STEPS, FLOPS_A_CALL / flops)))
        kernels = kernel_sets.load(blueprint.kernels)
        assert kernels.gemm is not None
        gemm = kernels.gemm(network.dtype)
        width = -(-network.size // LINE) * LINE
        gradients = aligned_vector(shards * width, network.dtype).reshape(shards, width)
        gradients[:] = 0
        order = joins(Block(0, shards), [Block(shard, shard + 1) for shard in range(shards)])
        count = network.parameter_count
        slots = slots_of(rule, server.slots, server.vector)
        self._counters = np.zeros((threads + 1, 8), np.int64)
        self._meeting = 0
        self._shared = (
            plan(network, rows, gemm)[0], server.vector, data.inputs, data.targets, gradients,
            np.zeros((shards, 2)), np.array([address(one) for one in gradients]),
            np.array(order, np.int64).reshape(-1, 2), rule.number, *slots, rule.l2,
            1.0 / blueprint.job.batch_size, self._counters, WAYS,
        )  # fmt: skip
        stretches = shares_of(stretches_of(count, blueprint.decays(network)), threads)
        self._own = [
            (me, *assign(shards, threads)[me], stretches[me], *_scratch(blueprint, rows, gemm, data))
            for me in range(threads)
        ]
        self._losses = np.zeros(self._most)
        self._pool = ThreadPoolExecutor(threads - 1, "distbp-steps") if threads > 1 else None

    def run(self, step: int, stop: int, plateau: PlateauState) -> int:
        epoch, index = divmod(step, self._steps_per_epoch)
        steps = min(stop - step, self._full_batches - index, self._steps_per_epoch - 1 - index, self._most)
        if steps <= 0 or self._counters[-1, 0]:  # after an interrupt nobody meets any more
            return 0
        if epoch != self._epoch:  # as others wait for the one who shuffles, everybody does
            self._together(self._shuffle, [(epoch, start, stop) for _, start, stop, *_ in self._own])
            self._epoch = epoch
        rows = slice(index * self._rows, (index + steps) * self._rows)
        orders = np.stack([reader.order(epoch)[rows] for reader in self._readers])
        constants = constants_of_steps(
            self._rule, self._server.learning_rate, plateau, range(step, step + steps)
        )
        done = self._call(orders, constants)
        if done:
            self._server.advance(self._losses[:done], self._server.blueprint.job.batch_size)
        return done

    def close(self) -> None:
        """Ends the threads."""
        if self._pool is not None:
            self._pool.shutdown()

    def _call(self, orders: Array, constants: Array) -> int:
        mine: tuple[Any, ...] = (*self._shared, self._meeting, orders, constants, self._losses)
        self._meeting += 2 * len(constants)
        try:
            return int(self._together(_train, [(*mine, *own) for own in self._own]))
        except BaseException:  # Ctrl-C between two calls: nobody waits for this thread
            self._counters[-1, 0] = 1
            raise

    def _together(self, work: Callable[..., Any], each: Sequence[tuple[Any, ...]]) -> Any:
        """Calls `work` in every thread with what each is given; returns this thread's answer. Waits."""
        waiting = [self._pool.submit(work, *given) for given in each[1:]] if self._pool is not None else ()
        answer = work(*each[0])
        for other in waiting:
            other.result()
        return answer

    def _shuffle(self, epoch: int, start: int, stop: int) -> None:
        for reader in self._readers[start:stop]:
            reader.order(epoch)


def _scratch(blueprint: Blueprint, rows: int, gemm: Gemm, data: PreparedRows) -> tuple[Array, ...]:
    network = blueprint.network()
    places, work = plan(network, rows, gemm)
    x = aligned_vector(rows * places.features, network.dtype).reshape(rows, places.features)
    return work, x, np.empty(rows, data.targets.dtype), np.empty(rows), np.empty(rows, network.dtype)


def divides(blueprint: Blueprint) -> bool:
    """Whether slices are of one size, and the shards' gradients not too large."""
    size = blueprint.network().size * blueprint.dtype.itemsize
    return blueprint.job.batch_size % blueprint.shards == 0 and blueprint.shards * size <= MOST_BYTES
