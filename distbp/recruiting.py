"""Workers on their way into a team on Ray: from a process that was asked for to a member that serves.

Nothing here waits for one worker: each takes its stages (its process is there, it has joined) when it is
ready, so one that hangs on the way holds up nobody.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import ActorUnschedulableError, RayActorError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from distbp import membership, numerics
from distbp.actors import Place
from distbp.errors import CorruptionError, FingerprintError, ServerLostError
from distbp.exchange.segment import MAX_WORKERS

# What an actor's call fails with where it has died, or where its node had left before it began.
GONE = (RayActorError, ActorUnschedulableError)
LOOK_S = 0.05


@dataclass
class Arrival:
    """A worker that has been started and is not a member yet. `place`: once known; then it is joining."""

    actor: Any
    place: Place | None = None
    me: int = -1


@dataclass
class Member:
    """A worker that has joined. `me`: its row in the segment of its node. `serving`: ends when it ends."""

    number: int
    me: int
    actor: Any
    place: Place
    serving: Any


@dataclass
class Node:
    """A node with workers. `actor`: the server's on its node, a relay's elsewhere. `serving`: ends with the
    relay. `sent`: shards whose rows were sent there."""

    actor: Any
    serving: Any = None
    rows_used: int = 0
    sent: set[int] = field(default_factory=set)

    def take_row(self) -> int:
        """A row that no worker had before: the slots of one that died may still be read."""
        if self.rows_used >= MAX_WORKERS:
            raise ServerLostError(f"{MAX_WORKERS} workers have come and gone on one node: it begins afresh")
        self.rows_used += 1
        return self.rows_used - 1


class Recruits:
    """Those who are on their way.

    start: makes a worker's actor with a scheduling strategy; gives it, and the reference of its place.
    introduce: answers a worker's place with its row and the reference of its joining. fingerprint: that of
    the team.
    """

    def __init__(
        self,
        start: Callable[[Any], tuple[Any, Any]],
        introduce: Callable[[Any, Place], tuple[int, Any]],
        fingerprint: Mapping[str, str],
    ) -> None:
        self._start = start
        self._introduce = introduce
        self._fingerprint = fingerprint
        self._numbers = 0
        self._waiting: dict[Any, Arrival] = {}  # by the reference that is waited for

    def __len__(self) -> int:
        return len(self._waiting)

    def nodes(self) -> list[str]:
        """The nodes of those who have one already."""
        return [a.place.node for a in self._waiting.values() if a.place]

    def start(self, home: str, members: Sequence[Member], doubtful: Collection[str]) -> None:
        """Asks for one more worker. Fills the server's node first, where memory is shared, then one node
        after the other. Where others have taken the room there, Ray finds another place."""
        taken = [m.place.node for m in members] + self.nodes()
        fresh = len(self._waiting) - len(self.nodes())
        rooms = {n["NodeID"]: n["Resources"].get("CPU", 0.0) for n in ray.nodes() if n["Alive"]}
        strategy: Any = "DEFAULT"
        for name in membership.places(home, rooms, taken, doubtful)[fresh : fresh + 1]:
            strategy = NodeAffinitySchedulingStrategy(name, soft=True, _spill_on_unavailable=True)
        actor, place = self._start(strategy)
        self._waiting[place] = Arrival(actor)

    def welcome(self, wait_s: float) -> tuple[list[Member], list[Exception]]:
        """Takes everyone one stage further who is ready for it; waits until somebody is. Returns those who
        are members now, and why others were lost: RayError, or FingerprintError where one was refused."""
        joined: list[Member] = []
        lost: list[Exception] = []
        if not self._waiting:
            return joined, lost
        ready, _ = ray.wait(list(self._waiting), timeout=wait_s)
        if ready:
            ready, _ = ray.wait(list(self._waiting), num_returns=len(self._waiting), timeout=0)
        for reference in ready:
            arrival = self._waiting.pop(reference)
            try:
                answer = ray.get(reference)
                if arrival.place is None:
                    numerics.check_same(
                        self._fingerprint, answer.fingerprint, f"a worker on node {answer.node[:12]}"
                    )
                    arrival.place = answer
                    arrival.me, joining = self._introduce(arrival.actor, answer)
                    self._waiting[joining] = arrival
                    continue
            except (RayError, FingerprintError) as error:
                _end(arrival)
                lost.append(error)
                continue
            self._numbers += 1
            serving = arrival.actor.serve.remote()
            joined.append(Member(self._numbers, arrival.me, arrival.actor, arrival.place, serving))
        return joined, lost

    def dismiss(self, node: str | None = None, most: int = MAX_WORKERS) -> int:
        """Ends those on a node (None: on any), at most so many, the last ones first; returns how many."""
        found = [
            r
            for r, a in self._waiting.items()
            if node is None or (a.place is not None and a.place.node == node)
        ]
        leaving = found[::-1][:most]
        for reference in leaving:
            _end(self._waiting.pop(reference))
        return len(leaving)


def _end(arrival: Arrival) -> None:
    with suppress(RayError):
        ray.kill(arrival.actor)


def pinned(node_id: str) -> Any:
    return NodeAffinitySchedulingStrategy(node_id, soft=False)


def home_of(here: str) -> str:
    """The server's node: this one, or, where it offers no CPU (a process that only submits), the largest."""
    cpus = {n["NodeID"]: n["Resources"].get("CPU", 0.0) for n in ray.nodes() if n["Alive"]}
    if cpus.get(here, 0.0) > 0 or not any(cpus.values()):
        return here
    found: str = max(sorted(cpus), key=lambda name: cpus[name])
    return found


