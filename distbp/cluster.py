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
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from distbp import membership, numerics
from distbp.actors import NodeRelay, Place, Server, WorkerProcess
from distbp.blueprint import Blueprint
from distbp.data.batches import WholeData
from distbp.errors import ExchangeError, FingerprintError, ServerLostError
from distbp.evaluation import Evaluation, combine
from distbp.exchange.base import Snapshot
from distbp.exchange.faults import FaultPlan
from distbp.exchange.segment import MAX_WORKERS, Range
from distbp.exchange.shared_data import SharedRows, cut
from distbp.parameter_server import NotFiniteError
from distbp.schedules import PlateauState
from distbp.worker import Worker

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
class Arrival:
    """A worker that has been started and is not a member yet. `place`: once known; then it is joining."""

    actor: Any
    place: Place | None = None
    me: int = -1


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
    """A node with workers. `actor`: the server's on its node, a relay's elsewhere. `serving`: ends with the
    relay. `sent`: shards whose rows were sent there."""

    actor: Any
    serving: Any = None
    rows_used: int = 0
    sent: set[int] = field(default_factory=set)

    def take_row(self) -> int:
        if self.rows_used >= MAX_WORKERS:
            raise ExchangeError(
                f"more than {MAX_WORKERS} workers have joined on one node;"
                " resume the run to start a fresh team"
            )
        self.rows_used += 1
        return self.rows_used - 1


