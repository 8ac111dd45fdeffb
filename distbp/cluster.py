"""A team on Ray: a parameter-server actor and worker actors, started, watched and replaced by the trainer.

The trainer's process owns every actor, so none outlives it. It makes one call for a stretch of steps and then
watches: a worker that dies, freezes or is sent away hands its shards to the others within the current step,
by one call that rewrites who hosts what; a replacement joins when the cluster has room. The server is not
replaced: its end is reported (`ServerLostError`), and the trainer begins a new attempt from a checkpoint.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from distbp import membership, numerics
from distbp.actors import NodeRelay, Place, Server, WorkerProcess
from distbp.blueprint import Blueprint
from distbp.data.batches import WholeData
from distbp.errors import ExchangeError, ServerLostError, WorkerLostError
from distbp.evaluation import Evaluation, combine
from distbp.exchange.base import Snapshot
from distbp.exchange.faults import FaultPlan
from distbp.exchange.segment import MAX_WORKERS, SegmentHandle
from distbp.exchange.shared_data import SharedRows, cut
from distbp.parameter_server import NotFiniteError
from distbp.schedules import PlateauState
from distbp.worker import Worker

T = TypeVar("T")
START_S = 120.0  # to start an actor; on a full cluster it waits for room that long
WATCH_S = 0.05  # between two looks at the team while steps run
BEATS_S = 1.0  # between two questions for signs of life
FROZEN_S = 5.0  # without a sign of life, a process is taken for frozen


@dataclass(frozen=True)
class Options:
    """How a team is run; nothing here changes the result.

    workers: how many to begin with. least, most: limits for growing into free CPUs; equal: do not.
    late_factor: see `Rounds`. faults: injected, for tests of recovery.
    """

    workers: int
    least: int = 0
    most: int = 0
    late_factor: float = 4.0
    faults: FaultPlan | None = None


@dataclass
class Member:
    """A worker that has joined. `me`: its row in the segment of its node."""

    number: int
    me: int
    actor: Any
    place: Place
    serving: Any


@dataclass
class Node:
    """A node other than the server's, with its relay. `sent`: shards whose rows it has."""

    actor: Any
    segment: SegmentHandle
    serving: Any
    rows_used: int = 0
    sent: set[int] = field(default_factory=set)