def await_start(reference: Any, timeout_s: float, check: Callable[[], None]) -> None:
    """Waits for the answer of an actor that starts, or so long; calls `check` meanwhile, which may raise."""
    until = time.monotonic() + timeout_s
    while not ray.wait([reference], timeout=LOOK_S)[0] and time.monotonic() < until:
        check()


def end_actor(actor: Any, place: Place | None, here: str, host: Any) -> None:
    """Ends an actor; with its `place`, for good: Ray asks it to exit, which a frozen one does not hear.
    `host`: the server's or relay's actor on its node."""
    with suppress(RayError):
        ray.kill(actor)
    if place is not None and place.node == here:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(place.pid, signal.SIGKILL)
    elif place is not None and host is not None:
        host.kill.remote(place.pid)


def outstanding(orders: list[Any]) -> list[Any]:
    """Those of `orders` that are not done yet. Orders wait for nobody, but their failures must not pass in
    silence; that of an actor that is gone is noticed otherwise."""
    if not orders:
        return orders
    done, rest = ray.wait(orders, num_returns=len(orders), timeout=0)
    for reference in done:
        with suppress(*GONE):
            ray.get(reference)
    return list(rest)


def why_ended(serving: Any) -> str:
    """Why a worker does not serve any more."""
    try:
        ray.get(serving)
    except RayTaskError as error:
        return f"failed: {short(error)}"
    except RayError as error:
        return f"died ({short(error)})"
    return "left by itself"


def short(error: Exception) -> str:
    """What a person needs of an error: Ray's first line, or the last where the actor's own code failed."""
    if isinstance(error, RayTaskError):
        return f"{type(error.cause).__name__}: {error.cause}"
    lines: list[str] = str(error).strip().splitlines()
    return lines[-1 if "creation task" in lines[0] else 0].strip()


def awaited_cpus() -> float:
    """CPUs that tasks and actors of the cluster wait for, as Ray tells its autoscaler; takes milliseconds.
    Those who ask for more than any node has are left out: no room that we make helps them."""
    from ray.autoscaler.v2.sdk import get_cluster_status  # a fiftieth of a second, and few jobs ask

    largest = max((n["Resources"].get("CPU", 0.0) for n in ray.nodes() if n["Alive"]), default=0.0)
    status = get_cluster_status(ray.get_runtime_context().gcs_address)
    found = 0.0
    for demand in status.resource_demands.ray_task_actor_demand:
        for request in demand.bundles_by_count:
            cpus = float(request.bundle.get("CPU", 0.0))
            if cpus <= largest:
                found += cpus * request.count
    return found


def raise_corruption(serving: Any) -> None:
    """A relay whose workers differ in their bits ends with that, and nobody may go on."""
    try:
        ray.get(serving)
    except RayTaskError as error:
        if isinstance(error.cause, CorruptionError):
            raise error.cause from None
    except RayError:
        pass  # its node is lost
