"""The Ray actors: thin shells around the plain parameter server, worker and relay.

Restarts and retries are 0 everywhere: an actor that Ray restarts has lost its state, and a call that Ray
repeats may have run; recovery is ours (see `distbp.cluster`). Few calls are made: one for a stretch of
steps, one for a worker's whole life.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray

from distbp import numerics
from distbp.blueprint import Blueprint
from distbp.evaluation import Evaluation
from distbp.exchange import segment as seg
from distbp.exchange.base import Snapshot
from distbp.exchange.faults import FaultPlan, faulty_post
from distbp.exchange.local_workers import LocalWorkers
from distbp.exchange.ray_objects import Desk, Packed, RayLink
from distbp.exchange.relay import Relay
from distbp.exchange.rounds import Rounds
from distbp.exchange.segment import Range, SegmentHandle
from distbp.exchange.shared_data import HeldShards, NodeStore, ShardData, SharedRows, whole_data
from distbp.exchange.shared_memory import WorkerPort, post
from distbp.parameter_server import NotFiniteError, ParameterServer
from distbp.schedules import PlateauState
from distbp.worker import Worker, totals_size

RELAY_CALLS = 64  # how many relays can wait in one server at a time


@dataclass(frozen=True)
class Place:
    """Where an actor's process is, and which bits it computes."""

    node: str
    pid: int
    fingerprint: Mapping[str, str]


def _settle(kernels: str) -> ExitStack:
    """Puts this process into the state in which gradients are computed, for good."""
    stack = ExitStack()
    stack.enter_context(numerics.one_blas_thread())
    np.seterr(over="ignore", invalid="ignore", divide="ignore")  # found by the check of every step
    return stack


def _place(kernels: str) -> Place:
    return Place(ray.get_runtime_context().get_node_id(), os.getpid(), numerics.fingerprint(kernels))


class ServerActor:
    """Hosts the `ParameterServer` and its segment."""

    def __init__(self, blueprint: Blueprint, snapshot: Snapshot, attempt: int, late_factor: float) -> None:
        self._stack = _settle(blueprint.kernels)
        self._blueprint = blueprint
        size = blueprint.network().size
        self._segment = seg.create(size, blueprint.dtype, totals_size(blueprint), attempt)
        self._segment.vector[:] = snapshot.arrays["vector"]
        self._server = ParameterServer(
            blueprint,
            self._segment.vector,
            step=snapshot.step,
            attempt=attempt,
            slots=snapshot.slots,
            epoch_totals=snapshot.arrays.get("epoch_totals"),
            threads=os.cpu_count() or 1,
        )
        self._workers = LocalWorkers(self._segment)
        self._desk = Desk(attempt, self._workers.nudge)
        self._rounds = Rounds(self._server, self._workers, remote=self._desk, late_factor=late_factor)

    def place(self) -> tuple[Place, SegmentHandle]:
        return _place(self._blueprint.kernels), self._segment.handle

    def run(self, first: int, stop: int, plateau: PlateauState) -> tuple[str, int]:
        """("trained", next step) or ("not finite", the step that was not applied)."""
        try:
            return "trained", self._rounds.run(first, stop, plateau)
        except NotFiniteError as error:
            return "not finite", error.step

    def snapshot(self) -> Snapshot:
        return Snapshot(self._server.step, self._server.snapshot(), tuple(self._server.health))

    def assign(self, ranges: Mapping[int, Sequence[Range]]) -> None:
        self._workers.assign(ranges)

    def stop_soon(self) -> None:
        self._rounds.stop_soon()

    def beats(self) -> dict[int, float]:
        return self._workers.beats()

    def ledger(self) -> tuple[int, int, int]:
        """(attempt, next step, updates applied by this attempt)."""
        return self._server.attempt, self._server.step, self._server.applied

    @ray.method(concurrency_group="relays")
    def push_pull(self, attempt: int, step: int, packed: Sequence[Packed]) -> tuple[int, Any]:
        return self._desk.push_pull(attempt, step, packed)

    def close(self) -> None:
        self._desk.close()
        self._workers.close()
        self._server.close()


class WorkerActor:
    """Hosts a `Worker`. `faults`: what happens to its pushes, in tests of recovery."""

    def __init__(self, blueprint: Blueprint, faults: FaultPlan | None = None) -> None:
        self._stack = _settle(blueprint.kernels)
        self._blueprint = blueprint
        self._faults = faults
        self._held = HeldShards()

    def place(self) -> Place:
        return _place(self._blueprint.kernels)

    def join(self, segment: SegmentHandle, me: int, data: Mapping[str, SharedRows] | None) -> None:
        """Attaches to the node's segment as its worker `me`, and to the data: None where shards are sent."""
        blueprint = self._blueprint
        self._segment = seg.attach(segment)
        holdings = self._held if data is None else whole_data(data, blueprint.rows, blueprint.sharding())
        self._worker = Worker(blueprint, self._segment.vector, holdings)
        announce = post if self._faults is None else faulty_post(self._faults, me)
        self._port = WorkerPort(self._segment, me, blueprint.shards, announce)

    def add_shards(self, shards: Mapping[int, Mapping[str, SharedRows]]) -> None:
        for shard, splits in shards.items():
            self._held.add(shard, splits)

    @ray.method(concurrency_group="serving")
    def serve(self) -> None:
        """Computes until the segment is closed: one call for the worker's whole life."""
        self._port.serve(self._worker)

    def evaluate(self, split: str, shards: Sequence[int]) -> list[Evaluation]:
        return [self._worker.evaluate(split, shard) for shard in shards]


class RelayActor:
    """Hosts the `Relay` of a node, and the shards that were sent to it."""

    def __init__(self, blueprint: Blueprint, attempt: int, server: Any) -> None:
        self._stack = _settle(blueprint.kernels)
        self._blueprint = blueprint
        size = blueprint.network().size
        self._segment = seg.create(size, blueprint.dtype, totals_size(blueprint), attempt)
        self._workers = LocalWorkers(self._segment)
        self._relay = Relay(self._workers, blueprint.shards, RayLink(server, attempt))
        self._store = NodeStore()

    def place(self) -> tuple[Place, SegmentHandle]:
        return _place(self._blueprint.kernels), self._segment.handle

    def add_shards(self, parts: Sequence[Any]) -> dict[int, dict[str, SharedRows]]:
        """Takes in the rows of shards (references to `ShardData`), and names them to the node's workers."""
        found: list[ShardData] = ray.get(list(parts))
        self._store.add(found)
        return self._store.shards

    def assign(self, ranges: Mapping[int, Sequence[Range]]) -> None:
        self._relay.assign(ranges)

    def beats(self) -> dict[int, float]:
        return self._workers.beats()

    def kill(self, pid: int) -> None:
        """Ends a process of this node that does not answer."""
        os.kill(pid, signal.SIGKILL)

    @ray.method(concurrency_group="serving")
    def serve(self) -> None:
        self._relay.run()

    def close(self) -> None:
        self._workers.close()


_NEVER = {"max_restarts": 0, "max_task_retries": 0}
# Groups have threads of their own, so that a call that lasts (a stretch, a life) holds up no other.
Server = ray.remote(
    num_cpus=0.01, max_concurrency=8, concurrency_groups={"relays": RELAY_CALLS}, **_NEVER
)(ServerActor)
WorkerProcess = ray.remote(num_cpus=1, max_concurrency=2, concurrency_groups={"serving": 1}, **_NEVER)(
    WorkerActor
)
NodeRelay = ray.remote(num_cpus=0.01, max_concurrency=4, concurrency_groups={"serving": 1}, **_NEVER)(
    RelayActor
)
