"""Many steps of a job in one compiled call for each thread, for the inline exchange (Numba, optional).

Where server and workers are one process nothing has to travel, and what a step does is left to
`compiled_steps`. The last step of an epoch (norms, saturation), and a step whose gradients are not known to
be finite beforehand, are left to `Worker.compute` and `ParameterServer.apply`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import numpy as np

from distbp.core.arrays import Array
from distbp.core.reduction import Block, assign, joins
from distbp.data.batches import ShardReader
from distbp.engine.blueprint import Blueprint
from distbp.engine.compiled_parts import Ops, Rows, Shards, Share, Update
from distbp.engine.compiled_steps import LINE, train_steps
from distbp.engine.parameter_server import ParameterServer
from distbp.engine.ranges import PIECE
from distbp.engine.thread_shares import thread_shares
from distbp.machine.blas import Dots, dots
from distbp.machine.pointers import WAYS
from distbp.nn.kernels import Kernels
from distbp.nn.lowered import Lowered, lower
from distbp.nn.network import aligned_vector
from distbp.nn.run_compiled import address, addresses, products_of, space_table
from distbp.nn.run_tape import encode
from distbp.nn.tape import Space, merged, position
from distbp.optim import Updater
from distbp.optim.schedules import PlateauState
from distbp.optim.updater import program_of

# A call shall take some milliseconds: signals and requests to the run are heard between calls. Those of
# several threads must begin together, which costs some 300 us, so they take up to a tenth of a second.
FLOPS_A_CALL = 1e9
FLOPS_A_CALL_OF_THREADS = 1e10
MOST_STEPS = 256
MOST_BYTES = 1 << 30  # of gradients and work memory: where there are several shards each has its own


class InlineSteps:
    """`run(step, stop, plateau)`: trains some steps from `step` on, and returns how many; 0: the next one is
    not for here. `threads`: at most one for each shard. `lowered`: the network for slices of the shards."""

    def __init__(
        self,
        blueprint: Blueprint,
        lowered: Lowered,
        kernels: Kernels,
        server: ParameterServer,
        updater: Updater,
        readers: Sequence[ShardReader],
        threads: int,
    ) -> None:
        self._server, self._readers = server, readers
        self._epoch = -1
        self._sharding = blueprint.sharding()
        self._steps_per_epoch = self._sharding.steps_per_epoch
        network = blueprint.network()
        flops = blueprint.flops * blueprint.batch_size
        self._most = int(
            max(1, min(MOST_STEPS, (FLOPS_A_CALL if threads == 1 else FLOPS_A_CALL_OF_THREADS) / flops))
        )
        self._most = min(self._most, *(reader.most_steps for reader in readers))
        shards, rows = blueprint.shards, self._sharding.slice_rows(0, 0)
        rule = updater.rule
        shares = thread_shares(
            lowered,
            network.parameter_count,
            rows * shards,
            updater.groups.stretches,
            threads,
            rule.clip is None,
        )
        deferring = any(len(share.parts) for share in shares)
        order = joins(Block(0, shards), [Block(shard, shard + 1) for shard in range(shards)])
        self._own = assign(shards, threads)
        # Shards of one thread work in the same memory, unless others read there what is deferred.
        works = _lines(shards if deferring else threads, lowered.work, server.vector.dtype)
        gradients = (
            server.gradient.reshape(1, -1)
            if shards == 1
            else _lines(shards, network.size, server.vector.dtype)
        )
        seed, total_steps = blueprint.job.seed, blueprint.total_steps
        positions = np.array([position(0, shard, seed, total_steps) for shard in range(shards)])
        totals = np.zeros((shards, lowered.totals))
        sources = [reader.sources for reader in readers]
        tables, self._kept = [], [works, gradients, positions, totals, lowered.constants]
        assert kernels.gemm is not None
        products = products_of(lowered.rows, rows, kernels, network.dtype)
        for thread, (start, stop) in enumerate(self._own):
            for shard in range(start, stop):
                slices = {
                    space: aligned_vector(rows * width, np.float32)
                    for space, width in zip(
                        (Space.INPUTS, Space.TARGETS, Space.WEIGHTS), sources[shard].widths, strict=True
                    )
                }
                self._kept += slices.values()
                spaces = {
                    Space.PARAMETERS: server.vector,
                    Space.GRADIENT: gradients[shard],
                    Space.WORK: works[shard if deferring else thread],
                    Space.TOTALS: totals[shard],
                    Space.POSITION: positions[shard],
                    Space.CONSTANTS: lowered.constants,
                    Space.LABELS: np.zeros(lowered.labels, np.int64),
                    **slices,
                }
                self._kept.append(spaces[Space.LABELS])
                tables.append(space_table(spaces, products))
        weighted = bool(sources[0].widths[2])
        net = Ops(*encode(lowered.rows, weighted), addresses(lowered.rows))
        skipped = np.array([deferring and row.deferred for row in lowered.rows])
        pieces = -(-network.parameter_count // PIECE)
        *rule_program, vectors = program_of(rule, server.vector, server.slots)
        statistics = network.statistics
        self._shared = (
            net,
            Shards(
                np.array(tables), positions, totals, np.array([address(one) for one in gradients]), skipped,
                np.array(order, np.int64).reshape(-1, 2),
            ),
            Ops(*rule_program),
            Update(
                vectors, rule.scaled, 0.0 if rule.clip is None else float(rule.clip.maximum),
                np.zeros(pieces),
                np.array([(t.start, t.stop) for t in statistics], np.int64).reshape(-1, 2),
                np.array([t.rate for t in statistics], np.float64),
                np.array(merged((t.start, t.stop) for t in network.states), np.int64).reshape(-1, 2),
            ),
            dots() or Dots(0, 0),
        )  # fmt: skip
        self._rule = rule
        self._counters = np.zeros((threads + 1, 8), np.int64)
        self._meeting = 0
        self._threads = []
        for me, share in enumerate(shares):
            own = range(pieces * me // threads, pieces * (me + 1) // threads)
            squared = [(PIECE * n, min(PIECE * (n + 1), network.parameter_count), n) for n in own]
            room = (
                _lines(shards, share.room + LINE, server.vector.dtype)
                if len(share.parts)
                else np.zeros((shards, 1), np.float32)
            )
            self._threads.append(
                (
                    me,
                    *self._own[me],
                    Share(share.stretches, share.parts, np.array(squared, np.int64).reshape(-1, 3), room),
                )
            )
        self._found = np.zeros((self._most, 3))
        # All slices but those of an epoch's last step are as long as the first one.
        widths = [self._sharding.slice_rows(0, shard) for shard in range(shards)]
        self._counts = np.full((self._most, shards), widths)
        self._firsts = np.arange(self._most)[:, None] * self._counts
        self._widths = np.array(sources[0].widths)
        self._live = np.zeros((threads, lowered.live))
        self._pool = ThreadPoolExecutor(threads - 1, "distbp-steps") if threads > 1 else None

    def run(self, step: int, stop: int, plateau: PlateauState) -> int:
        epoch, index = divmod(step, self._steps_per_epoch)
        steps = min(stop - step, self._steps_per_epoch - 1 - index, self._most)
        if steps <= 0 or self._counters[-1, 0]:  # after an interrupt nobody meets any more
            return 0
        if epoch != self._epoch:  # as others wait for the one who shuffles, everybody does
            self._together(self._shuffle, [(epoch, start, stop) for start, stop in self._own])
            self._epoch = epoch
        parts = [reader.part(epoch, index, steps) for reader in self._readers]
        widest = max(len(part.order) for part in parts)
        orders = np.zeros((len(parts), widest), np.int64)
        for shard, part in enumerate(parts):
            orders[shard, : len(part.order)] = part.order
        rows = Rows(
            np.array([part.sources for part in parts]),
            self._widths,
            orders,
            self._counts[:steps],
            self._firsts[:steps],
        )
        constants = self._rule.constants(
            *(self._server.step_of(n, plateau) for n in range(step, step + steps))
        )
        done = self._call(rows, constants, step)
        if done:
            self._server.advance(self._found[:done].tolist())
            self._server.add_live_rows(self._live.sum(axis=0))
            self._live[:] = 0
        return done

    def close(self) -> None:
        """Ends the threads."""
        if self._pool is not None:
            self._pool.shutdown()

    def _call(self, rows: Rows, constants: Array, step: int) -> int:
        shared = (
            *self._shared,
            self._counters,
            WAYS,
            rows,
            constants,
            step,
            self._meeting,
            self._found,
            self._live,
        )
        self._meeting += 3 * len(constants)
        return int(self._together(train_steps, [(*shared, *own) for own in self._threads]))

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


def _lines(count: int, size: int, dtype: Any) -> Array:
    """`count` vectors of zeros; each begins at a multiple of 64 bytes and may be a little longer than
    `size`."""
    width = -(-size // LINE) * LINE
    return aligned_vector(count * width, dtype).reshape(count, width)


def inline_steps(
    blueprint: Blueprint,
    kernels: Kernels,
    server: ParameterServer,
    readers: Sequence[ShardReader],
    threads: int = 1,
) -> InlineSteps | None:
    """None where nothing is compiled, or the shards' own memory would be too much. readers: of the shards,
    those that step by step training uses, too; threads: that share the shards."""
    updater = server.updater
    if kernels.gemm is None or not (isinstance(updater, Updater) and updater.compiled and blueprint.pushed):
        return None
    network, sharding = blueprint.network(), blueprint.sharding()
    lowered = lower(network, sharding.slice_rows(0, 0), blueprint.job.loss, training=True)
    if blueprint.shards > 1 and 4 * blueprint.shards * (network.size + lowered.work) > MOST_BYTES:
        return None
    return InlineSteps(blueprint, lowered, kernels, server, updater, readers, threads)
