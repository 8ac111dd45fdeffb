"""Workers on Ray that are lent out one by one, each to a team of its own (see `distbp.team.ray.apart`)."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, NodeLabelSchedulingStrategy, NotIn

from distbp.core.errors import ExchangeError, FingerprintError, ServerLostError
from distbp.core.words import counted
from distbp.data.batches import WholeData
from distbp.data.prepared import PreparedRows
from distbp.engine import numerics
from distbp.engine.blueprint import Blueprint
from distbp.team import membership
from distbp.team.exchange.shared_data import SharedRows
from distbp.team.ray import head_start
from distbp.team.ray.actors import Place
from distbp.team.ray.head_start import HeadStart
from distbp.team.ray.recruiting import GONE, LOOK_S, awaited_cpus, end_actor, short
from distbp.team.training_turns import TrainingTurns

START_S = 120.0  # the most time for a worker to start while no other works
GROW_S = 1.0  # between two looks at free CPUs


@dataclass(frozen=True, eq=False)
class LentWorker:
    """A worker of the pool. number: from 1 on, in the order of arrival. cpus: how many it computes on."""

    number: int
    actor: Any
    place: Place
    cpus: int


class WorkerPool:
    """Lends a worker to each network that has its turn, and keeps it for the next network. Any thread may
    call it.

    workers: their number for all networks; if there are more workers than networks, a process has the CPUs of
    several workers. data: all rows; handles: its splits in the shared memory of this node. least, most:
    limits for growing into free CPUs by more turns; if they are equal, the pool does not grow. early:
    processes that were started early; those that are not needed are ended.
    """

    def __init__(
        self,
        turns: TrainingTurns,
        workers: int,
        data: WholeData,
        handles: Mapping[str, SharedRows],
        least: int = 0,
        most: int = 0,
        early: HeadStart | None = None,
    ) -> None:
        self.turns = turns
        self._data = data
        self._handles = handles
        self._least, self._most = least, most
        self._here = ray.get_runtime_context().get_node_id()
        # Prefers this node, where memory is shared; if it has no room, any other node.
        self._where: Any = NodeAffinitySchedulingStrategy(self._here, soft=True, _spill_on_unavailable=True)
        self._refused: set[str] = set()  # nodes that would compute other bits
        self._asked: int | None = None  # the number that `scale` was called with last
        self._set(workers)
        self._early = early
        if early is not None:  # they have one CPU each
            early.keep(turns.at_a_time if self.cpus == 1 else 0)
        self._numbers = itertools.count(1)
        self._free: list[LentWorker] = []
        self._lent: set[LentWorker] = set()
        self._sent: Any = None  # a reference of the rows as one object
        self._lock = threading.Lock()
        self._loading = threading.Lock()
        self._grown = time.monotonic()

    @property
    def workers(self) -> int:
        """How many workers train now, of one CPU each."""
        return self.turns.at_a_time * self.cpus

    def take(
        self, blueprint: Blueprint, check: Callable[[], None], changed: Callable[[str], None]
    ) -> LentWorker:
        """Lends a free or a new worker; waits for it. Calls `check` meanwhile, which may raise an error, and
        `changed` with the reason when a worker is refused.

        Raises ServerLostError if the worker dies while it starts, FingerprintError if every node would
        compute other bits, ExchangeError if for START_S no network has a worker and none can start."""
        actor = beginning = None
        until = time.monotonic() + START_S
        try:
            while True:
                check()
                with self._lock:
                    if self._free:
                        self._lent.add(free := self._free.pop(0))
                        return free
                    if beginning is None:
                        cpus = self.cpus
                        actor = head_start.worker(self._early, self._where, blueprint.kernels, cpus)
                        beginning = actor.begin.remote(blueprint.slim())
                    if self._lent:
                        until = time.monotonic() + START_S
                if ray.wait([beginning], timeout=LOOK_S)[0]:
                    place = _place(beginning)
                    refused = self._why_refused(place, blueprint.kernels, cpus)
                    if not refused:
                        with self._lock:
                            self._lent.add(lent := LentWorker(next(self._numbers), actor, place, cpus))
                        actor = None
                        return lent
                    changed(refused)
                    end_actor(actor, place, self._here, None)
                    actor = beginning = None
                elif time.monotonic() > until:
                    free_cpus = ray.available_resources().get("CPU", 0)
                    raise ExchangeError(
                        f"no worker of {counted(cpus, 'CPU')} could be started within {START_S:g} s: the"
                        f" cluster has {free_cpus:g} CPUs free. Ask for fewer workers, or add CPUs"
                    )
        finally:
            if actor is not None:
                end_actor(actor, None, self._here, None)

    def _why_refused(self, place: Place, kernels: str, cpus: int) -> str:
        """The reason to refuse a worker that would compute other bits; "" if it computes the same. After a
        refusal no worker starts on its node. Raises FingerprintError if no other node has `cpus` CPUs."""
        try:
            mine = numerics.fingerprint(kernels)
            numerics.check_same(mine, place.fingerprint, f"a worker on node {place.node[:12]}")
            return ""
        except FingerprintError as error:
            with self._lock:
                self._refused.add(place.node)
                self._where = NodeLabelSchedulingStrategy({"ray.io/node-id": NotIn(*self._refused)})
                left = [node for node in ray.nodes() if node["NodeID"] not in self._refused]
            if not any(node["Alive"] and node["Resources"].get("CPU", 0.0) >= cpus for node in left):
                raise
            return str(error)

    def give_back(self, worker: LentWorker) -> None:
        """Takes back a worker that waits for calls. Ends it if no other network needs it."""
        with self._lock:
            self._lent.discard(worker)
            self._free.append(worker)
            ending = self._surplus(self.turns.left - 1)
        self._end(ending)

    def lose(self, worker: LentWorker) -> None:
        """Ends a worker that died, gives no sign of life, or is in the middle of a call."""
        with self._lock:
            self._lent.discard(worker)
        self._end([worker])

    def _surplus(self, networks: int) -> list[LentWorker]:
        """Takes out the free workers that have another number of CPUs, or are more than `networks` need. The
        caller holds the lock, and ends them without it."""
        fit = [worker for worker in self._free if worker.cpus == self.cpus]
        kept = fit[: max(0, min(networks, self.turns.may_train) - len(self._lent))]
        surplus = [worker for worker in self._free if worker not in kept]
        self._free = kept
        return surplus

    def _end(self, workers: Iterable[LentWorker]) -> None:
        for worker in workers:
            end_actor(worker.actor, worker.place, self._here, None)

    def rows_for(self, worker: LentWorker) -> Any:
        """All rows, for a call to a worker: handles on shared memory on this node; else a reference to one
        object, which is sent to each node once and mapped there."""
        if worker.place.node == self._here:
            return self._handles
        with self._lock:
            if self._sent is None:
                self._sent = ray.put(plain(self._data.splits))
            return self._sent

    def scale(self, workers: int) -> bool:
        """Sets the number of workers for all networks. From now on free CPUs do not change it.

        Returns whether the number differs from that of the last call."""
        with self._lock:
            before, self._asked = self._asked, workers
            self._least = self._most = 0
            self._set(workers)
            ending = self._surplus(self.turns.left)
        self._end(ending)
        return workers != before

    def _set(self, workers: int) -> None:
        rooms = [node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"]]
        self.cpus = membership.cpus_each(rooms, max(1, self.turns.left), workers)  # of each worker
        self.turns.resize(workers // self.cpus)

    def grow(self) -> None:
        """Adapts the number of networks that train at the same time to the free CPUs, within the limits. Ends
        free workers that are not needed."""
        with self._lock:
            ending = self._surplus(self.turns.left)
            least, most = self._least, self._most
            due = most > least and time.monotonic() - self._grown >= GROW_S
            if due:
                self._grown = time.monotonic()
        self._end(ending)
        if not due:
            return
        free = ray.available_resources().get("CPU", 0.0)
        now, wanted = self.turns.training, self.turns.may_train
        wanted = membership.target(now, wanted, least, min(most, self.turns.left), free, awaited_cpus())
        with self._lock:
            if (self._least, self._most) == (least, most):  # else `scale` was called meanwhile
                self.turns.resize(wanted)

    def load_kernels(self, name: str) -> None:
        """Loads a kernel set into this process, which two threads cannot do at once."""
        with self._loading, suppress(ImportError):
            from distbp.nn import kernels as kernel_sets

            if kernel_sets.load(name).gemm is not None:
                from distbp.nn import run_compiled  # noqa: F401 - imports the compiled ops

    def close(self) -> None:
        """Ends all workers; does not wait."""
        with self._lock:
            workers = [*self._free, *self._lent]
            self._free.clear()
            self._lent.clear()
        self._end(workers)
        if self._early is not None:
            self._early.dismiss()
        with suppress(RayError):
            self._sent = None


def _place(beginning: Any) -> Place:
    """The place of a worker that has begun. Raises ServerLostError if it died."""
    try:
        place: Place = ray.get(beginning)
    except GONE as error:
        raise ServerLostError(f"a worker could not start ({short(error)})") from None
    return place


def plain(splits: Mapping[str, PreparedRows]) -> dict[str, PreparedRows]:
    """The rows of all splits, to be sent. Inputs that are mapped from a file are read when they are sent."""
    return {
        name: PreparedRows(
            np.asarray(rows.inputs), rows.targets, rows.weights, rows.preprocessing, windows=rows.windows
        )
        for name, rows in splits.items()
    }
