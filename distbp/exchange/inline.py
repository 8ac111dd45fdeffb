"""The inline exchange: server and one worker in this process, for `workers: 0` and for tests.

The worker's backward pass writes straight into the server's gradient vector: nothing travels. Jobs that
allow it skip even that (see `fused_steps`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from distbp.blueprint import Blueprint
from distbp.data.batches import Holdings
from distbp.evaluation import Evaluation, combine
from distbp.exchange.base import Snapshot
from distbp.parameter_server import Contribution, ParameterServer
from distbp.reduction import Block
from distbp.schedules import PlateauState
from distbp.worker import Worker


def _fused(blueprint: Blueprint, server: ParameterServer, worker: Worker, data: Holdings) -> Any:
    if blueprint.kernels == "numpy":
        return None
    from distbp.exchange.fused_steps import fused_steps  # loads Numba

    return fused_steps(blueprint, server, worker, data)


class InlineTeam:
    """A `Team` of one process."""

    exchange = "inline"
    workers = 0

    def __init__(self, blueprint: Blueprint, data: Holdings, snapshot: Snapshot, attempt: int = 1) -> None:
        vector = snapshot.arrays["vector"]
        self.server = ParameterServer(
            blueprint,
            vector,
            step=snapshot.step,
            attempt=attempt,
            slots=snapshot.slots,
            epoch_totals=snapshot.arrays.get("epoch_totals"),
        )
        self.worker = Worker(blueprint, vector, data)
        self._shards = blueprint.shards
        self._fused = _fused(blueprint, self.server, self.worker, data)

    def run(self, first: int, stop: int, plateau: PlateauState, stopping: Callable[[], bool]) -> int:
        server, worker = self.server, self.worker
        whole = Contribution(Block(0, self._shards), server.gradient, server.totals)
        contributions = [whole]
        step = first
        while step < stop:
            if stopping():
                return step
            done = self._fused.run(step, stop, plateau) if self._fused else 0
            if not done:
                worker.compute(step, *whole)
                server.apply(step, contributions, plateau)
                done = 1
            step += done
        return stop

    def evaluate(self, split: str) -> Evaluation:
        return combine([self.worker.evaluate(split, shard) for shard in range(self._shards)])

    def snapshot(self) -> Snapshot:
        return Snapshot(self.server.step, self.server.snapshot(), tuple(self.server.health))

    def scale(self, workers: int) -> str | None:
        """An inline team has no workers, and stays as it is."""
        if workers == 0:
            return None
        return (
            "this process computes everything itself. Stop it (Ctrl-C), and go on with:"
            f" distbp resume RUN_DIR --workers {workers}"
        )

    def close(self) -> None:
        self.server.close()
