"""The Ray actors: thin shells around the plain parameter server and worker.

Ray restarts and retries nothing here. An actor that Ray restarts has lost its state, and a call that Ray
repeats may have run already; `distbp.team.ray.ray_team` does the recovery. Calls are few: one for a stretch
of steps, and one for a worker's whole life.

A server or worker starts before it knows its job (see `distbp.team.ray.head_start`). It loads the modules
that it will need, and `begin` tells it the job. Slow imports of this module are inside its functions, so that
a program can start the actors before it has loaded anything else itself.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ray

from distbp.core import settings
from distbp.team.ray.settling import settle

if TYPE_CHECKING:
    from distbp.core.arrays import Array
    from distbp.data.batches import Holdings
    from distbp.engine.blueprint import Blueprint
    from distbp.engine.evaluation import Evaluation
    from distbp.optim.schedules import PlateauState
    from distbp.team.base import Snapshot
    from distbp.team.exchange.desk import Packed
    from distbp.team.exchange.faults import FaultPlan
    from distbp.team.exchange.relay import Publication
    from distbp.team.exchange.segment import Range, SegmentHandle
    from distbp.team.exchange.shared_data import ShardData, SharedRows
    from distbp.team.ray.hosting import HostedRows, Hosting

RELAY_CALLS = 64  # relays that can wait in one server at a time
ROW_CALLS = 64  # workers that can wait for rows: all of a node, `exchange.segment.MAX_WORKERS`


@dataclass(frozen=True)
class Place:
    """The place of an actor's process: Ray's id of its node, its process id, and its numerics fingerprint."""

    node: str
    pid: int
    fingerprint: Mapping[str, str]


def place_of(kernels: str) -> Place:
    """The place of this process, with the fingerprint of a kernel set."""
    from distbp.engine import numerics

    return Place(ray.get_runtime_context().get_node_id(), os.getpid(), numerics.fingerprint(kernels))


class Orders:
    """The trainer's orders to a node: which worker hosts which shards. Calls of an actor with several threads
    may overtake each other, so orders have numbers, and an order older than the newest changes nothing."""

    def __init__(self, assign: Callable[[Mapping[int, Sequence[Range]]], None]) -> None:
        self._assign = assign
        self._lock = threading.Lock()
        self._newest = 0

    def take(self, number: int, ranges: Mapping[int, Sequence[Range]]) -> None:
        with self._lock:
            if number > self._newest:
                self._newest = number
                self._assign(ranges)


class ServerActor:
    """Hosts the `ParameterServer` and its segment. kernels, patient: see `settle`."""

    def __init__(self, kernels: str, patient: bool = False) -> None:
        self._stack = settle(
            kernels, "distbp.team.exchange.rounds", "distbp.team.exchange.shared_data", patient=patient
        )

    def begin(
        self, blueprint: Blueprint, snapshot: Snapshot, attempt: int, beside: bool, late_factor: float
    ) -> tuple[Place, SegmentHandle]:
        """Makes the server from the state before a step. Called once; other calls wait until it has returned.

        beside: whether this is the trainer's node, where workers reach all rows; on another node they reach
        the rows that were sent there. late_factor: see `Rounds`. Returns the result of `place`."""
        from distbp.engine.totals import totals_size
        from distbp.team.base import server_after
        from distbp.team.exchange import segment as seg
        from distbp.team.exchange.audit import audit_of
        from distbp.team.exchange.desk import Desk
        from distbp.team.exchange.local_workers import LocalWorkers
        from distbp.team.exchange.rounds import Rounds
        from distbp.team.exchange.shared_data import NodeStore
        from distbp.team.ray.ray_objects import as_object

        self._blueprint = blueprint
        size = blueprint.network().size
        self._segment = seg.create(size, blueprint.dtype, totals_size(blueprint), attempt, blueprint.pushed)
        self._segment.vector[:] = snapshot.arrays["vector"]
        self._server = server_after(
            snapshot, blueprint, self._segment.vector, attempt=attempt, threads=settings.processors()
        )
        self._store = store = NodeStore()
        self._workers = LocalWorkers(
            self._segment, audit_of(blueprint, self._segment), lambda shard: beside or shard in store
        )
        self._orders = Orders(self._workers.assign)
        self._desk = Desk(attempt, self._workers.nudge, as_object)
        self._rounds = Rounds(self._server, self._workers, remote=self._desk, late_factor=late_factor)
        self._rounds.rest()
        return self.place()

    def place(self) -> tuple[Place, SegmentHandle]:
        """The place of this process, and the handle by which a worker of its node attaches."""
        return place_of(self._blueprint.kernels), self._segment.handle

    def run(self, stretch: int, first: int, stop: int, plateau: PlateauState) -> tuple[str, int]:
        """Trains; waits. Returns the result of `outcome_of`."""
        from distbp.team.base import outcome_of

        return outcome_of(lambda: self._rounds.run(stretch, first, stop, plateau))

    def snapshot(self, whole: bool) -> Snapshot:
        """The state between two steps; see `Team.snapshot`."""
        from distbp.team.base import snapshot_of

        return snapshot_of(self._server, whole)

    def adopt(self, vector: Array) -> None:
        """Replaces the vector (size,) for evaluation. No step may follow."""
        self._segment.vector[:] = vector

    def assign(self, number: int, ranges: Mapping[int, Sequence[Range]]) -> None:
        """Sets the shards of this node's workers; see `Orders`."""
        self._orders.take(number, ranges)

    @ray.method(concurrency_group="data")
    def add_rows(self, part: ShardData) -> None:
        """Stores the rows of a shard on this node, if it is not the trainer's."""
        self._store.add(part)

    @ray.method(concurrency_group="rows")
    def rows(self, shard: int) -> Mapping[str, SharedRows]:
        """Handles on a shard's rows, for a worker of this node; waits until the rows have arrived."""
        return self._store.rows(shard)

    def stop_soon(self, stretch: int) -> None:
        self._rounds.stop_soon(stretch)

    def beats(self) -> dict[int, float]:
        """Row of a worker -> seconds since its last sign of life."""
        return self._workers.beats()

    def ledger(self) -> tuple[int, int, int]:
        """(attempt, next step, number of updates that this attempt applied)."""
        return self._server.attempt, self._server.step, self._server.applied

    def kill(self, pid: int) -> None:
        """Kills a process of this node that does not answer."""
        end_process(pid)

    @ray.method(concurrency_group="relays")
    def push_pull(self, attempt: int, phase: int, packed: Sequence[Packed]) -> Publication:
        return self._desk.push_pull(attempt, phase, packed)

    def close(self) -> None:
        self._desk.close()
        self._workers.close()
        self._server.close()


