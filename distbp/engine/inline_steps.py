"""Runs the compiled steps of a job whose server and workers are one process (Numba, optional).

`compiled_steps` does the work of a step. `Worker.compute` and `ParameterServer.apply` train the last step of
an epoch, which measures norms and saturation, and a step whose gradients may not be finite.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

from distbp.core.arrays import Array
from distbp.core.reduction import assign
from distbp.data.batches import ShardReader
from distbp.engine.blueprint import Blueprint
from distbp.engine.compiled_parts import Call
from distbp.engine.compiled_steps import train_steps
from distbp.engine.parameter_server import ParameterServer
from distbp.engine.placed_steps import PlacedSteps
from distbp.engine.thread_choice import TRIAL_STEPS, ThreadChoice
from distbp.machine.structures import placed
from distbp.nn.kernels import Kernels
from distbp.nn.lowered import Lowered, lower
from distbp.nn.ops.rows import compiled
from distbp.optim import Updater
from distbp.optim.schedules import PlateauState

# A call takes a few milliseconds, because signals and requests to the run are heard between calls. To start
# several threads together costs some 300 us, so their calls take up to a tenth of a second.
FLOPS_A_CALL = 1e9
FLOPS_A_CALL_OF_THREADS = 1e10
CALL_S = 0.2  # on a slow or busy machine a call ends earlier
MOST_STEPS = 1024
MOST_BYTES = 1 << 30  # of the gradients and the work memory of all shards


class InlineSteps:
    """`run` trains some steps in compiled calls. `threads`: at most as many as there are shards. `lowered`:
    the network, lowered for the slices of the shards."""

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
        self._server, self._readers, self._rule = server, readers, updater.rule
        self._epoch = -1
        sharding = blueprint.sharding()
        self._steps_per_epoch = sharding.steps_per_epoch
        flops = blueprint.flops * blueprint.batch_size
        most = int(
            max(1, min(MOST_STEPS, (FLOPS_A_CALL if threads == 1 else FLOPS_A_CALL_OF_THREADS) / flops))
        )
        self._most = min(most, *(reader.most_steps for reader in readers))
        self._choice, self._meeting = ThreadChoice(threads), 0
        widths = [reader.sources for reader in readers]
        self._placed = PlacedSteps(
            blueprint, lowered, kernels, server, updater, widths, self._choice.counts, self._most
        )
        self._train = compiled(train_steps).ctypes
        self._pool = ThreadPoolExecutor(threads - 1, "distbp-steps") if threads > 1 else None
        self._own, self._interrupted = assign(blueprint.shards, threads), False

    def run(self, step: int, stop: int, plateau: PlateauState) -> int:
        """Trains steps from `step` on, at most up to `stop`. Returns how many; 0 if the next step must be
        trained by `Worker.compute` and `ParameterServer.apply`. Waits for all threads."""
        epoch, index = divmod(step, self._steps_per_epoch)
        steps = whole = min(stop - step, self._steps_per_epoch - 1 - index, self._most)
        if steps <= 0 or self._interrupted:  # after an interrupt the threads no longer meet
            return 0
        if epoch != self._epoch:  # each thread shuffles its shards: none waits for another to shuffle all
            self._together(self._shuffle, [(epoch, start, stop) for start, stop in self._own])
            self._epoch = epoch
        began, placed_steps = time.perf_counter(), self._placed
        which = self._choice.next(began)
        if (limit_s := self._choice.limit_s(which)) < math.inf:
            steps = min(steps, TRIAL_STEPS)
        sharing = placed_steps.sharings[which]
        parts = [reader.part(epoch, index, steps) for reader in self._readers]
        for shard, part in enumerate(parts):
            placed_steps.sources[shard] = part.sources
            placed_steps.orders[shard, : len(part.order)] = part.order
        constants = self._rule.constants(self._server.steps_of(range(step, step + steps), plateau))
        limit = round(1e9 * min(CALL_S, limit_s * steps))
        calls = [placed(Call(constants.copy(), step, self._meeting, limit)) for _ in sharing.steps]
        self._meeting += 3 * steps
        sharing.counters[-1] = 0
        self._together(
            self._train,
            [(*given, 0) for given in zip(sharing.steps, (call.at for call in calls), strict=True)],
            sharing.counters,
        )
        done, nanoseconds, clocked = sharing.done[0, :3].tolist()
        if done:
            self._server.advance(placed_steps.found[:done].tolist())
            self._server.add_live_rows(placed_steps.live.sum(axis=0))
            placed_steps.live[:] = 0
        if clocked:
            ended, each = time.perf_counter(), 1e-9 * nanoseconds / clocked
            self._choice.took(which, each + max(0.0, ended - began - done * each) / whole, ended)
        return int(done)

    def close(self) -> None:
        """Ends the threads."""
        if self._pool is not None:
            self._pool.shutdown()

    def _together(
        self, work: Callable[..., Any], each: Sequence[tuple[Any, ...]], counters: Array | None = None
    ) -> None:
        """Calls `work` in every thread, with the arguments of each in `each`. Waits for all threads, also if
        this thread is interrupted: the others use this object's memory until they end. counters: of
        `pointers.meet`."""
        waiting: list[Future[Any]] = []
        try:
            for given in each[1:]:
                assert self._pool is not None
                waiting.append(self._pool.submit(work, *given))
            work(*each[0])
            for other in waiting:
                other.result()
        except BaseException:  # for example Ctrl-C: this thread meets the others no more
            self._interrupted = True
            if counters is not None:
                counters[-1, 0] = 1
            wait(waiting)
            raise

    def _shuffle(self, epoch: int, start: int, stop: int) -> None:
        for reader in self._readers[start:stop]:
            reader.order(epoch)


def inline_steps(
    blueprint: Blueprint,
    kernels: Kernels,
    server: ParameterServer,
    readers: Sequence[ShardReader],
    threads: int = 1,
) -> InlineSteps | None:
    """The compiled steps of a job. None if Numba is missing, if the optimizer has no compiled update, or if
    the memory of all shards exceeds MOST_BYTES. readers: of the shards, shared with `Worker`. threads: how
    many share the shards."""
    updater = server.updater
    if kernels.gemm is None or not (isinstance(updater, Updater) and updater.compiled and blueprint.pushed):
        return None
    network, sharding = blueprint.network(), blueprint.sharding()
    lowered = lower(network, sharding.slice_rows(0, 0), blueprint.job.loss, training=True)
    if blueprint.shards > 1 and 4 * blueprint.shards * (network.size + lowered.work) > MOST_BYTES:
        return None
    return InlineSteps(blueprint, lowered, kernels, server, updater, readers, threads)
