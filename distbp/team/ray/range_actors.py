"""The Ray actors of a team with several parameter servers, each with a range of the flat vector.

The trainer knows only the lead, which answers for all servers as a single server would. The lead owns the
other servers, so none outlives it. The workers of every node are behind a relay, which sends each server its
part of the sums. When a server is lost, the lead ends itself and so the others, and the trainer begins a new
attempt from a checkpoint.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import ray
from ray.exceptions import RayError

from distbp.core import settings
from distbp.core.arrays import Array, aligned_vector
from distbp.engine import numerics
from distbp.engine.blueprint import Blueprint
from distbp.engine.health import Norms, health
from distbp.engine.ranges import RangeSums, ranges
from distbp.optim.schedules import PlateauState
from distbp.team.base import Snapshot, outcome_of, server_after
from distbp.team.exchange.desk import Packed
from distbp.team.exchange.relay import Publication
from distbp.team.exchange.server_ranges import Agree, Council, Decision, RangeRounds
from distbp.team.ray.actors import NEVER, RELAY_CALLS, Place, end_process, place_of
from distbp.team.ray.ray_objects import as_object
from distbp.team.ray.settling import settle


def _rounds(blueprint: Blueprint, part: Snapshot, attempt: int, first: int, agree: Agree) -> RangeRounds:
    """The rounds of the server of a range. part: its snapshot, from `_cut`. first: where the range begins."""
    given = part.arrays["vector"]
    vector = aligned_vector(len(given), given.dtype)
    vector[:] = given
    threads = settings.processors()
    server = server_after(part, blueprint, vector, attempt=attempt, threads=threads, first=first)
    return RangeRounds(server, attempt, agree, as_object)


def _cut(snapshot: Snapshot, start: int, stop: int) -> Snapshot:
    """The snapshot of a range [start, stop). Slots cover trained values only, so they end before the
    vector."""
    arrays = {k: v if k == "epoch_totals" else v[start:stop] for k, v in snapshot.arrays.items()}
    return Snapshot(snapshot.step, arrays)


class RangeServerActor:
    """Server `number`, from 0 in the order of the vector. Its range begins at `first`. lead: the lead's
    actor."""

    def __init__(
        self, blueprint: Blueprint, part: Snapshot, attempt: int, number: int, first: int, lead: Any
    ) -> None:
        self._stack = settle(blueprint.kernels)
        self._blueprint = blueprint

        def agree(step: int, sums: RangeSums) -> Decision:
            decision: Decision = ray.get(lead.agree.remote(number, step, sums))
            return decision

        self._rounds = _rounds(blueprint, part, attempt, first, agree)

    def place(self) -> Place:
        return place_of(self._blueprint.kernels)

    def run(self, first: int, stop: int, plateau: PlateauState) -> tuple[str, int]:
        return outcome_of(lambda: self._rounds.run(first, stop, plateau))

    def snapshot(self, whole: bool) -> tuple[dict[str, Array], list[Norms]]:
        return self._rounds.server.snapshot(whole), self._rounds.server.norms

    def ping(self) -> None:
        """A sign of life."""

    @ray.method(concurrency_group="relays")
    def push_pull(self, attempt: int, phase: int, packed: Sequence[Packed]) -> Publication:
        return self._rounds.desk.push_pull(attempt, phase, packed)

    def close(self) -> None:
        self._rounds.close()


class LeadActor:
    """The first of the servers. It does for the trainer what a single server does (see `ServerActor`).

    frozen_s: seconds without a sign of life after which another server counts as frozen."""

    def __init__(
        self, blueprint: Blueprint, snapshot: Snapshot, attempt: int, servers: int, frozen_s: float
    ) -> None:
        self._stack = settle(blueprint.kernels)
        self._blueprint = blueprint
        self._frozen_s = frozen_s
        self._network = blueprint.network()
        self._ranges = ranges(self._network, servers)
        self._stretch = self._stop_asked = 0
        self._council = Council(len(self._ranges), lambda: self._stop_asked == self._stretch)
        start, stop = self._ranges[0]
        self._rounds = _rounds(
            blueprint,
            _cut(snapshot, start, stop),
            attempt,
            start,
            lambda step, sums: self._council.agree(0, step, sums),
        )
        self._me = ray.get_runtime_context().current_actor
        self._others = [
            RangeServer.remote(blueprint, _cut(snapshot, a, b), attempt, number, a, self._me)
            for number, (a, b) in enumerate(self._ranges)
            if number > 0
        ]
        self._pings: dict[int, tuple[Any, float]] = {}  # number -> reference, when asked

    def place(self) -> tuple[Place, None]:
        """The place of the lead; waits until all servers are there. Raises FingerprintError if a server would
        compute other bits."""
        mine = place_of(self._blueprint.kernels)
        for place in ray.get([other.place.remote() for other in self._others]):
            numerics.check_same(mine.fingerprint, place.fingerprint, f"a server on node {place.node[:12]}")
        return mine, None

    def servers(self) -> list[tuple[Any, int, int]]:
        """(actor, start, stop) of each server, for the relays."""
        actors = [self._me, *self._others]
        return [(actor, start, stop) for actor, (start, stop) in zip(actors, self._ranges, strict=True)]

    def run(self, stretch: int, first: int, stop: int, plateau: PlateauState) -> tuple[str, int]:
        """Trains; waits. Returns the result of `outcome_of`."""
        self._stretch = stretch
        theirs = [other.run.remote(first, stop, plateau) for other in self._others]
        mine = outcome_of(lambda: self._rounds.run(first, stop, plateau))
        ray.get(theirs)  # all have the same outcome
        return mine

    def stop_soon(self, stretch: int) -> None:
        self._stop_asked = max(self._stop_asked, stretch)

    @ray.method(concurrency_group="council")
    def agree(self, number: int, step: int, sums: RangeSums) -> Decision:
        return self._council.agree(number, step, sums)

    @ray.method(concurrency_group="relays")
    def push_pull(self, attempt: int, phase: int, packed: Sequence[Packed]) -> Publication:
        return self._rounds.desk.push_pull(attempt, phase, packed)

    def snapshot(self, whole: bool) -> Snapshot:
        server, others = self._rounds.server, [other.snapshot.remote(whole) for other in self._others]
        parts = [(server.snapshot(whole), server.norms), *ray.get(others)]
        arrays = {
            name: value if name == "epoch_totals" else np.concatenate([part[name] for part, _ in parts])
            for name, value in parts[0][0].items()
        }
        norms = [norm for _, of_part in parts for norm in of_part]
        return Snapshot(server.step, arrays, tuple(health(self._network, norms)))

    def beats(self) -> dict[int, float]:
        """A sign of life of all servers. Ends this process if another server died or is frozen. Does not
        wait."""
        for number, other in enumerate(self._others):
            if number not in self._pings:
                self._pings[number] = other.ping.remote(), time.monotonic()
            reference, asked = self._pings[number]
            ready, _ = ray.wait([reference], timeout=0)
            if ready:
                del self._pings[number]
                try:
                    ray.get(reference)
                except RayError as error:
                    _give_up(f"server {number + 1} of {len(self._ranges)} died: {error}")
            elif time.monotonic() - asked > self._frozen_s:
                _give_up(f"server {number + 1} of {len(self._ranges)} gave no sign of life")
        return {}

    def ledger(self) -> tuple[int, int, int]:
        """(attempt, next step, number of updates that this attempt applied)."""
        server = self._rounds.server
        return server.attempt, server.step, server.applied

    def kill(self, pid: int) -> None:
        """Kills a process of this node that does not answer."""
        end_process(pid)

    def close(self) -> None:
        self._council.close()
        self._rounds.close()
        for other in self._others:
            other.close.remote()


def _give_up(why: str) -> None:
    """Ends this process at once, with a reason on standard error."""
    print(f"distbp: the servers end: {why}", file=sys.stderr, flush=True)
    os._exit(1)


RangeServer = ray.remote(
    num_cpus=0,
    max_concurrency=4,
    concurrency_groups={"relays": RELAY_CALLS},
    scheduling_strategy="SPREAD",
    **NEVER,
)(RangeServerActor)
Lead = ray.remote(
    num_cpus=0, max_concurrency=8, concurrency_groups={"relays": RELAY_CALLS, "council": 64}, **NEVER
)(LeadActor)
