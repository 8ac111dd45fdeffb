"""A team on Ray: the trainer starts, watches and replaces a parameter-server actor and worker actors.

The trainer's process owns every actor, so none outlives it. It makes one call for a stretch of steps and then
watches the team. When a worker dies, freezes or is sent away, one call deals the shards anew, and the other
workers compute its shards within the current step. A replacement joins when the cluster has room. A server is
not replaced: its end raises ServerLostError, and the trainer begins a new attempt from a checkpoint.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError

from distbp.core.arrays import Array
from distbp.core.errors import DistbpError, ExchangeError, FingerprintError, ServerLostError, WorkerLostError
from distbp.data.batches import WholeData
from distbp.engine import numerics
from distbp.engine.blueprint import Blueprint
from distbp.engine.evaluation import Evaluation, combine
from distbp.engine.parameter_server import NotFiniteError
from distbp.engine.ranges import ranges as server_ranges
from distbp.engine.worker import Worker
from distbp.optim.schedules import PlateauState
from distbp.team import membership
from distbp.team.base import Snapshot
from distbp.team.exchange.segment import Range
from distbp.team.exchange.shared_data import SharedRows
from distbp.team.membership import Options
from distbp.team.ray import head_start
from distbp.team.ray.actors import Place
from distbp.team.ray.head_start import HeadStart
from distbp.team.ray.heartbeats import Heartbeats, Silence
from distbp.team.ray.nodes import Node, Nodes
from distbp.team.ray.range_actors import Lead
from distbp.team.ray.recruiting import (
    GONE,
    Member,
    Recruits,
    await_start,
    awaited_cpus,
    end_actor,
    home_of,
    pinned,
    raise_corruption,
    short,
    tell_of_cpus,
    why_ended,
)

START_S = 120.0  # the most time for an actor to start; a full cluster may have to make room first
WATCH_S = 0.05  # between two looks at the team while steps run
LEAVE_S = 1.0  # the time for processes to end by themselves
GROW_S = 1.0  # between two looks at free CPUs
_LEAD = ""  # in place of a node's id: the lead of several servers, which is not the only actor of its node
LOST_IN_VAIN = 8  # plus twice the number wanted: the most losses without a completed step


class RayTeam:
    """A `Team` on a Ray session. Its nodes share nothing but Ray.

    handles: the splits of `data`, shared on this node (`share_rows`). changed: called with the reason when
    workers come or go. early: processes that were started early. The constructor waits until all workers
    have joined, and calls `check` meanwhile. Raises ExchangeError, FingerprintError, ServerLostError."""

    def __init__(
        self,
        blueprint: Blueprint,
        data: WholeData,
        snapshot: Snapshot,
        attempt: int,
        options: Options,
        handles: Mapping[str, SharedRows],
        changed: Callable[[str], None] = lambda reason: None,
        early: HeadStart | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self._blueprint = blueprint
        self._sent = blueprint.slim()
        self._early = early
        self._data = data
        self._options = options
        self._changed = changed
        self._attempt = attempt
        self._step = snapshot.step  # the server's, between two stretches
        self._stretch = 0
        self._wanted = options.workers
        self._members: dict[int, Member] = {}
        self._lost_in_vain = 0  # workers, since the last stretch of steps
        self._doubtful: set[str] = set()  # nodes that were silent; new workers are not placed there by choice
        self._heartbeats = Heartbeats(options.frozen_s)
        self._grown = time.monotonic()
        self._closed = False
        self._server_lost = False
        mine = numerics.fingerprint(blueprint.kernels)
        self._here = ray.get_runtime_context().get_node_id()
        self._home = home_of(self._here)  # the server's node
        self._server_place: Place | None = None
        network, where = blueprint.network(), pinned(self._home)
        self.nodes = Nodes(self._sent, data, attempt, self._here, handles)
        if len(server_ranges(network, options.servers)) == 1:
            beside, late = self._home == self._here, options.late_factor
            self._server = head_start.server(early if beside else None, where, blueprint.kernels)
            beginning = self._server.begin.remote(self._sent, snapshot, attempt, beside, late)
            self.nodes[self._home] = Node(self._server)
        else:  # the lead's node has a relay like all other nodes
            self._server = Lead.options(scheduling_strategy=where).remote(
                self._sent, snapshot, attempt, options.servers, options.frozen_s
            )
            beginning = self._server.place.remote()
        self.nodes.servers = [(self._server, 0, network.size)]
        self._recruits = Recruits(self._new_worker, self.nodes.introduce, mine)
        try:
            for _ in range(options.workers):
                self._start_worker()
            await_start(beginning, START_S, check)
            self._server_place, _ = self._ask(beginning, START_S)
            numerics.check_same(mine, self._server_place.fingerprint, "the parameter server")
            self._heartbeats.expect(self._home if self.nodes else _LEAD)
            if not self.nodes:
                self.nodes.servers = self._ask(self._server.servers.remote(), START_S)
            self._await_workers(check)
        except BaseException:
            self.close()
            raise

    # What the trainer asks for -----------------------------------------------------------------------------

    @property
    def exchange(self) -> str:
        ways = {"shared memory" if self._beside_server(m) else "ray objects" for m in self._members.values()}
        return " + ".join(sorted(ways, reverse=True)) or "shared memory"

    @property
    def workers(self) -> int:
        return len(self._members)

    def _beside_server(self, member: Member) -> bool:
        """Whether a worker shares memory with the server."""
        return len(self.nodes.servers) == 1 and member.place.node == self._home

    def run(self, first: int, stop: int, plateau: PlateauState, stopping: Callable[[], bool]) -> int:
        self._stretch += 1
        running = self._server.run.remote(self._stretch, first, stop, plateau)
        asked_to_stop = False
        while running not in self._look([running]):
            if not asked_to_stop and stopping():
                self._server.stop_soon.remote(self._stretch)
                asked_to_stop = True
        outcome, step = self._ask(running)
        if outcome == "not finite":
            raise NotFiniteError(step)
        if step > self._step:
            self._lost_in_vain = 0
        self._step = int(step)
        return self._step

    def evaluate(self, split: str) -> Evaluation:
        shards = self._blueprint.shards
        by_shard: dict[int, Evaluation] = {}
        asked: dict[Any, tuple[int, list[int]]] = {}
        for number, ranges in self._ranges().items():
            mine = [s for r in ranges for s in range(r.start, r.stop)]
            if mine:
                asked[self._members[number].actor.evaluate.remote(split, mine, self._step)] = number, mine
        while asked:
            for reference in self._look(list(asked)):
                _, mine = asked.pop(reference)
                with suppress(RayError):  # the worker was lost: its shards are evaluated here
                    by_shard.update(zip(mine, ray.get(reference), strict=True))
            asked = {r: (number, mine) for r, (number, mine) in asked.items() if number in self._members}
        if len(by_shard) < shards:
            here = Worker(self._blueprint, self.snapshot().arrays["vector"], self._data)
            by_shard.update({s: here.evaluate(split, s) for s in range(shards) if s not in by_shard})
        return combine([by_shard[shard] for shard in range(shards)])

    def snapshot(self, whole: bool = True) -> Snapshot:
        return self._ask(self._server.snapshot.remote(whole))

    def adopt(self, vector: Array) -> bool:
        if list(self.nodes) != [self._home] or len(self.nodes.servers) > 1:  # relays keep the old vector
            return False
        self._ask(self._server.adopt.remote(vector))
        return True

    def scale(self, workers: int) -> str | None:
        """See `Team.scale`. From now on free CPUs do not change the number of workers."""
        if workers < 1:
            return "the shards need at least one worker"
        self._wanted = workers
        self._options = replace(self._options, least=0, most=0)
        tell_of_cpus(workers, self._changed)
        return None

    def ledger(self) -> tuple[int, int, int]:
        """(attempt, next step, number of updates that this attempt applied), from the server; waits."""
        return self._ask(self._server.ledger.remote())

    def places(self) -> dict[str, Place]:
        """The places of the server ("server") and of the workers ("worker-N"). Any thread may call it."""
        workers = {f"worker-{m.number}": m.place for m in list(self._members.values())}
        return workers | ({"server": self._server_place} if self._server_place else {})

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._recruits.dismiss()
        processes: dict[Any, tuple[Any, Place | None]] = {
            m.serving: (m.actor, m.place) for m in self._members.values()
        }
        stuck = list(processes)
        with suppress(RayError):
            leaving = self._server.close.remote()
            processes[leaving] = self._server, self._server_place
            stuck = list(processes)
            if not self._server_lost:  # without a server, the workers do not learn of the end
                _, stuck = ray.wait(stuck, num_returns=len(stuck), timeout=LEAVE_S)
        for reference, (actor, place) in processes.items():
            self._end(actor, place if reference in stuck else None)
        for node in self.nodes.values():
            self._end(node.actor)

    # Workers come and go -----------------------------------------------------------------------------------

    def _new_worker(self, where: Any) -> tuple[Any, Any]:
        actor = head_start.worker(self._early, where, self._blueprint.kernels)
        return actor, actor.begin.remote(self._sent, self._options.faults)

    def _start_worker(self) -> None:
        self._recruits.start(self._home, list(self._members.values()), self._doubtful)

    def _await_workers(self, check: Callable[[], None]) -> None:
        """Waits, at the start, until every worker has joined. Raises as the constructor does."""
        until = time.monotonic() + START_S
        while self._recruits:
            check()
            self._silence()
            joined, lost = self._recruits.welcome(WATCH_S)
            self._members.update({m.number: m for m in joined})
            for error in lost:
                if isinstance(error, FingerprintError):
                    raise error
                self._mourn(f"could not join: {short(error)}")
                self._start_worker()
            if time.monotonic() > until:
                free = ray.available_resources().get("CPU", 0)
                raise ExchangeError(
                    f"only {len(self._members)} of {self._wanted} workers could be started within"
                    f" {START_S:g} s: the cluster has {free:g} CPUs free. Ask for fewer workers, or add CPUs"
                )
        self._assign()

    def _assign(self) -> None:
        """Deals the shards to the members; does not wait."""
        members, ranges = list(self._members.values()), self._ranges()
        self.nodes.assign(members, ranges)
        busy = {m.place.node for m in members} | {self._home, *self._recruits.nodes()}
        for name in self.nodes.keys() - busy:  # relays of nodes without workers
            self._end(self.nodes.pop(name).actor)
            self._heartbeats.forget(name)
        self.nodes.send_rows(members, ranges)

    def _ranges(self) -> dict[int, list[Range]]:
        # The server's node comes first: if there are more workers than shards, the last ones have no work.
        return membership.spread(
            self._blueprint.shards,
            [("" if m.place.node == self._home else m.place.node, m.number) for m in self._members.values()],
        )

    # Watching ----------------------------------------------------------------------------------------------

    def _look(self, awaited: Sequence[Any]) -> list[Any]:
        """Waits at most WATCH_S for any of `awaited`, and handles changes of the team meanwhile. Returns the
        references of `awaited` that are ready. Raises as `_attend` does."""
        serving = [m.serving for m in self._members.values()]
        serving += [n.serving for n in self.nodes.values() if n.serving is not None]
        ready, _ = ray.wait([*awaited, *serving], timeout=WATCH_S)
        if any(reference in serving for reference in ready) or not ready:
            ready, _ = ray.wait([*awaited, *serving], num_returns=len(awaited) + len(serving), timeout=0)
        self._attend(ready)
        return [reference for reference in awaited if reference in ready]

    def _attend(self, ready: Collection[Any]) -> None:
        """Handles losses and arrivals since the last look. Raises ServerLostError, WorkerLostError,
        CorruptionError."""
        silence = self._silence()
        silent = f"gave no sign of life for {self._options.frozen_s:g} s"
        lost = {m.number: why_ended(m.serving) for m in self._members.values() if m.serving in ready}
        lost.update(
            {m.number: silent for m in self._members.values() if (m.place.node, m.me) in silence.rows}
        )
        gone = {name for name, node in self.nodes.items() if node.serving in ready}
        for name in gone:
            raise_corruption(self.nodes[name].serving)
        for name in gone | silence.nodes:
            why = "lost its relay" if name in gone else silent
            on_node = [m.number for m in self._members.values() if m.place.node == name]
            lost.update(dict.fromkeys(on_node, f"left with node {name[:12]}, which {why}"))
            self._leave(name)
        for number, why in lost.items():
            self._drop(self._members[number], why)
        self.nodes.look_at_orders()
        changed = self._grow_or_shrink()
        if (lost or changed) and self._members:
            self._assign()  # before anything else, because a step may wait for it
        for why in lost.values():
            self._mourn(why)

    def _silence(self) -> Silence:
        """Returns which processes are frozen. Raises ServerLostError if the server is one of them."""
        server = _LEAD if len(self.nodes.servers) > 1 else self._home
        silence = self._heartbeats.look({server: Node(self._server), **self.nodes})
        if server in silence.nodes:
            self._lose_server(f"gave no sign of life for {self._options.frozen_s:g} s")
        return silence

    def _drop(self, member: Member, why: str) -> None:
        del self._members[member.number]
        self._end(member.actor, member.place)
        self._changed(f"worker {member.number} {why}; {len(self._members)} go on")

    def _end(self, actor: Any, place: Place | None = None) -> None:
        node = self.nodes.get(place.node) if place else None
        end_actor(actor, place, self._here, node.actor if node else None)

    def _lose_server(self, why: str) -> None:
        self._server_lost = True
        raise ServerLostError(f"the parameter server {why}")

    def _mourn(self, why: str) -> None:
        """Counts a lost worker. Raises ServerLostError if the server is lost, too, and WorkerLostError if too
        many workers were lost since the last completed step."""
        self._ask(self._server.place.remote(), self._options.frozen_s)
        self._lost_in_vain += 1
        if self._lost_in_vain >= LOST_IN_VAIN + 2 * self._wanted:
            raise WorkerLostError(
                f"{self._lost_in_vain} workers were lost one after the other, and no step was completed. The"
                f" last one {why}. Mend that (is there memory enough?), then go on from the last checkpoint"
            )

    def _leave(self, name: str) -> None:
        """Gives up a node. Ray ends its relay when it reaches the node again; late pushes have no effect."""
        self._doubtful.add(name)
        self._heartbeats.forget(name)
        self._end(self.nodes.pop(name).actor)
        self._recruits.dismiss(name)

    def _grow_or_shrink(self) -> bool:
        """Starts or ends workers toward the number wanted. Returns whether the members changed."""
        joined, lost = self._recruits.welcome(0)
        self._members.update({m.number: m for m in joined})
        if joined:
            self._changed(f"a worker joined; {len(self._members)} go on")
        for error in lost:
            self._changed(f"a worker could not join: {short(error)}")
            if isinstance(error, FingerprintError):  # a new worker would be refused, too
                self._wanted = max(1, len(self._members) + len(self._recruits))
            self._mourn(f"could not join: {short(error)}")
        self._grow_into_free_cpus()
        surplus = len(self._members) + len(self._recruits) - self._wanted
        for _ in range(-surplus):
            self._start_worker()
        leaving = max(0, surplus - self._recruits.dismiss(most=max(0, surplus)))
        # Workers on other nodes leave first, because their exchange is slower.
        order = sorted(self._members.values(), key=lambda m: (m.place.node != self._home, m.number))
        for member in order[len(order) - leaving :]:
            self._drop(member, "was sent away")
        return bool(joined or leaving)

    def _grow_into_free_cpus(self) -> None:
        least, most = self._options.least, self._options.most
        if most > least and time.monotonic() - self._grown >= GROW_S:
            self._grown = time.monotonic()
            free = ray.available_resources().get("CPU", 0.0)
            count = len(self._members) + len(self._recruits)
            self._wanted = membership.target(count, self._wanted, least, most, free, awaited_cpus())

    def _ask(self, reference: Any, timeout_s: float | None = None) -> Any:
        """The server's answer; waits. Raises its DistbpError, or ServerLostError if it ended or was too
        late."""
        try:
            while timeout_s is None and reference not in self._look([reference]):
                pass
            return ray.get(reference, timeout=timeout_s)
        except GONE as error:  # also if a server has asked another server that had died
            self._lose_server(f"died ({short(error)})")
        except RayTaskError as error:
            raise error.cause if isinstance(error.cause, DistbpError) else error from None
        except GetTimeoutError:
            self._lose_server(f"gave no answer within {timeout_s:g} s")
