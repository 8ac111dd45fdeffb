"""Processes of a team that start as soon as Ray is there.

They load the modules that they will need while the trainer reads the job and its data.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from distbp.team.ray.actors import Server, WorkerProcess


class HeadStart:
    """Actors on this node that do not know their job yet (see `distbp.team.ray.actors`).

    workers: how many to start, at most one for each CPU of this node. kernels: the kernel set that they load,
    as in the setting DISTBP_KERNELS. The constructor asks for the actors and does not wait for them."""

    def __init__(self, workers: int, kernels: str) -> None:
        here = ray.get_runtime_context().get_node_id()
        cpus = int(next((n["Resources"].get("CPU", 0) for n in ray.nodes() if n["NodeID"] == here), 0))
        self._servers: list[Any] = []
        self._workers: list[Any] = []
        if cpus < 1:  # then the team will be on other nodes
            return
        pinned = NodeAffinitySchedulingStrategy(here, soft=False)
        self._servers.append(Server.options(scheduling_strategy=pinned).remote(kernels, True))
        first = NodeAffinitySchedulingStrategy(here, soft=True, _spill_on_unavailable=True)
        count = min(workers, cpus)
        for number in range(count):
            patient = number < count - 1
            self._workers.append(WorkerProcess.options(scheduling_strategy=first).remote(kernels, patient))

    def dismiss(self) -> None:
        """Ends the actors that were not taken."""
        self.keep(0)

    def keep(self, workers: int) -> None:
        """Ends the server's actor and the workers' actors that were not taken, but keeps the first
        `workers`."""
        for actor in [*self._servers, *self._workers[workers:]]:
            with suppress(RayError):
                ray.kill(actor)
        self._servers.clear()
        del self._workers[workers:]

    def take_server(self) -> Any:
        """The server's actor at the first call, then None."""
        return self._servers.pop() if self._servers else None

    def take_worker(self) -> Any:
        """A worker's actor, or None if none is left."""
        return self._workers.pop(0) if self._workers else None


def server(early: HeadStart | None, where: Any, kernels: str) -> Any:
    """A server's actor: the one that was started early, else a new one with the scheduling strategy
    `where`."""
    return (early and early.take_server()) or Server.options(scheduling_strategy=where).remote(kernels)


def worker(early: HeadStart | None, where: Any, kernels: str, cpus: int = 1) -> Any:
    """A worker's actor: one that was started early, else a new one with the scheduling strategy `where`.

    cpus: how many it reserves; actors that were started early have one."""
    if (early and cpus == 1) and (started := early.take_worker()):
        return started
    return WorkerProcess.options(scheduling_strategy=where, num_cpus=cpus).remote(kernels)
