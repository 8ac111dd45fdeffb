"""Workers on their way into a team on Ray: from a requested process to a member that serves.

A worker passes two stages: its process is there, and it has joined. Each worker passes a stage as soon as it
is ready, so a worker that hangs does not hold up others.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import ActorUnschedulableError, RayActorError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from distbp.core.errors import CorruptionError, FingerprintError
from distbp.engine import numerics
from distbp.team import membership
from distbp.team.exchange.segment import MAX_WORKERS
from distbp.team.ray.actors import Place

# Errors of a call to an actor that has died, or whose node left before it began.
GONE = (RayActorError, ActorUnschedulableError)
LOOK_S = 0.05


@dataclass
class Arrival:
    """A worker that was started and is not a member yet. place: None until its process is there.

    me: its row in the segment of its node, -1 until it is known."""

    actor: Any
    place: Place | None = None
    me: int = -1


@dataclass
class Member:
    """A worker that has joined. me: its row in the segment of its node. serving: a reference, ready when it
    ends."""

    number: int
    me: int
    actor: Any
    place: Place
    serving: Any


class Recruits:
    """The workers on their way.

    start: makes a worker's actor with a scheduling strategy; returns (actor, reference of its place).
    introduce: takes an actor and its place; returns (its row, reference that is ready when it has joined).
    fingerprint: of the team."""

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
        """The nodes of the workers whose process is there."""
        return [a.place.node for a in self._waiting.values() if a.place]

    def start(self, home: str, members: Sequence[Member], doubtful: Collection[str]) -> None:
        """Asks for one more worker; does not wait.

        Workers fill the server's node first, where memory is shared, then one node after the other, and
        doubtful nodes last. If another program has taken a CPU meanwhile, Ray finds another node. home: the
        server's node.
        """
        taken = [m.place.node for m in members] + self.nodes()
        fresh = len(self._waiting) - len(self.nodes())
        rooms = {n["NodeID"]: n["Resources"].get("CPU", 0.0) for n in ray.nodes() if n["Alive"]}
        strategy: Any = "DEFAULT"
        for name in membership.places(home, rooms, taken, doubtful)[fresh : fresh + 1]:
            strategy = NodeAffinitySchedulingStrategy(name, soft=True, _spill_on_unavailable=True)
        actor, place = self._start(strategy)
        self._waiting[place] = Arrival(actor)

    def welcome(self, wait_s: float) -> tuple[list[Member], list[Exception]]:
        """Takes each worker that is ready one stage further; waits at most `wait_s` until one is.

        Returns (new members, errors of lost workers): RayError, or FingerprintError for a worker that was
        refused."""
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
        """Ends at most `most` workers on a node (None: on any), the latest first. Returns how many."""
        references = [
            r
            for r, a in self._waiting.items()
            if node is None or (a.place is not None and a.place.node == node)
        ]
        leaving = references[::-1][:most]
        for reference in leaving:
            _end(self._waiting.pop(reference))
        return len(leaving)


def _end(arrival: Arrival) -> None:
    with suppress(RayError):
        ray.kill(arrival.actor)


def pinned(node_id: str) -> Any:
    """A scheduling strategy for this node and no other."""
    return NodeAffinitySchedulingStrategy(node_id, soft=False)


def home_of(here: str) -> str:
    """The server's node: `here`, or the node with the most CPUs if `here` offers none."""
    cpus = {n["NodeID"]: n["Resources"].get("CPU", 0.0) for n in ray.nodes() if n["Alive"]}
    if cpus.get(here, 0.0) > 0 or not any(cpus.values()):
        return here
    largest: str = max(sorted(cpus), key=lambda name: cpus[name])
    return largest


def await_start(reference: Any, timeout_s: float, check: Callable[[], None]) -> None:
    """Waits at most `timeout_s` for the answer of an actor that starts. Calls `check`, which may raise an
    error."""
    until = time.monotonic() + timeout_s
    while not ray.wait([reference], timeout=LOOK_S)[0] and time.monotonic() < until:
        check()


def end_actor(actor: Any, place: Place | None, here: str, host: Any) -> None:
    """Ends an actor; does not wait.

    With `place` its process is killed, too, because a frozen process does not answer Ray's request to exit.
    here: this node. host: the actor of the server or relay on its node, which kills it there, or None."""
    with suppress(RayError):
        ray.kill(actor)
    if place is not None and place.node == here:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(place.pid, signal.SIGKILL)
    elif place is not None and host is not None:
        host.kill.remote(place.pid)


def why_ended(serving: Any) -> str:
    """The reason that a worker has stopped serving, as words that follow "worker N"."""
    try:
        ray.get(serving)
    except RayTaskError as error:
        return f"failed: {short(error)}"
    except RayError as error:
        return f"died ({short(error)})"
    return "stopped serving without an error"


def short(error: Exception) -> str:
    """The part of an error that helps a person: Ray's first line, or the last one if the actor's own code
    failed."""
    if isinstance(error, RayTaskError):
        return f"{type(error.cause).__name__}: {error.cause}"
    lines: list[str] = str(error).strip().splitlines()
    return lines[-1 if "creation task" in lines[0] else 0].strip()


def tell_of_cpus(workers: int, changed: Callable[[str], None]) -> None:
    """Calls `changed` with a text if the cluster has fewer CPUs than workers were asked for."""
    cpus = ray.cluster_resources().get("CPU", 0.0)
    if workers > cpus:
        changed(f"the cluster has {cpus:g} CPUs for {workers} workers; the rest join when more come")


def awaited_cpus() -> float:
    """The CPUs that tasks and actors of the cluster wait for, as Ray reports to its autoscaler. Takes
    milliseconds. Requests for more CPUs than any node has do not count, because a team cannot help them."""
    from ray.autoscaler.v2.sdk import get_cluster_status  # importing it takes 20 ms, and few jobs need it

    largest = max((n["Resources"].get("CPU", 0.0) for n in ray.nodes() if n["Alive"]), default=0.0)
    status = get_cluster_status(ray.get_runtime_context().gcs_address)
    total = 0.0
    for demand in status.resource_demands.ray_task_actor_demand:
        for request in demand.bundles_by_count:
            cpus = float(request.bundle.get("CPU", 0.0))
            if cpus <= largest:
                total += cpus * request.count
    return total


def raise_corruption(serving: Any) -> None:
    """Raises the CorruptionError with which a relay ended, if there is one: the job must then stop."""
    try:
        ray.get(serving)
    except RayTaskError as error:
        if isinstance(error.cause, CorruptionError):
            raise error.cause from None
    except RayError:
        pass  # its node is lost
