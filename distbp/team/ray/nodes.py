"""The nodes of a team on Ray: one server or relay on each, and the rows that were sent there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import ray

from distbp.core.errors import ServerLostError
from distbp.data.batches import WholeData
from distbp.engine.blueprint import Blueprint
from distbp.team.exchange.segment import MAX_WORKERS, Range
from distbp.team.exchange.shared_data import SharedRows, cut
from distbp.team.ray.actors import Place
from distbp.team.ray.recruiting import GONE, Member, pinned
from distbp.team.ray.relay_actor import NodeRelay


@dataclass
class Node:
    """A node with workers.

    actor: the server's on its node, the relay's on other nodes. serving: a reference that is ready when the
    relay ends; None for the server. rows_used: how many rows of the segment have had workers. sent: the
    shards whose rows were sent there."""

    actor: Any
    serving: Any = None
    rows_used: int = 0
    sent: set[int] = field(default_factory=set)

    def take_row(self) -> int:
        """A row of the segment that no worker had before, since the slots of a dead worker may still be read.

        Raises ServerLostError if no row is left, so that a new attempt begins."""
        if self.rows_used >= MAX_WORKERS:
            raise ServerLostError(f"{MAX_WORKERS} workers have come and gone on one node: no room is left")
        self.rows_used += 1
        return self.rows_used - 1


class Nodes(dict[str, Node]):
    """Maps the id of a node to its `Node`. No method waits but `traffic`: a node that is gone must not hold
    up the others.

    sent: the blueprint as actors get it. here: the trainer's node, which has all rows; handles: its splits in
    shared memory. `servers`: (actor, start, stop) of each; set before the first relay starts."""

    def __init__(
        self,
        sent: Blueprint,
        data: WholeData,
        attempt: int,
        here: str,
        handles: Mapping[str, SharedRows],
    ) -> None:
        super().__init__()
        self.servers: list[tuple[Any, int, int]] = []
        self._sent = sent
        self._data = data
        self._attempt = attempt
        self._here = here
        self._handles = handles
        self._orders = 0
        self._ordered: list[Any] = []  # references of orders that may have failed
        self._dtype = sent.network().input_dtype

    def introduce(self, actor: Any, place: Place) -> tuple[int, Any]:
        """Connects a worker with the server or relay of its node. Returns the worker's row, and a reference
        that is ready when it has joined."""
        name = place.node
        node = self.get(name) or self._start_relay(name)
        me = node.take_row()
        return me, actor.join.remote(node.actor, me, self._handles if name == self._here else None)

    def _start_relay(self, name: str) -> Node:
        relay = NodeRelay.options(scheduling_strategy=pinned(name))
        actor = relay.remote(self._sent, self._attempt, self.servers)
        node = self[name] = Node(actor, actor.serve.remote())
        return node

    def assign(self, members: Sequence[Member], ranges: Mapping[int, list[Range]]) -> None:
        """Tells every node which shards its workers have. ranges: by the number of a member."""
        self._orders += 1
        for name, node in self.items():
            mine = {m.me: ranges[m.number] for m in members if m.place.node == name}
            self._ordered.append(node.actor.assign.remote(self._orders, mine))

    def send_rows(self, members: Sequence[Member], ranges: Mapping[int, list[Range]]) -> None:
        """Sends the rows of shards to the nodes that lack them."""
        for name, node in self.items():
            if name == self._here:
                continue
            hosted = [r for m in members if m.place.node == name for r in ranges[m.number]]
            wanted = {s for r in hosted for s in range(r.start, r.stop)}
            for shard in sorted(wanted - node.sent):
                part = ray.put(cut(self._data, shard, self._dtype))
                self._ordered.append(node.actor.add_rows.remote(part))
                node.sent.add(shard)

    def look_at_orders(self) -> None:
        """Raises the error of an order that has failed."""
        self._ordered = outstanding(self._ordered)

    def traffic(self) -> dict[str, tuple[int, int]]:
        """Node of a relay -> (calls to the server, bytes of gradient sums sent with them); waits."""
        relays = {name: node.actor for name, node in self.items() if node.serving is not None}
        return {name: ray.get(actor.traffic.remote()) for name, actor in relays.items()}


def outstanding(orders: list[Any]) -> list[Any]:
    """The references of `orders` that are not ready yet. Does not wait.

    Raises the error of an order that failed. The failure of an actor that is gone is ignored; the team
    notices that by other means."""
    if not orders:
        return orders
    done, rest = ray.wait(orders, num_returns=len(orders), timeout=0)
    for reference in done:
        with suppress(*GONE):
            ray.get(reference)
    return list(rest)
