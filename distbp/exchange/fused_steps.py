"""Many steps of a job in one compiled call for each thread, for the inline exchange (Numba, optional).

Where server and workers are one process nothing has to travel, and what a step does is left to
`compiled_steps`. What that cannot do is left to `Worker.compute` and `ParameterServer.apply`: the last step
of an epoch (norms, saturation), clipping, and a step whose gradients are not known to be finite beforehand.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import numpy as np

from distbp.blueprint import Blueprint
from distbp.data.batches import Holdings, ShardReader
from distbp.data.prepared import PreparedRows
from distbp.exchange.compiled_steps import shares_of_units, train_steps, written_shares
from distbp.nn import kernels as kernel_sets
from distbp.nn.arrays import Array
from distbp.nn.dense_stack import LINE, plan
from distbp.nn.network import aligned_vector
from distbp.nn.pointers import WAYS
from distbp.optimizers.compiled import Rule, rule_of
from distbp.optimizers.joined import address, constants_of_steps, slots_of
from distbp.parameter_server import ParameterServer
from distbp.reduction import Block, assign, joins
from distbp.schedules import PlateauState
from distbp.totals import LIVE
from distbp.worker import stacks

# A call shall take some milliseconds: signals and requests to the run are heard between calls. Those of
# several threads must begin together, which costs some 300 us, so they take up to a tenth of a second.
FLOPS_A_CALL = 1e9
FLOPS_A_CALL_OF_THREADS = 1e10
MOST_STEPS = 256
MOST_BYTES = 1 << 30  # of gradients: where there are several shards each has a vector of its own


class FusedSteps:
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
        self._server, self._rule, self._readers = server, rule, readers
        self._epoch = -1
        self._batch = blueprint.job.batch_size
        self._rows = rows = self._batch // shards
        self._steps_per_epoch = sharding.steps_per_epoch
        self._full_batches = sharding.rows // self._batch
        most = FLOPS_A_CALL if threads == 1 else FLOPS_A_CALL_OF_THREADS
        self._most = int(max(1, min(MOST_STEPS, most / (6 * self._batch * network.parameter_count))))
        kernels = kernel_sets.load(blueprint.kernels)
        assert kernels.gemm is not None
        places, work = plan(network, rows, kernels.gemm(network.dtype))
        decays = blueprint.decays(network)
        by_units = shares_of_units(network, rows, decays, threads)
        shares = by_units or written_shares(network.parameter_count, decays, threads)
        slices = shards if by_units else threads
        gradients = server.gradient.reshape(1, -1) if shards == 1 else _lines(shards, server.gradient)
        order = joins(Block(0, shards), [Block(shard, shard + 1) for shard in range(shards)])
        self._counters = np.zeros((threads + 1, 8), np.int64)
        self._meeting = 0
        self._shared = (
            places, server.vector, data.inputs, data.targets,
            gradients, np.array([address(one) for one in gradients]),
            _lines(slices, server.vector, rows * places.features).reshape(slices, rows, places.features),
            np.empty((slices, rows), data.targets.dtype), _lines(slices, work), by_units is None,
            np.zeros((shards, 2)), np.array(order, np.int64).reshape(-1, 2), rule.number,
            *slots_of(rule, server.slots, server.vector), rule.l2, self._counters, WAYS,
        )  # fmt: skip
        self._live = np.zeros((threads, len(server.epoch_totals) - LIVE))
        self._own = [
            (me, *assign(shards, threads)[me], share.parts, share.stretches,
             _lines(shards, server.vector, share.room + LINE), np.empty(rows), np.empty(rows, network.dtype),
             self._live[me], np.zeros(self._live.shape[1], np.float32))
            for me, share in enumerate(shares)
        ]  # fmt: skip
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
            self._server.advance(self._losses[:done], self._batch, self._live.sum(axis=0))
            self._live[:] = 0
        return done

    def close(self) -> None:
        """Ends the threads."""
        if self._pool is not None:
            self._pool.shutdown()

    def _call(self, orders: Array, constants: Array) -> int:
        mine: tuple[Any, ...] = (*self._shared, self._meeting, orders, constants, self._losses)
        self._meeting += 2 * len(constants)
        return int(self._together(train_steps, [(*mine, *own) for own in self._own]))

    def _together(self, work: Callable[..., Any], each: Sequence[tuple[Any, ...]]) -> Any:
        """Calls `work` in every thread with what each is given; returns this thread's answer. Waits, also
        where this thread is interrupted: what the others use must stay as it is until they have ended."""
        waiting: list[Future[Any]] = []
        try:
            for given in each[1:]:
                assert self._pool is not None
                waiting.append(self._pool.submit(work, *given))
            answer = work(*each[0])
            for other in waiting:
                other.result()
        except BaseException:  # Ctrl-C between two calls: this thread comes to no meeting
            self._counters[-1, 0] = 1
            wait(waiting)
            raise
        return answer

    def _shuffle(self, epoch: int, start: int, stop: int) -> None:
        for reader in self._readers[start:stop]:
            reader.order(epoch)


def _lines(count: int, like: Array, size: int | None = None) -> Array:
    """`count` vectors of zeros, of the size (or `size`) and dtype of `like`; each begins at a multiple of 64
    bytes and may be a little longer."""
    width = -(-(like.size if size is None else size) // LINE) * LINE
    return aligned_vector(count * width, like.dtype).reshape(count, width)


def rows_for(blueprint: Blueprint, data: Holdings) -> PreparedRows | None:
    """The training rows where compiled code can read them as they lie, else None."""
    rows, _ = data.train(0)
    if not isinstance(rows, PreparedRows):
        return None
    ready = (
        rows.preprocessing is None
        and not isinstance(rows.inputs, np.memmap)  # whose pages must be given back
        and rows.inputs.flags.c_contiguous
        and rows.weights is None
    )
    # Else slices do not begin where vector instructions like it, and the worker may read them elsewhere.
    slice_rows = blueprint.job.batch_size // blueprint.shards
    aligned = slice_rows * blueprint.input_shape[0] % LINE == 0
    return rows if ready and aligned else None


def fused_steps(
    blueprint: Blueprint,
    server: ParameterServer,
    readers: Sequence[ShardReader],
    data: Holdings,
    threads: int = 1,
) -> FusedSteps | None:
    """For a job that can be trained so, else None. readers: of the shards, those that step by step training
    uses, too; threads: that share the shards."""
    kernels = kernel_sets.load(blueprint.kernels)
    rule = rule_of(blueprint.update_rule())
    if rule is None or not stacks(blueprint.network(), blueprint.job.loss, kernels):
        return None
    rows = rows_for(blueprint, data)
    if rows is None:
        return None
    return FusedSteps(blueprint, rule, server, readers, rows, threads) if divides(blueprint) else None


def divides(blueprint: Blueprint) -> bool:
    """Whether slices are of one size, and the shards' gradients not too large."""
    size = blueprint.network().size * blueprint.dtype.itemsize
    whole = blueprint.job.batch_size % blueprint.shards == 0
    return whole and (blueprint.shards == 1 or blueprint.shards * size <= MOST_BYTES)