class RayTeam:
    """A `Team`. Needs a Ray session, whose nodes share nothing but Ray.

    handles: the splits of `data`, shared on this node (`share_rows`). `changed` is told why when workers come
    or go. The constructor waits until all workers have joined. Raises ExchangeError, FingerprintError.
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
        self._attempt = attempt
        self._step = snapshot.step  # the server's, between two stretches
        self._wanted = options.workers
        self._members: dict[int, Member] = {}
        self._arriving: dict[Any, Arrival] = {}  # by the reference that is waited for
        self._doubtful: set[str] = set()  # nodes that fell silent; the last choice for new workers
        self._numbers = 0
        self._orders = 0
        self._ordered: list[Any] = []  # references of orders that may have failed
        self._beats: dict[str, Any] = {}  # node -> reference of its signs of life
        self._beats_asked = time.monotonic()
        self._closed = False
        self._handles = handles
        self._print = numerics.fingerprint(blueprint.kernels)
        self._here = ray.get_runtime_context().get_node_id()
        self._home = _home(self._here)  # the server's node
        self._server = Server.options(scheduling_strategy=_pinned(self._home)).remote(
            blueprint, snapshot, attempt, options.late_factor
        )
        self._nodes: dict[str, Node] = {self._home: Node(self._server)}
        try:
            for _ in range(options.workers):
                self._start_worker()
            place, _ = self._ask(self._server.place.remote(), START_S)
            self._server_place: Place = place
            numerics.check_same(self._print, place.fingerprint, "the parameter server")
            self._await_workers()
        except BaseException:
            self.close()
            raise

    # What the trainer asks for -----------------------------------------------------------------------------

    @property
    def exchange(self) -> str:
        ways = {
            "shared memory" if m.place.node == self._home else "ray objects" for m in self._members.values()
        }
        return " + ".join(sorted(ways, reverse=True)) or "shared memory"

    @property
    def workers(self) -> int:
        return len(self._members)

    def run(self, first: int, stop: int, plateau: PlateauState, stopping: Callable[[], bool]) -> int:
        running = self._server.run.remote(first, stop, plateau)
        asked_to_stop = False
        while running not in self._look([running]):
            if not asked_to_stop and stopping():
                self._server.stop_soon.remote()
                asked_to_stop = True
        outcome, step = self._ask(running)
        if outcome == "not finite":
            raise NotFiniteError(step)
        self._step = int(step)
        return self._step

    def evaluate(self, split: str) -> Evaluation:
        shards = self._blueprint.shards
        found: dict[int, Evaluation] = {}
        asked: dict[Any, tuple[int, list[int]]] = {}
        for number, ranges in self._ranges().items():
            mine = [s for r in ranges for s in range(r.start, r.stop)]
            if mine:
                asked[self._members[number].actor.evaluate.remote(split, mine, self._step)] = number, mine
        while asked:
            for reference in self._look(list(asked)):
                _, mine = asked.pop(reference)
                with suppress(RayError):  # its shards are computed here
                    found.update(zip(mine, ray.get(reference), strict=True))
            asked = {r: (number, mine) for r, (number, mine) in asked.items() if number in self._members}
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

    def traffic(self) -> dict[str, tuple[int, int]]:
        """Relay's node -> (its calls to the server, bytes of gradient sums sent with them)."""
        return {
            name: ray.get(node.actor.traffic.remote())
            for name, node in self._nodes.items()
            if name != self._home
        }

    def pids(self) -> dict[str, int]:
        """Process numbers of the server ("server") and the workers ("worker-N"), for those who watch."""
        workers = {f"worker-{m.number}": m.place.pid for m in self._members.values()}
        return {"server": self._server_place.pid, **workers}

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        actors = [m.actor for m in self._members.values()] + [a.actor for a in self._arriving.values()]
        with suppress(RayError):
            leaving = self._server.close.remote()
            serving = [m.serving for m in self._members.values()]
            ray.wait([leaving, *serving], num_returns=1 + len(serving), timeout=1.0)
        for actor in [*actors, *(n.actor for n in self._nodes.values())]:
            with suppress(RayError):
                ray.kill(actor)

    # Workers come and go -----------------------------------------------------------------------------------

    def _start_worker(self) -> None:
        actor = WorkerProcess.options(scheduling_strategy=self._where()).remote(
            self._blueprint, self._options.faults
        )
        self._arriving[actor.place.remote()] = Arrival(actor)

    def _where(self) -> Any:
        """Fills the server's node first, where memory is shared, then one node after the other. Where others
        have taken the room there, Ray finds another place."""
        taken = [m.place.node for m in self._members.values()]
        rooms = {n["NodeID"]: n["Resources"].get("CPU", 0.0) for n in ray.nodes() if n["Alive"]}
        fresh = sum(1 for a in self._arriving.values() if a.place is None)
        taken += [a.place.node for a in self._arriving.values() if a.place]
        return _first_room(self._home, rooms, taken, fresh, self._doubtful)

    def _await_workers(self) -> None:
        """At the start: until every worker has joined."""
        until = time.monotonic() + START_S
        while self._arriving:
            self._welcome(wait_s=1.0, strict=True)
            if self._arriving and time.monotonic() > until:
                free = ray.available_resources().get("CPU", 0)
                raise ExchangeError(
                    f"only {len(self._members)} of {self._wanted} workers could be started within"
                    f" {START_S:g} s: the cluster has {free:g} CPUs free. Ask for fewer workers, or add CPUs"
                )
        self._assign()

    def _welcome(self, wait_s: float = 0.0, strict: bool = False) -> int:
        """Takes arrivals one stage further; returns how many became members. A worker that cannot join is
        left out with a note, or (strict) is an error."""
        if not self._arriving:
            return 0
        joined = 0
        ready, _ = ray.wait(list(self._arriving), num_returns=len(self._arriving), timeout=wait_s)
        for reference in ready:
            arrival = self._arriving.pop(reference)
            try:
                answer = ray.get(reference)
                if arrival.place is None:
                    where = f"a worker on node {answer.node[:12]}"
                    numerics.check_same(self._print, answer.fingerprint, where)
                    self._introduce(arrival, answer)
                    continue
            except (RayError, FingerprintError) as error:
                self._refuse(arrival, error, strict)
                continue
            self._numbers += 1
            serving = arrival.actor.serve.remote()
            self._members[self._numbers] = Member(
                self._numbers, arrival.me, arrival.actor, arrival.place, serving
            )
            joined += 1
        return joined

    def _introduce(self, arrival: Arrival, place: Place) -> None:
        """Brings a worker together with the server's or the relay's actor on its node."""
        node = self._nodes.get(place.node) or self._start_relay(place.node)
        arrival.place, arrival.me = place, node.take_row()
        handles = self._handles if place.node == self._here else None
        self._arriving[arrival.actor.join.remote(node.actor, arrival.me, handles)] = arrival

    def _refuse(self, arrival: Arrival, error: Exception, strict: bool) -> None:
        with suppress(RayError):
            ray.kill(arrival.actor)
        if strict and isinstance(error, FingerprintError):
            raise error
        if strict:
            raise ExchangeError(f"a worker did not start: {_short(error)}")
        if isinstance(error, FingerprintError):
            self._wanted = max(1, len(self._members) + len(self._arriving))  # do not try the same again
        self._changed(f"a worker could not join: {_short(error)}")

    def _start_relay(self, node_id: str) -> Node:
        options = NodeRelay.options(scheduling_strategy=_pinned(node_id))
        actor = options.remote(self._blueprint, self._attempt, self._server)
        node = self._nodes[node_id] = Node(actor, actor.serve.remote())
        return node

    def _assign(self) -> None:
        """Deals the shards to the members that there are. Waits for nobody: a node that is gone shall not
        hold up the others."""
        ranges = self._ranges()
        self._orders += 1
        for name, node in list(self._nodes.items()):
            mine = {m.me: ranges[m.number] for m in self._members.values() if m.place.node == name}
            self._ordered.append(node.actor.assign.remote(self._orders, mine))
        if self._members and self._home == self._here:
            self._retire_relays()
        for name, node in self._nodes.items():
            if name == self._here:
                continue
            wanted = {
                s
                for m in self._members.values()
                if m.place.node == name
                for r in ranges[m.number]
                for s in range(r.start, r.stop)
            }
            for shard in sorted(wanted - node.sent):
                part = ray.put(cut(self._data, shard, self._blueprint.dtype))
                self._ordered.append(node.actor.add_rows.remote(part))
                node.sent.add(shard)

    def _ranges(self) -> dict[int, list[Range]]:
        # The server's node comes first: where there are more workers than shards, the last have no work.
        return membership.spread(
            self._blueprint.shards,
            [("" if m.place.node == self._home else m.place.node, m.number) for m in self._members.values()],
        )

    # Watching ----------------------------------------------------------------------------------------------

    def _look(self, awaited: Sequence[Any]) -> list[Any]:
        """Waits a moment for any of `awaited`, deals with what happened to the team meanwhile, and returns
        those of `awaited` that are ready."""
        serving = [m.serving for m in self._members.values()]
        serving += [n.serving for n in self._nodes.values() if n.serving is not None]
        ready, _ = ray.wait([*awaited, *serving], timeout=WATCH_S)
        if any(reference in serving for reference in ready) or not ready:
            ready, _ = ray.wait([*awaited, *serving], num_returns=len(awaited) + len(serving), timeout=0)
        self._attend(ready)
        return [reference for reference in awaited if reference in ready]

    def _attend(self, ready: Collection[Any]) -> None:
        """Deals with whatever happened to the team since the last look."""
        lost: dict[int, str] = {m.number: "died" for m in self._members.values() if m.serving in ready}
        gone = {name for name, node in self._nodes.items() if node.serving in ready}
        frozen, silent = self._silent()
        lost.update(dict.fromkeys(frozen, f"gave no sign of life for {FROZEN_S:g} s"))
        for name in gone | silent:
            why = "lost its relay" if name in gone else f"gave no sign of life for {FROZEN_S:g} s"
            on_node = [m.number for m in self._members.values() if m.place.node == name]
            lost.update(dict.fromkeys(on_node, f"left with node {name[:12]}, which {why}"))
            self._leave(name)
        for number, why in lost.items():
            self._drop(self._members[number], why)
        self._check_orders()
        changed = self._grow_or_shrink()
        if (lost or changed) and self._members:
            self._assign()

    def _drop(self, member: Member, why: str) -> None:
        del self._members[member.number]
        with suppress(RayError):
            ray.kill(member.actor)
        # Ray asks a process to exit, which a frozen one does not hear.
        if member.place.node == self._here:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(member.place.pid, signal.SIGKILL)
        elif member.place.node in self._nodes:
            self._nodes[member.place.node].actor.kill.remote(member.place.pid)
        self._changed(f"worker {member.number} {why}; {len(self._members)} go on")

    def _leave(self, name: str) -> None:
        """Gives up a node. Its relay is ended when it can be reached again; late pushes have no effect."""
        node = self._nodes.pop(name)
        self._doubtful.add(name)
        self._beats.pop(name, None)
        with suppress(RayError):
            ray.kill(node.actor)
        for reference, arrival in list(self._arriving.items()):
            if arrival.place and arrival.place.node == name:
                del self._arriving[reference]
                with suppress(RayError):
                    ray.kill(arrival.actor)

    def _retire_relays(self) -> None:
        """Ends relays of nodes that have no worker any more."""
        busy = {m.place.node for m in self._members.values()} | {self._home}
        busy |= {a.place.node for a in self._arriving.values() if a.place}
        for name in self._nodes.keys() - busy:
            with suppress(RayError):
                ray.kill(self._nodes.pop(name).actor)
            self._beats.pop(name, None)

    def _check_orders(self) -> None:
        """Orders wait for nobody, but their failures must not pass in silence."""
        if not self._ordered:
            return
        done, self._ordered = ray.wait(self._ordered, num_returns=len(self._ordered), timeout=0)
        for reference in done:
            with suppress(RayActorError):  # noticed otherwise
                ray.get(reference)

    def _grow_or_shrink(self) -> bool:
        """Starts or ends workers toward the number wanted; true if the team is another now."""
        joined = self._welcome()
        if joined:
            self._changed(f"a worker joined; {len(self._members)} go on")
        count = len(self._members) + len(self._arriving)
        for _ in range(count, self._wanted):
            self._start_worker()
        dropped = 0
        for _ in range(self._wanted, count):
            if self._arriving:
                ray.kill(self._arriving.popitem()[1].actor)
            else:
                self._drop(self._members[max(self._members)], "was sent away")
                dropped += 1
        return bool(joined or dropped)

    def _silent(self) -> tuple[list[int], set[str]]:
        """Members, and nodes other than the server's, that gave no sign of life for too long. Raises
        ServerLostError where it is the server."""
        now = time.monotonic()
        if not self._beats:
            if now - self._beats_asked >= BEATS_S:
                self._beats_asked = now
                self._beats = {name: node.actor.beats.remote() for name, node in self._nodes.items()}
                self._grow_into_free_cpus()
            return [], set()
        _, waiting = ray.wait(list(self._beats.values()), num_returns=len(self._beats), timeout=0)
        if waiting and now - self._beats_asked < FROZEN_S:
            return [], set()
        frozen: list[int] = []
        silent: set[str] = set()
        for name, reference in self._beats.items():
            if reference in waiting:
                silent.add(name)
                continue
            on_node = {m.me: m.number for m in self._members.values() if m.place.node == name}
            with suppress(RayActorError):
                ages = ray.get(reference)
                frozen += [on_node[me] for me in membership.frozen(ages, FROZEN_S) if me in on_node]
        self._beats = {}
        if self._home in silent:
            if self._home == self._here:
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(self._server_place.pid, signal.SIGKILL)
            raise ServerLostError(f"the parameter server gave no sign of life for {FROZEN_S:g} s")
        return frozen, silent

    def _grow_into_free_cpus(self) -> None:
        least, most = self._options.least, self._options.most
        if most > least:
            free = ray.available_resources().get("CPU", 0.0)
            count = len(self._members) + len(self._arriving)
            self._wanted = membership.target(count, self._wanted, least, most, free)

    def _ask(self, reference: Any, timeout_s: float | None = None) -> Any:
        """The answer of the server; ServerLostError if it died, froze, or took longer than `timeout_s`."""
        try:
            while timeout_s is None and reference not in self._look([reference]):
                pass
            return ray.get(reference, timeout=timeout_s)
        except RayActorError as error:
            raise ServerLostError(f"the parameter server died ({_short(error)})") from None
        except GetTimeoutError:
            raise ServerLostError(f"the parameter server did not start within {timeout_s:g} s") from None


def _pinned(node_id: str) -> Any:
    return NodeAffinitySchedulingStrategy(node_id, soft=False)


def _home(here: str) -> str:
    """The server's node: this one, or, where it offers no CPU (a process that only submits), the largest."""
    cpus = {n["NodeID"]: n["Resources"].get("CPU", 0.0) for n in ray.nodes() if n["Alive"]}
    if cpus.get(here, 0.0) > 0 or not any(cpus.values()):
        return here
    return max(sorted(cpus), key=lambda name: cpus[name])


def _first_room(
    home: str, rooms: Mapping[str, float], taken: Sequence[str], fresh: int, doubtful: Collection[str]
) -> Any:
    for name in membership.places(home, rooms, taken, doubtful)[fresh : fresh + 1]:
        return NodeAffinitySchedulingStrategy(name, soft=True, _spill_on_unavailable=True)
    return "DEFAULT"


def _short(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