class RayTeam:
    """A `Team`. Needs a Ray session, whose nodes share nothing but Ray.

    handles: the splits of `data`, shared on this node (`share_rows`). `changed` is told why when workers come or
    go. The constructor waits until all workers have joined. Raises ExchangeError, FingerprintError.
    """

    def __init__(
        self,
        blueprint: Blueprint,
        data: WholeData,
        snapshot: Snapshot,
        attempt: int,
        options: Options,
        handles: Mapping[str, SharedRows],
        changed: Callable[[str], None] = lambda reason: None,
    ) -> None:
        self._blueprint = blueprint
        self._data = data
        self._options = options
        self._changed = changed
        self._wanted = options.workers
        self._members: dict[int, Member] = {}
        self._starting: dict[Any, Any] = {}  # reference of place() -> actor
        self._nodes: dict[str, Node] = {}
        self._numbers = 0
        self._rows_used = 0
        self._beats: dict[str, Any] = {}  # whose beats were asked for -> reference
        self._beats_asked = time.monotonic()
        self._closed = False
        self._handles = handles
        self._print = numerics.fingerprint(blueprint.kernels)
        here = ray.get_runtime_context().get_node_id()
        affinity = NodeAffinitySchedulingStrategy(here, soft=False)
        self._server = Server.options(scheduling_strategy=affinity).remote(
            blueprint, snapshot, attempt, options.late_factor
        )
        try:
            for _ in range(options.workers):
                self._start_worker()
            place, self._segment = self._ask(self._server.place.remote(), START_S)
            self._server_place: Place = place
            numerics.check_same(self._print, place.fingerprint, "the parameter server")
            self._await_workers()
        except BaseException:
            self.close()
            raise

    # What the trainer asks for -----------------------------------------------------------------------------

    @property
    def exchange(self) -> str:
        return "shared memory + ray objects" if self._nodes else "shared memory"

    @property
    def workers(self) -> int:
        return len(self._members)

    def run(self, first: int, stop: int, plateau: PlateauState, stopping: Callable[[], bool]) -> int:
        running = self._server.run.remote(first, stop, plateau)
        asked_to_stop = False
        while True:
            watched = [running, *(m.serving for m in self._members.values())]
            watched += [n.serving for n in self._nodes.values()]
            ready, _ = ray.wait(watched, timeout=WATCH_S)
            if running in ready:
                break
            self._attend(ready)
            if not asked_to_stop and stopping():
                self._server.stop_soon.remote()
                asked_to_stop = True
        outcome, step = self._ask(running)
        if outcome == "not finite":
            raise NotFiniteError(step)
        self._attend([])
        return int(step)

    def evaluate(self, split: str) -> Evaluation:
        shards = self._blueprint.shards
        found: dict[int, Evaluation] = {}
        asked = [
            (mine, self._members[number].actor.evaluate.remote(split, mine))
            for number, mine in self._shards_of_members().items()
            if mine
        ]
        for mine, reference in asked:
            with suppress(RayActorError):  # its shards are computed here
                found.update(zip(mine, ray.get(reference), strict=True))
        if len(found) < shards:
            here = Worker(self._blueprint, self.snapshot().arrays["vector"], self._data)
            found.update({s: here.evaluate(split, s) for s in range(shards) if s not in found})
        return combine([found[shard] for shard in range(shards)])

    def snapshot(self) -> Snapshot:
        return self._ask(self._server.snapshot.remote())

    def scale(self, workers: int) -> None:
        """Changes the number of workers, from the next look at the team on (while steps run)."""
        self._wanted = max(1, workers)

    def ledger(self) -> tuple[int, int, int]:
        """The server's (attempt, next step, updates applied)."""
        return self._ask(self._server.ledger.remote())

    def pids(self) -> dict[str, int]:
        """Process numbers of the server ("server") and the workers ("worker-N"), for those who watch."""
        workers = {f"worker-{m.number}": m.place.pid for m in self._members.values()}
        return {"server": self._server_place.pid, **workers}

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        actors = [m.actor for m in self._members.values()] + list(self._starting.values())
        nodes = [n.actor for n in self._nodes.values()]
        with suppress(RayError):
            leaving = self._server.close.remote()
            serving = [m.serving for m in self._members.values()]
            ray.wait([leaving, *serving], num_returns=1 + len(serving), timeout=1.0)
        for actor in [*actors, *nodes, self._server]:
            with suppress(RayError):
                ray.kill(actor)

    # Workers come and go -----------------------------------------------------------------------------------

    def _start_worker(self) -> None:
        actor = WorkerProcess.remote(self._blueprint, self._options.faults)
        self._starting[actor.place.remote()] = actor

    def _await_workers(self) -> None:
        """At the start: until every worker has joined."""
        until = time.monotonic() + START_S
        while self._starting:
            ready, _ = ray.wait(list(self._starting), timeout=1.0)
            for reference in ready:
                self._join(reference)
            if not ready and time.monotonic() > until:
                free = ray.available_resources().get("CPU", 0)
                raise ExchangeError(
                    f"only {len(self._members)} of {self._wanted} workers could be started within"
                    f" {START_S:g} s: the cluster has {free:g} CPUs free. Ask for fewer workers, or add CPUs"
                )
        self._assign()

    def _join(self, reference: Any) -> None:
        """Takes a worker that has started into the team. It hosts nothing until `_assign`."""
        actor = self._starting.pop(reference)
        place: Place = self._ask_worker(reference)
        numerics.check_same(self._print, place.fingerprint, f"a worker on node {place.node[:12]}")
        if place.node == self._server_place.node:
            me, self._rows_used = self._rows_used, self._rows_used + 1
            _check_rows(me)
            self._ask_worker(actor.join.remote(self._segment, me, self._handles))
        else:
            node = self._nodes.get(place.node) or self._start_relay(place.node)
            me, node.rows_used = node.rows_used, node.rows_used + 1
            _check_rows(me)
            self._ask_worker(actor.join.remote(node.segment, me, None))
        self._numbers += 1
        self._members[self._numbers] = Member(self._numbers, me, actor, place, actor.serve.remote())

    def _start_relay(self, node_id: str) -> Node:
        affinity = NodeAffinitySchedulingStrategy(node_id, soft=False)
        attempt = self.ledger()[0]
        actor = NodeRelay.options(scheduling_strategy=affinity).remote(self._blueprint, attempt, self._server)
        place, segment = self._ask_worker(actor.place.remote())
        numerics.check_same(self._print, place.fingerprint, f"the relay on node {node_id[:12]}")
        node = self._nodes[node_id] = Node(actor, segment, actor.serve.remote())
        return node

    def _assign(self) -> None:
        """Deals the shards to the members that there are, and tells the servers' ends."""
        here = self._server_place.node
        members = [("" if m.place.node == here else m.place.node, m.number) for m in self._members.values()]
        ranges = membership.spread(self._blueprint.shards, members)
        for node_id, node in self._nodes.items():
            mine = {m.me: ranges[m.number] for m in self._members.values() if m.place.node == node_id}
            shards = {s for given in mine.values() for r in given for s in range(r.start, r.stop)}
            self._send_shards(node_id, node, shards)
            node.actor.assign.remote(mine)
        local = {m.me: ranges[m.number] for m in self._members.values() if m.place.node == here}
        self._ask(self._server.assign.remote(local))

    def _send_shards(self, node_id: str, node: Node, shards: set[int]) -> None:
        missing = sorted(shards - node.sent)
        parts = [ray.put(cut(self._data, shard, self._blueprint.dtype)) for shard in missing]
        with suppress(RayActorError):
            names = ray.get(node.actor.add_shards.remote(parts)) if parts else {}
            node.sent.update(missing)
            on_node = [m for m in self._members.values() if m.place.node == node_id]
            if not names:
                names = ray.get(node.actor.add_shards.remote([]))
            ray.get([m.actor.add_shards.remote(names) for m in on_node])

    def _attend(self, ready: Sequence[Any]) -> None:
        """Deals with whatever happened to the team since the last look."""
        lost = [m for m in self._members.values() if m.serving in ready]
        gone = [name for name, node in self._nodes.items() if node.serving in ready]
        for name in gone:
            lost += [m for m in self._members.values() if m.place.node == name and m not in lost]
            del self._nodes[name]
        for member in lost:
            self._drop(member, "died")
        for member in self._frozen():
            self._drop(member, f"gave no sign of life for {FROZEN_S:g} s")
            lost.append(member)
        joined = self._grow_or_shrink(lost)
        if (lost or joined) and self._members:
            self._assign()
        if not self._members and not self._starting:
            self._start_worker()

    def _drop(self, member: Member, why: str) -> None:
        del self._members[member.number]
        with suppress(RayError):
            ray.kill(member.actor)
        self._kill(member.place)
        self._changed(f"worker {member.number} {why}; {len(self._members)} go on")

    def _kill(self, place: Place) -> None:
        """Ends a process for sure: Ray asks it to exit, which a frozen one does not hear."""
        with suppress(ProcessLookupError, PermissionError, RayError):
            if place.node == self._server_place.node:
                os.kill(place.pid, signal.SIGKILL)
            elif place.node in self._nodes:
                self._nodes[place.node].actor.kill.remote(place.pid)

    def _grow_or_shrink(self, lost: Sequence[Member]) -> bool:
        """Starts or ends workers toward the number wanted; true if the team is another now."""
        joined = False
        ready, _ = ray.wait(list(self._starting), timeout=0) if self._starting else ([], [])
        for reference in ready:
            with suppress(WorkerLostError):
                self._join(reference)
                joined = True
                self._changed(f"a worker joined; {len(self._members)} go on")
        count = len(self._members) + len(self._starting)
        for _ in range(count, self._wanted):
            self._start_worker()
        for _ in range(self._wanted, count):
            if self._starting:
                ray.kill(self._starting.popitem()[1])
            else:
                member = self._members[max(self._members)]
                self._drop(member, "was sent away")
                joined = True
        return joined

    def _frozen(self) -> list[Member]:
        """Members without a sign of life. Raises ServerLostError where it is the server that is frozen."""
        now = time.monotonic()
        if not self._beats:
            if now - self._beats_asked < BEATS_S:
                return []
            self._beats_asked = now
            self._beats = {"": self._server.beats.remote()}
            self._beats.update({name: node.actor.beats.remote() for name, node in self._nodes.items()})
            self._grow_into_free_cpus()
            return []
        ready, waiting = ray.wait(list(self._beats.values()), num_returns=len(self._beats), timeout=0)
        if waiting and now - self._beats_asked < FROZEN_S:
            return []
        silent = [name for name, reference in self._beats.items() if reference in waiting]
        found: list[Member] = []
        for name, reference in self._beats.items():
            on_node = {
                m.me: m
                for m in self._members.values()
                if m.place.node == (name or self._server_place.node)
            }
            if name in silent:
                if not name:
                    self._kill(self._server_place)
                    raise ServerLostError(f"the parameter server gave no sign of life for {FROZEN_S:g} s")
                found += on_node.values()
                continue
            with suppress(RayActorError):
                ages = ray.get(reference)
                found += [on_node[me] for me in membership.frozen(ages, FROZEN_S) if me in on_node]
        self._beats = {}
        return found

    def _grow_into_free_cpus(self) -> None:
        least, most = self._options.least, self._options.most
        if most > least:
            free = ray.available_resources().get("CPU", 0.0)
            count = len(self._members) + len(self._starting)
            self._wanted = membership.target(count, self._wanted, least, most, free)

    def _shards_of_members(self) -> dict[int, list[int]]:
        here = self._server_place.node
        members = [("" if m.place.node == here else m.place.node, m.number) for m in self._members.values()]
        ranges = membership.spread(self._blueprint.shards, members)
        return {n: [s for r in given for s in range(r.start, r.stop)] for n, given in ranges.items()}

    def _ask(self, reference: Any, timeout_s: float | None = None) -> Any:
        """The answer of the server; ServerLostError if it died."""
        try:
            return ray.get(reference, timeout=timeout_s)
        except RayActorError as error:
            raise ServerLostError(f"the parameter server died ({_short(error)})") from None
        except GetTimeoutError:
            raise ServerLostError(f"the parameter server did not start within {timeout_s:g} s") from None

    def _ask_worker(self, reference: Any) -> Any:
        try:
            return ray.get(reference, timeout=START_S)
        except (RayActorError, GetTimeoutError) as error:
            raise WorkerLostError(f"a worker did not start ({_short(error)})") from None


def _check_rows(me: int) -> None:
    if me >= MAX_WORKERS:
        raise ExchangeError(
            f"more than {MAX_WORKERS} workers have joined on one node; resume the run to start a fresh team"
        )


def _short(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
