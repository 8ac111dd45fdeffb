"""A team on shared memory without Ray: the server in this process, workers in a pool of others."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection

from rigs import Rig

from distbp.data.batches import WholeData
from distbp.engine import numerics
from distbp.engine.blueprint import Blueprint
from distbp.engine.evaluation import Evaluation, combine
from distbp.engine.parameter_server import ParameterServer
from distbp.engine.totals import totals_size
from distbp.engine.worker import Worker
from distbp.optim.schedules import PlateauState
from distbp.team import membership
from distbp.team.base import Snapshot, Team, snapshot_of
from distbp.team.exchange import segment as seg
from distbp.team.exchange.faults import FaultPlan, faulty_post
from distbp.team.exchange.local_workers import LocalWorkers
from distbp.team.exchange.rounds import Rounds
from distbp.team.exchange.shared_data import SharedRows, share_rows, whole_data
from distbp.team.exchange.worker_port import WorkerPort, post
from distbp.team.membership import Options

_SPAWN = multiprocessing.get_context("spawn")


def _work(pipe: Connection) -> None:
    """A worker process: serves one segment after the other."""
    with numerics.one_blas_thread(), numerics.quiet():
        while True:
            try:
                handle, blueprint, me, rows, faults = pipe.recv()
            except EOFError:
                return
            segment = seg.attach(handle)
            worker = Worker(blueprint, segment.vector, whole_data(rows, blueprint.rows, blueprint.sharding()))
            port = WorkerPort(segment, me, blueprint.shards, faulty_post(faults, me) if faults else post)
            serving = threading.Thread(target=port.serve, args=(worker,))
            serving.start()
            pipe.send("joined")
            while (asked := pipe.recv()) is not None:
                split, shards, step = asked
                port.await_vector(step)
                pipe.send([worker.evaluate(split, shard) for shard in shards])
            serving.join()
            pipe.send("left")


class Pool:
    """Worker processes, started when first needed."""

    def __init__(self) -> None:
        self._processes: list[tuple[multiprocessing.process.BaseProcess, Connection]] = []

    def take(self, count: int) -> list[Connection]:
        while len(self._processes) < count:
            here, there = _SPAWN.Pipe()
            process = _SPAWN.Process(target=_work, args=(there,), daemon=True)
            process.start()
            there.close()
            self._processes.append((process, here))
        return [pipe for _, pipe in self._processes[:count]]

    def close(self) -> None:
        for process, pipe in self._processes:
            pipe.close()
            process.join()


class LocalTeam:
    """A `Team`."""

    exchange = "shared memory"

    def __init__(
        self,
        pool: Pool,
        blueprint: Blueprint,
        data: WholeData,
        snapshot: Snapshot,
        attempt: int,
        workers: int,
        faults: FaultPlan | None = None,
    ) -> None:
        self.workers = workers
        self._blueprint = blueprint
        size = blueprint.network().size
        self._segment = seg.create(size, blueprint.dtype, totals_size(blueprint), attempt, blueprint.pushed)
        self._segment.vector[:] = snapshot.arrays["vector"]
        self.server = ParameterServer(
            blueprint,
            self._segment.vector,
            step=snapshot.step,
            attempt=attempt,
            slots=snapshot.slots,
            epoch_totals=snapshot.arrays.get("epoch_totals"),
        )
        self.local = LocalWorkers(self._segment)
        self._rounds = Rounds(self.server, self.local)
        self._rounds.rest()
        self._stretch = 0
        self._closed = False
        names: dict[str, SharedRows] = {}
        self._memories = []
        for name, rows in data.splits.items():
            memory, names[name] = share_rows(rows)  # type: ignore[arg-type]
            self._memories.append(memory)
        self._pipes = pool.take(workers)
        for me, pipe in enumerate(self._pipes):
            pipe.send((self._segment.handle, blueprint, me, names, faults))
        for pipe in self._pipes:
            assert pipe.recv() == "joined"
        self._ranges = membership.spread(blueprint.shards, [("", me) for me in range(workers)])
        self.local.assign(self._ranges)

    def run(self, first: int, stop: int, plateau: PlateauState, stopping: Callable[[], bool]) -> int:
        self._stretch += 1
        done = threading.Event()

        def watch() -> None:
            while not done.wait(0.01):
                if stopping():
                    self._rounds.stop_soon(self._stretch)

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            return self._rounds.run(self._stretch, first, stop, plateau)
        finally:
            done.set()
            watcher.join()

    def evaluate(self, split: str) -> Evaluation:
        asked: list[tuple[Connection, list[int]]] = []
        for pipe, ranges in zip(self._pipes, self._ranges.values(), strict=True):
            shards = [shard for one in ranges for shard in range(one.start, one.stop)]
            pipe.send((split, shards, self.server.step))
            asked.append((pipe, shards))
        found: dict[int, Evaluation] = {}
        for pipe, shards in asked:
            found.update(zip(shards, pipe.recv(), strict=True))
        return combine([found[shard] for shard in range(self._blueprint.shards)])

    def snapshot(self, whole: bool = True) -> Snapshot:
        return snapshot_of(self.server, whole)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self.local.close()
        for pipe in self._pipes:
            pipe.send(None)
            assert pipe.recv() == "left"
        self.server.close()
        self._segment.close()
        for memory in self._memories:
            memory.close()


def on_ray(made: Rig, workers: int, faults: FaultPlan | None, start: Snapshot, attempt: int) -> Team:
    """A team on the Ray that there is."""
    from distbp.team.ray.ray_team import RayTeam  # imports Ray: only when there is a session

    shared = {name: share_rows(rows) for name, rows in made.data.splits.items()}  # type: ignore[arg-type]
    options = Options(workers, faults=faults)
    names = {name: names for name, (_, names) in shared.items()}
    team = RayTeam(made.blueprint, made.data, start, attempt, options, names)
    team.memories = [memory for memory, _ in shared.values()]  # type: ignore[attr-defined]  # as long as it lives
    return team
