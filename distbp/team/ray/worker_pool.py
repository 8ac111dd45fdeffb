"""Workers on Ray that are lent out one by one, each to a team of its own (see `distbp.team.ray.apart`)."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from distbp.core.errors import ExchangeError, ServerLostError
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

START_S = 120.0  # to wait for a worker to start where no other works
GROW_S = 1.0  # between two looks at free CPUs


@dataclass(frozen=True, eq=False)
class Lent:
    """A worker of the pool. number: from 1 on, in the order in which they came. cpus: that it computes on."""

    number: int
    actor: Any
    place: Place
    cpus: int


class WorkerPool:
    """A worker for each network that has its turn; it is kept for the next one. Any thread may call it.

    workers: how many there are for all networks; where they are more than networks, a process has the CPUs of
    several. data: all rows; handles: its splits in the shared memory of this node. least, most: limits for
    growing into free CPUs, by more turns; equal: do not. early: processes that were started before; those
    that are not needed end.
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
        # First this node, where memory is shared; if there is no room, any other.
        self._where = NodeAffinitySchedulingStrategy(self._here, soft=True, _spill_on_unavailable=True)
        self._set(workers)
        self._early = early
        if early is not None:  # they have one CPU each
            early.keep(turns.workers if self.cpus == 1 else 0)
        self._numbers = itertools.count(1)
        self._free: list[Lent] = []
        self._lent: set[Lent] = set()
        self._sent: Any = None  # a reference of the rows as one object
        self._lock = threading.Lock()
        self._loading = threading.Lock()
        self._grown = time.monotonic()
        self._closed = False

    @property
    def workers(self) -> int:
        """That train now, each on one CPU."""
        return self.turns.workers * self.cpus

    def take(self, blueprint: Blueprint, check: Callable[[], None]) -> Lent:
        """A worker for a team of its own; waits for it. Calls `check` meanwhile, which may raise an error.

        Raises ServerLostError if it dies while it starts, FingerprintError if it would compute other bits,
        ExchangeError if there is no room for any."""
        actor = beginning = None
        until = time.monotonic() + START_S
        try:
            while beginning is None or not ray.wait([beginning], timeout=LOOK_S)[0]:
                check()
                with self._lock:
                    if self._free:
                        self._lent.add(free := self._free.pop(0))
                        return free
                    if beginning is None:
                        cpus = self.cpus
                        actor = head_start.worker(self._early, self._where, blueprint.kernels, cpus)
                        beginning = actor.begin.remote(blueprint.slim())
                    alone = not self._lent
                if alone and time.monotonic() > until:
                    free_cpus = ray.available_resources().get("CPU", 0)
                    raise ExchangeError(
                        f"no worker of {counted(cpus, 'CPU')} could be started within {START_S:g} s: the"
                        f" cluster has {free_cpus:g} CPUs free. Ask for fewer workers, or add CPUs"
                    )
            try:
                place = ray.get(beginning)
            except GONE as error:
                raise ServerLostError(f"a worker could not start ({short(error)})") from None
            mine = numerics.fingerprint(blueprint.kernels)
            numerics.check_same(mine, place.fingerprint, f"a worker on node {place.node[:12]}")
            with self._lock:
                self._lent.add(lent := Lent(next(self._numbers), actor, place, cpus))
            actor = None
            return lent
        finally:
            if actor is not None:
                end_actor(actor, None, self._here, None)

    def give_back(self, worker: Lent) -> None:
        """Takes a worker back that waits for calls. It ends if nobody waits for it."""
        with self._lock:
            self._lent.discard(worker)
            keep = self.turns.awaited and not self._closed and worker.cpus == self.cpus
            if keep:
                self._free.append(worker)
        if not keep:
            end_actor(worker.actor, worker.place, self._here, None)

    def lose(self, worker: Lent) -> None:
        """Ends a worker that died, that gives no sign of life, or that is in the middle of a call."""
        with self._lock:
            self._lent.discard(worker)
        end_actor(worker.actor, worker.place, self._here, None)

    def rows_for(self, worker: Lent) -> Any:
        """All rows, for a call to a worker: the names of the shared ones, or a reference of one object, which
        crosses to each node once and is mapped there."""
        if worker.place.node == self._here:
            return self._handles
        with self._lock:
            if self._sent is None:
                self._sent = ray.put({name: _plain(rows) for name, rows in self._data.splits.items()})
            return self._sent

    def scale(self, workers: int) -> None:
        """Sets how many workers there are for all networks. From now on free CPUs do not change that."""
        self._least = self._most = 0
        with self._lock:
            self._set(workers)
            unfit = [worker for worker in self._free if worker.cpus != self.cpus]
            self._free = [worker for worker in self._free if worker.cpus == self.cpus]
        for worker in unfit:
            end_actor(worker.actor, worker.place, self._here, None)

    def _set(self, workers: int) -> None:
        rooms = [node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"]]
        self.cpus = membership.cpus_each(rooms, max(1, self.turns.left), workers)  # of each worker
        self.turns.resize(workers // self.cpus)

    def grow(self) -> None:
        """Sets how many networks train at a time by the CPUs that are free, where it may."""
        if self._most <= self._least or time.monotonic() - self._grown < GROW_S:
            return
        self._grown = time.monotonic()
        free = ray.available_resources().get("CPU", 0.0)
        now, wanted = self.turns.training, self.turns.at_a_time
        most = min(self._most, self.turns.left)
        self.turns.resize(membership.target(now, wanted, self._least, most, free, awaited_cpus()))

    def load_kernels(self, name: str) -> None:
        """Loads a kernel set into this process, which two threads cannot do at once."""
        with self._loading, suppress(ImportError):
            from distbp.nn import kernels as kernel_sets

            if kernel_sets.load(name).gemm is not None:
                from distbp.nn import run_compiled  # noqa: F401 - imports the compiled ops

    def close(self) -> None:
        """Ends all workers; does not wait."""
        with self._lock:
            self._closed = True
            workers = [*self._free, *self._lent]
            self._free.clear()
            self._lent.clear()
        for worker in workers:
            end_actor(worker.actor, worker.place, self._here, None)
        if self._early is not None:
            self._early.dismiss()
        with suppress(RayError):
            self._sent = None


def _plain(rows: PreparedRows) -> PreparedRows:
    """The rows as they travel: what is mapped from a file is read when they are sent."""
    return PreparedRows(
        np.asarray(rows.inputs), rows.targets, rows.weights, rows.preprocessing, windows=rows.windows
    )