class WorkerActor:
    """Hosts a `Worker`. kernels, patient: see `settle`."""

    def __init__(self, kernels: str, patient: bool = False) -> None:
        self._stack = settle(
            kernels, "distbp.team.exchange.faults", "distbp.team.exchange.shared_data", patient=patient
        )

    def begin(self, blueprint: Blueprint, faults: FaultPlan | None = None) -> Place:
        """Tells the worker its job. Called once; `join` follows after it has returned.

        faults: injected into the worker's pushes, in tests of recovery; None: no faults."""
        self._blueprint = blueprint
        self._faults = faults
        self._hosting: Hosting | None = None
        return place_of(blueprint.kernels)

    def join(self, host: Any, me: int, data: Mapping[str, SharedRows] | None) -> None:
        """Attaches to the segment of `host`, the actor of the server or relay on this node, as its worker
        `me`.

        data: the splits, on the trainer's node; None on another node, where the host has the rows. Raises
        ExchangeError if the host has ended."""
        from distbp.engine.worker import Worker
        from distbp.team.exchange import segment as seg
        from distbp.team.exchange.faults import faulty_post
        from distbp.team.exchange.shared_data import HeldShards, whole_data
        from distbp.team.exchange.worker_port import WorkerPort, post

        blueprint = self._blueprint
        self._segment = seg.attach(ray.get(host.place.remote())[1])
        holdings: Holdings
        if data is None:
            holdings = HeldShards(lambda shard: ray.get(host.rows.remote(shard)))
        else:
            holdings = whole_data(data, blueprint.rows, blueprint.sharding())
        self._worker = Worker(blueprint, self._segment.vector, holdings)
        announce = post if self._faults is None else faulty_post(self._faults, me)
        self._port = WorkerPort(self._segment, me, blueprint.shards, announce)
        self._segment.beat(me)

    @ray.method(concurrency_group="serving")
    def serve(self) -> None:
        """Computes until the segment is closed; waits. One call for the worker's whole life."""
        self._port.serve(self._worker)

    def evaluate(self, split: str, shards: Sequence[int], step: int) -> list[Evaluation]:
        """Loss and metric sums of a split for each of `shards`, with the vector of `step`; waits for it."""
        self._port.await_vector(step)
        return [self._worker.evaluate(split, shard) for shard in shards]

    def host(
        self, blueprint: Blueprint, snapshot: Snapshot, attempt: int, data: HostedRows, threads: int
    ) -> None:
        """Makes a whole team in this process, and ends an earlier one; see `Hosting`. `join` must not be
        called then."""
        from distbp.team.ray.hosting import Hosting

        if self._hosting is not None:
            self._hosting.close()
        self._hosting = Hosting(blueprint, snapshot, attempt, data, threads)

    def ask(self, call: str, *given: Any) -> Any:
        """Calls a method of the `Hosting` by its name; waits for the result."""
        return getattr(self._hosting, call)(*given)

    def beats(self) -> dict[int, float]:
        """A sign of life of a worker that hosts a team; the others write to the segment."""
        return {}


def end_process(pid: int) -> None:
    """Kills a process of this node; does nothing if it has ended or belongs to another user."""
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)


NEVER = {"max_restarts": 0, "max_task_retries": 0}
# Each group of calls has its own threads, so that a long call (a stretch, a worker's life) holds up no other.
# Server and relays mostly wait, so they reserve no CPU of their node.
DATA_CALLS = {"data": 2, "rows": ROW_CALLS}
Server = ray.remote(
    num_cpus=0, max_concurrency=8, concurrency_groups={"relays": RELAY_CALLS, **DATA_CALLS}, **NEVER
)(ServerActor)
WorkerProcess = ray.remote(num_cpus=1, max_concurrency=2, concurrency_groups={"serving": 1}, **NEVER)(
    WorkerActor
)
