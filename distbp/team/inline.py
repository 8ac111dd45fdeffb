"""The inline exchange: server and worker in this process, for `workers: 0` and for tests.

Nothing is sent. If a step is long enough, threads share its shards. With compiled kernels most steps run
without Python (see `inline_steps`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np

from distbp.core import settings
from distbp.core.arrays import Array, aligned_vector
from distbp.core.reduction import Block, assign, blocks_within
from distbp.data.batches import Holdings
from distbp.engine import numerics
from distbp.engine.blueprint import Blueprint
from distbp.engine.evaluation import Evaluation, combine
from distbp.engine.parameter_server import Contribution, ParameterServer
from distbp.engine.worker import Worker
from distbp.nn import kernels as kernel_sets
from distbp.nn.lowered import lower
from distbp.optim.schedules import PlateauState
from distbp.team.base import Snapshot, server_after, snapshot_of

# Two threads meet several times in a step, which takes microseconds from compiled code, and tens from Python.
FLOPS_WORTH_THREADS = 1e6
FLOPS_WORTH_PYTHON_THREADS = 5e7

Parts = list[tuple[Worker, list[Contribution]]]


def compiling(blueprint: Blueprint) -> str:
    """The text that is shown before kernels are compiled."""
    rows = blueprint.sharding().slice_rows(0, 0)
    lowered = lower(blueprint.network(), rows, blueprint.job.loss, training=True)
    names = ", ".join(dict.fromkeys(row.op.name for row in lowered.rows))
    return f"compiling kernels, once on this machine: {names}"


def _compiled(blueprint: Blueprint, server: ParameterServer, parts: Parts, threads: int) -> Any:
    kernels = kernel_sets.load(blueprint.kernels)
    if kernels.gemm is None:
        return None
    from distbp.engine.inline_steps import inline_steps  # loads Numba

    blocks = [(worker, contribution.block) for worker, mine in parts for contribution in mine]
    readers = [worker.reader(shard) for worker, block in blocks for shard in range(block.start, block.stop)]
    return inline_steps(blueprint, kernels, server, readers, threads)


def threads_for(blueprint: Blueprint, worth: float, most: int | None = None) -> int:
    """How many threads share a step: at most as many as shards and as processors (or `most`), and only one if
    a step takes fewer than `worth` floating-point operations."""
    flops = blueprint.batch_size * blueprint.flops
    if flops < worth:
        return 1
    return min(blueprint.shards, most or settings.processors())


class InlineTeam:
    """A `Team` of one process."""

    exchange = "inline"
    workers = 0

    def __init__(
        self,
        blueprint: Blueprint,
        data: Holdings,
        snapshot: Snapshot,
        attempt: int = 1,
        threads: int | None = None,
        waiting: Callable[[str], None] = lambda what: None,
    ) -> None:
        """data: the rows of all shards. threads: the most that share a step; None: the number of processors.
        waiting: called with a text before kernels are compiled. The vector of `snapshot` becomes the
        server's."""
        self._stack = ExitStack()
        if blueprint.kernels != "numpy":
            from distbp.machine.lean_numba import told

            self._stack.enter_context(told(lambda: waiting(compiling(blueprint))))
        vector = snapshot.arrays["vector"]
        in_python = threads_for(blueprint, FLOPS_WORTH_PYTHON_THREADS, threads)
        self.server = server_after(snapshot, blueprint, vector, attempt=attempt, threads=in_python)
        self._shards = blueprint.shards
        self._parts = _parts(blueprint, data, self.server, in_python)
        self._contributions = [contribution for _, mine in self._parts for contribution in mine]
        self.worker = self._parts[0][0]
        self._pool = ThreadPoolExecutor(in_python - 1, "distbp-shards", _quiet) if in_python > 1 else None
        compiled = threads_for(blueprint, FLOPS_WORTH_THREADS, threads)
        self._compiled = _compiled(blueprint, self.server, self._parts, compiled)

    def run(self, first: int, stop: int, plateau: PlateauState, stopping: Callable[[], bool]) -> int:
        step = first
        while step < stop:
            if stopping():
                return step
            done = self._compiled.run(step, stop, plateau) if self._compiled else 0
            if not done:
                self.server.probe()
                self._each(partial(_compute, step))
                self.server.apply(step, self._contributions, plateau)
                done = 1
            step += done
        return stop

    def evaluate(self, split: str) -> Evaluation:
        by_shard: dict[int, Evaluation] = {}

        def evaluate_part(worker: Worker, mine: Sequence[Contribution]) -> None:
            for contribution in mine:
                for shard in range(*contribution.block):
                    by_shard[shard] = worker.evaluate(split, shard)

        self._each(evaluate_part)
        return combine([by_shard[shard] for shard in range(self._shards)])

    def snapshot(self, whole: bool = True) -> Snapshot:
        return snapshot_of(self.server, whole)

    def adopt(self, vector: Array) -> bool:
        self.server.vector[:] = vector
        return True

    def scale(self, workers: int) -> str | None:
        """See `Team.scale`. An inline team can only have no workers."""
        return None if workers == 0 else "this process computes everything itself"

    def close(self) -> None:
        self._stack.close()
        if self._compiled:
            self._compiled.close()
        if self._pool is not None:
            self._pool.shutdown()
        self.server.close()

    def _each(self, work: Callable[[Worker, Sequence[Contribution]], Any]) -> None:
        """Every worker does its part of something, at once; waits for all."""
        mine, *others = self._parts
        waiting = [self._pool.submit(work, *part) for part in others if self._pool is not None]
        work(*mine)
        for other in waiting:
            other.result()


def _parts(blueprint: Blueprint, data: Holdings, server: ParameterServer, threads: int) -> Parts:
    """The `Worker` of each thread, with the blocks of the tree that it computes."""
    if threads == 1:
        gradient = server.gradient if blueprint.pushed else server.gradient[:0]
        whole = Contribution(Block(0, blueprint.shards), gradient, server.totals)
        return [(Worker(blueprint, server.vector, data), [whole])]
    parts = []
    for start, stop in assign(blueprint.shards, threads):
        mine = [
            Contribution(
                block, aligned_vector(blueprint.pushed, blueprint.dtype), np.zeros_like(server.totals)
            )
            for block in blocks_within(blueprint.shards, start, stop)
        ]
        parts.append((Worker(blueprint, server.vector, data), mine))
    return parts


def _compute(step: int, worker: Worker, mine: Sequence[Contribution]) -> None:
    for contribution in mine:
        worker.compute(step, *contribution)


def _quiet() -> None:
    numerics.quiet().__enter__()  # for the life of the thread
