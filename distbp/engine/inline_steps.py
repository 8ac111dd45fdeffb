"""Many steps of a job in one compiled call for each thread, for the inline exchange (Numba, optional).

If server and workers are one process, nothing has to travel. `compiled_steps` does the work of a step. The
last step of an epoch (norms, saturation), and a step whose gradients are not known to be finite beforehand,
are left to `Worker.compute` and `ParameterServer.apply`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import numpy as np

from distbp.core.arrays import Array, aligned_vector
from distbp.core.reduction import PIECE, Block, assign, joins
from distbp.data.batches import ShardReader
from distbp.engine.blueprint import Blueprint
from distbp.engine.compiled_parts import Call, Carrying, Clipping, Computing, Deferred, Steps
from distbp.engine.compiled_steps import (
    LINE,
    carry,
    compute,
    find_squares,
    train_steps,
    update_deferred,
)
from distbp.engine.parameter_server import ParameterServer
from distbp.engine.thread_shares import thread_shares
from distbp.machine.blas import Dots, dots
from distbp.machine.pointers import WAYS
from distbp.machine.structures import address, placed
from distbp.nn.kernels import Kernels
from distbp.nn.lowered import Lowered, lower
from distbp.nn.ops.rows import compiled
from distbp.nn.run_compiled import ops_of, products_of, run_rows, space_table
from distbp.nn.tape import Space, merged, position
from distbp.optim import Updater
from distbp.optim.compiled import joining_of, part_of, update
from distbp.optim.parts import CONSTANTS
from distbp.optim.schedules import PlateauState

# A call shall take some milliseconds: signals and requests to the run are heard between calls. Those of
# several threads must begin together, which costs some 300 us, so they take up to a tenth of a second.
FLOPS_A_CALL = 1e9
FLOPS_A_CALL_OF_THREADS = 1e10
MOST_STEPS = 256
MOST_BYTES = 1 << 30  # of gradients and work memory: where there are several shards each has its own


class InlineSteps:
    """`run(step, stop, plateau)`: trains some steps from `step` on, and returns how many; 0 if the next one
    must be trained step by step. `threads`: at most one for each shard. `lowered`: the network for slices of
    the shards."""

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
        drawn = blueprint.job.seed, blueprint.total_steps, blueprint.past.steps
        positions = np.array([position(0, shard, *drawn) for shard in range(shards)])
        totals = np.zeros((shards, lowered.totals))
        sources = [reader.sources for reader in readers]
        tables: list[Array] = []
        self._kept: list[Any] = [works, gradients, positions, totals, lowered.constants]
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
        # All slices but those of an epoch's last step are as long as the first one.
        widths = [self._sharding.slice_rows(0, shard) for shard in range(shards)]
        counts = np.full((self._most, shards), widths)
        self._sources = np.zeros((shards, 3), np.int64)
        self._orders = np.zeros((shards, self._most * max(widths)), np.int64)
        net = ops_of(lowered.rows, bool(sources[0].widths[2]))
        later = [deferring and row.deferred for row in lowered.rows]
        spaces_of, additions = np.array(tables), _pairs(order)
        computing = Computing(
            compiled(run_rows).address, self._at(net._replace(ops=np.where(later, 0, net.ops))), spaces_of,
            totals, self._sources, np.array(sources[0].widths), self._orders, counts,
            np.arange(self._most)[:, None] * counts,
        )  # fmt: skip
        places, pieces = np.array([address(one) for one in gradients]), -(-network.parameter_count // PIECE)
        squares = np.zeros(pieces)
        statistics = network.statistics
        carrying = Carrying(
            places, additions, address(server.vector), _pairs([(t.start, t.stop) for t in statistics]),
            np.array([t.rate for t in statistics], np.float64),
            _pairs(merged((t.start, t.stop) for t in network.states)),
        )  # fmt: skip
        clip, group_bytes = rule.clip, 8 * CONSTANTS * len(rule.rows)
        joining = joining_of(updater.program, list(gradients), order if clip is None else (), threads > 1)
        self._kept.append(joining)
        self._rule, self._train = rule, compiled(train_steps).ctypes
        self._counters, self._meeting = np.zeros((threads + 1, 8), np.int64), 0
        self._found, self._live = np.zeros((self._most, 3)), np.zeros((threads, lowered.live))
        self._done = np.zeros((threads, 8), np.int64)
        self._threads = []
        for me, share in enumerate(shares):
            own = range(pieces * me // threads, pieces * (me + 1) // threads)
            squared = [(PIECE * n, min(PIECE * (n + 1), network.parameter_count), n) for n in own]
            deferred = Deferred(
                net.words, net.starts, joining.at, address(server.vector), additions, share.parts,
                _lines(shards, share.room + LINE, server.vector.dtype), group_bytes, threads > 1,
                spaces_of, counts,
            )  # fmt: skip
            clipping = Clipping(
                places,
                additions,
                np.array(squared, np.int64).reshape(-1, 3),
                squares,
                *(dots() or Dots(0, 0)),
            )
            self._kept.append(stretches := part_of(share.stretches))
            one = Steps(
                *self._piece(compute, computing),
                compiled(update).address, joining.at, stretches.at,
                *self._piece(update_deferred, deferred if len(share.parts) else None),
                *self._piece(find_squares, None if clip is None else clipping),
                *self._piece(carry, carrying if me == 0 and (statistics or network.states) else None),
                positions, totals, counts, additions, squares, bool(statistics), rule.scaled,
                0.0 if clip is None else float(clip.maximum), np.zeros((shards, 2)),
                self._found, self._live, self._done[me], self._counters, me, *self._own[me], *WAYS,
            )  # fmt: skip
            self._threads.append(self._at(one))
        self._pool = ThreadPoolExecutor(threads - 1, "distbp-steps") if threads > 1 else None

    def _at(self, structure: Any) -> int:
        """Its address; keeps it."""
        self._kept.append(found := placed(structure))
        return found.at

    def _piece(self, function: Callable[..., None], structure: Any) -> tuple[int, int]:
        """The addresses of a piece, compiled where there is something to do, and of its structure."""
        return (compiled(function).address, self._at(structure)) if structure else (0, 0)

    def run(self, step: int, stop: int, plateau: PlateauState) -> int:
        epoch, index = divmod(step, self._steps_per_epoch)
        steps = min(stop - step, self._steps_per_epoch - 1 - index, self._most)
        if steps <= 0 or self._counters[-1, 0]:  # after an interrupt nobody meets any more
            return 0
        if epoch != self._epoch:  # as others wait for the one who shuffles, everybody does
            self._together(self._shuffle, [(epoch, start, stop) for start, stop in self._own])
            self._epoch = epoch
        parts = [reader.part(epoch, index, steps) for reader in self._readers]
        for shard, part in enumerate(parts):
            self._sources[shard] = part.sources
            self._orders[shard, : len(part.order)] = part.order
        constants = self._rule.constants(self._server.steps_of(range(step, step + steps), plateau))
        calls = [placed(Call(constants.copy(), step, self._meeting)) for _ in self._threads]
        self._meeting += 3 * steps
        self._together(
            self._train,
            [(*given, 0) for given in zip(self._threads, (call.at for call in calls), strict=True)],
        )
        done = int(self._done[0, 0])
        if done:
            self._server.advance(self._found[:done].tolist())
            self._server.add_live_rows(self._live.sum(axis=0))
            self._live[:] = 0
        return done

    def close(self) -> None:
        """Ends the threads."""
        if self._pool is not None:
            self._pool.shutdown()

    def _together(self, work: Callable[..., Any], each: Sequence[tuple[Any, ...]]) -> None:
        """Calls `work` in every thread with what each is given. Waits, also where this thread is interrupted:
        what the others use must stay as it is until they have ended."""
        waiting: list[Future[Any]] = []
        try:
            for given in each[1:]:
                assert self._pool is not None
                waiting.append(self._pool.submit(work, *given))
            work(*each[0])
            for other in waiting:
                other.result()
        except BaseException:  # Ctrl-C between two calls: this thread comes to no meeting
            self._counters[-1, 0] = 1
            wait(waiting)
            raise

    def _shuffle(self, epoch: int, start: int, stop: int) -> None:
        for reader in self._readers[start:stop]:
            reader.order(epoch)


def _pairs(found: Iterable[tuple[int, int]]) -> Array:
    return np.array(list(found), np.int64).reshape(-1, 2)


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
    """The compiled steps of a job; None if nothing is compiled, or if the memory of all shards would be too
    much. readers: of the shards; training step by step uses them, too. threads: how many share the shards."""
    updater = server.updater
    if kernels.gemm is None or not (isinstance(updater, Updater) and updater.compiled and blueprint.pushed):
        return None
    network, sharding = blueprint.network(), blueprint.sharding()
    lowered = lower(network, sharding.slice_rows(0, 0), blueprint.job.loss, training=True)
    if blueprint.shards > 1 and 4 * blueprint.shards * (network.size + lowered.work) > MOST_BYTES:
        return None
    return InlineSteps(blueprint, lowered, kernels, server, updater, readers, threads)
