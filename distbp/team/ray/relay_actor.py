"""The Ray actor of the relay of a node: a thin shell around `distbp.team.exchange.relay`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import ray

from distbp.engine.blueprint import Blueprint
from distbp.engine.totals import totals_size
from distbp.team.exchange import segment as seg
from distbp.team.exchange.audit import audit_of
from distbp.team.exchange.local_workers import LocalWorkers
from distbp.team.exchange.relay import Relay
from distbp.team.exchange.segment import Range, SegmentHandle
from distbp.team.exchange.server_ranges import FanLink
from distbp.team.exchange.shared_data import NodeStore, ShardData, SharedRows
from distbp.team.exchange.sparse_sums import scan_of, tables_within
from distbp.team.ray.actors import DATA_CALLS, NEVER, Orders, Place, end_process, place_of
from distbp.team.ray.ray_objects import RayLink
from distbp.team.ray.settling import settle


class RelayActor:
    """Hosts the `Relay` of a node, and the rows of the shards that were sent to the node."""

    def __init__(self, blueprint: Blueprint, attempt: int, servers: Sequence[tuple[Any, int, int]]) -> None:
        """servers: (actor, start, stop) of each; [start, stop) is its range of the flat vector."""
        self._stack = settle(blueprint.kernels)
        self._blueprint = blueprint
        network = blueprint.network()
        self._segment = seg.create(
            network.size, blueprint.dtype, totals_size(blueprint), attempt, blueprint.pushed
        )
        self._workers = LocalWorkers(self._segment, audit_of(blueprint, self._segment))
        tables = network.sparse if blueprint.pushed else []
        scan = scan_of(blueprint.kernels)
        self._links = [
            RayLink(server, attempt, tables_within(tables, start, stop), scan)
            for server, start, stop in servers
        ]
        ranges = [(start, stop) for _, start, stop in servers]
        link = self._links[0] if len(ranges) == 1 else FanLink(self._links, ranges, blueprint.dtype)
        self._relay = Relay(self._workers, blueprint.shards, link)
        self._orders = Orders(self._relay.assign)
        self._store = NodeStore()

    def place(self) -> tuple[Place, SegmentHandle]:
        return place_of(self._blueprint.kernels), self._segment.handle

    def assign(self, number: int, ranges: Mapping[int, Sequence[Range]]) -> None:
        """Sets the shards of this node's workers; see `Orders`."""
        self._orders.take(number, ranges)

    @ray.method(concurrency_group="data")
    def add_rows(self, part: ShardData) -> None:
        """Stores the rows of a shard on this node, which is not the trainer's."""
        self._store.add(part)

    @ray.method(concurrency_group="rows")
    def rows(self, shard: int) -> Mapping[str, SharedRows]:
        """Handles on a shard's rows, for a worker of this node; waits until the rows have arrived."""
        return self._store.rows(shard)

    def beats(self) -> dict[int, float]:
        """Row of a worker -> seconds since its last sign of life."""
        return self._workers.beats()

    def traffic(self) -> tuple[int, int]:
        """(calls to servers, bytes of gradient sums sent with them)."""
        return sum(link.calls for link in self._links), sum(link.bytes for link in self._links)

    def kill(self, pid: int) -> None:
        """Kills a process of this node that does not answer."""
        end_process(pid)

    @ray.method(concurrency_group="serving")
    def serve(self) -> None:
        """Runs the relay; waits until it ends."""
        self._relay.run()


NodeRelay = ray.remote(
    num_cpus=0, max_concurrency=4, concurrency_groups={"serving": 1, **DATA_CALLS}, **NEVER
)(RelayActor)
