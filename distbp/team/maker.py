"""Makes the team that trains: inline, or a parameter server and workers on Ray."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any, Self

from distbp.core import settings
from distbp.core.errors import Interrupted
from distbp.core.interrupts import Control
from distbp.data.batches import WholeData
from distbp.engine.blueprint import Blueprint
from distbp.job import WorkerRange
from distbp.team.base import Snapshot, Team
from distbp.team.exchange.faults import FaultPlan
from distbp.team.exchange.shared_data import SharedRows, share_rows
from distbp.team.inline import InlineTeam
from distbp.team.membership import Options
from distbp.team.ray.session import RaySession, installed
from distbp.team.training_turns import TrainingTurns

Changed = Callable[[str], None]


class TeamMaker:
    """Makes the team of each attempt. workers: a number, "auto" or a range. address: of a Ray cluster.
    control: may stop the run while a team is made; making it then raises Interrupted. session: a connection
    to Ray that the caller has made, and will close. waiting: called with a text before each long wait.

    A context manager. If workers are certain to be needed, Ray begins to start (or is joined) on entering,
    while the caller opens the data. For "auto" it starts when it is first needed, and is left again if inline
    is faster. Inline training never imports Ray. The end of the block leaves Ray.
    """

    def __init__(
        self,
        workers: int | str | WorkerRange,
        address: str | None = None,
        control: Control | None = None,
        faults: FaultPlan | None = None,
        session: RaySession | None = None,
        waiting: Callable[[str], None] = lambda what: None,
    ) -> None:
        self._workers = workers
        self._address = address
        self._faults = faults
        self._stack = ExitStack()
        self._handles: dict[str, SharedRows] | None = None
        self._ray = session
        self._control = control or Control()
        self._waiting = waiting

    def __enter__(self) -> Self:
        least, most = limits(self._workers)
        if most:
            self._start_ray(most, least)
        return self

    def _start_ray(self, most: int, workers: int) -> RaySession:
        """`most`: the largest number of workers; `workers`: the number to begin with."""
        if self._ray is not None and self._ray.left:
            self._ray.close()
            self._ray = None
        if self._ray is None:
            self._ray = RaySession(max(os.cpu_count() or 1, most) + 1, self._address, workers)
            self._stack.callback(self._ray.close)
        return self._ray

    def _check(self) -> None:
        if self._control.stopping:
            raise Interrupted("", None, self._control.stopped_by)

    def _leave_ray(self) -> None:
        """Leaves Ray, because its helper processes take some percent of a processor."""
        if self._ray is not None:
            self._ray.leave()

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def __call__(
        self, blueprint: Blueprint, data: WholeData, snapshot: Snapshot, attempt: int, changed: Changed
    ) -> Team:
        if self._workers == "auto" and not installed():
            changed("workers: auto chose 0 (Ray is not installed)")
            return InlineTeam(blueprint, data, snapshot, attempt, waiting=self._waiting)
        from distbp.team.auto import AutoTeam

        begin: Team | None = None
        least, most = limits(self._workers)
        if most:
            begin = self._on_ray(blueprint, data, snapshot, attempt, changed, least, least, most)
        elif self._workers == 0:
            begin = InlineTeam(blueprint, data, snapshot, attempt, waiting=self._waiting)
        return AutoTeam(
            blueprint, data, snapshot, attempt, self._on_ray, changed, self._leave_ray,
            begin=begin, waiting=self._waiting,
        )  # fmt: skip

    def _on_ray(
        self,
        blueprint: Blueprint,
        data: WholeData,
        snapshot: Snapshot,
        attempt: int,
        changed: Changed,
        workers: int,
        least: int = 0,
        most: int = 0,
    ) -> Team:
        session = self._joined(workers, most, self._waiting)
        from distbp.team.ray.ray_team import RayTeam  # imports Ray: only within the session

        handles = self._shared(data)
        self._waiting(f"starting the parameter server and {workers} worker{'s' if workers != 1 else ''}")
        options = Options(workers, least, most, servers=blueprint.job.servers, faults=self._faults)
        early = session.head_start
        team = RayTeam(blueprint, data, snapshot, attempt, options, handles, changed, early, self._check)
        if early is not None:
            early.dismiss()
        return team

    def apart(
        self, data: WholeData, turns: TrainingTurns, waiting: Callable[[str], None]
    ) -> Callable[..., Team]:
        """Makes the teams of several networks that train at the same time, each within one worker.

        Returns a function that any thread may call: (number of a network that has its turn, and the arguments
        of `TeamMaker.__call__`) -> team. waiting: called with a text before each long wait, in any of these
        threads."""
        making = threading.Lock()
        pools: list[Any] = []  # the pool, once Ray is there

        def team(
            number: int,
            blueprint: Blueprint,
            own: WholeData,
            snapshot: Snapshot,
            attempt: int,
            changed: Changed,
        ) -> Team:
            with making:
                pools[:] = pools or [self._pool(data, turns, waiting)]
            from distbp.team.ray.apart import ApartTeam  # imports Ray: only within the session

            rows = None if own.splits is data.splits else own.splits
            return ApartTeam(pools[0], number, blueprint, rows, snapshot, attempt, changed, self._check)

        return team

    def _pool(self, data: WholeData, turns: TrainingTurns, waiting: Callable[[str], None]) -> Any:
        least, most = limits(self._workers)
        session = self._joined(least, most, waiting)
        from distbp.team.ray.worker_pool import WorkerPool  # imports Ray: only within the session

        pool = WorkerPool(turns, least, data, self._shared(data), least, most, session.head_start)
        self._stack.callback(pool.close)
        return pool

    def _joined(self, workers: int, most: int, waiting: Callable[[str], None]) -> RaySession:
        """The session; waits until Ray is there. Raises ExchangeError, Interrupted."""
        session = self._start_ray(max(workers, most), workers)
        there = self._address or settings.get("RAY_ADDRESS")
        waiting("joining Ray" if there else "starting Ray, which takes some seconds")
        session.wait(self._check)
        return session

    def _shared(self, data: WholeData) -> Mapping[str, SharedRows]:
        """The splits, in memory that the processes of this node share until this maker is closed."""
        if self._handles is None:
            self._handles = {}
            for name, rows in data.splits.items():
                memory, self._handles[name] = share_rows(rows)
                self._stack.callback(memory.close)
        return self._handles


def limits(workers: Any) -> tuple[int, int]:
    """The least and the largest number of workers of a number or a range; (0, 0) for "auto"."""
    if isinstance(workers, WorkerRange):
        return workers.min, workers.max
    return (workers, workers) if isinstance(workers, int) else (0, 0)
