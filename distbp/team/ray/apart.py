"""A team for a network that trains apart from others: all of it in one worker on Ray.

The trainer's process drives it by calls, one for a stretch of steps. When the worker dies or freezes, the
team raises ServerLostError; the trainer begins a new attempt from a checkpoint, with another worker. When
fewer networks may train at a time, the team gives up its worker between two steps, and waits for its turn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from distbp.core.arrays import Array
from distbp.core.errors import DistbpError, Interrupted, ServerLostError
from distbp.data.prepared import PreparedRows
from distbp.engine.blueprint import Blueprint
from distbp.engine.evaluation import Evaluation
from distbp.engine.parameter_server import NotFiniteError
from distbp.optim.schedules import PlateauState
from distbp.team.base import Snapshot
from distbp.team.membership import Options
from distbp.team.ray.heartbeats import Heartbeats
from distbp.team.ray.nodes import Node
from distbp.team.ray.recruiting import short, tell_of_cpus
from distbp.team.ray.worker_pool import LentWorker, WorkerPool, plain

WATCH_S = 0.05  # between two looks at the worker while steps run
FROZEN_S = Options.frozen_s
_ME = "worker"


class ApartTeam:
    """A `Team` of network `number`, which has its turn.

    rows: the rows of a network that has training rows of its own; None: it has those of the pool. changed:
    called with each change of the team, in words. check: called while a worker starts; may raise an error.
    The constructor waits for the worker. Raises as `WorkerPool.take`."""

    exchange = "inline"

    def __init__(
        self,
        pool: WorkerPool,
        number: int,
        blueprint: Blueprint,
        rows: Mapping[str, PreparedRows] | None,
        snapshot: Snapshot,
        attempt: int,
        changed: Callable[[str], None],
        check: Callable[[], None],
    ) -> None:
        self._pool = pool
        self._turns = pool.turns
        self._number = number
        self._blueprint = blueprint
        self._rows = rows
        self._attempt = attempt
        self._changed = changed
        self._check = check
        self._stretch = 0
        self.worker: LentWorker | None = None
        self._resting: Snapshot | None = None  # while it has no worker
        self._busy = False  # whether a call of the worker's team has not returned
        self._begin(snapshot)

    @property
    def workers(self) -> int:
        """How many workers all networks together have now."""
        return self._pool.workers

    def run(self, first: int, stop: int, plateau: PlateauState, stopping: Callable[[], bool]) -> int:
        if self._resting is None and self._is_to_move():
            self._rest()
        if self._resting is not None and not self._come_back(stopping):
            return first
        self._stretch += 1
        running = self._call("run", self._stretch, first, stop, plateau)
        asked_to_stop = False
        self._pool.grow()  # in every stretch, however short
        while not self._is_ready(running):
            self._pool.grow()
            if not asked_to_stop and (stopping() or self._is_to_move()):
                self._call("stop_soon", self._stretch)
                asked_to_stop = True
        outcome, step = self._answer(running)
        if outcome == "not finite":
            self._pool.load_kernels(self._blueprint.kernels)  # for the diagnosis, which follows
            raise NotFiniteError(step)
        return int(step)

    def evaluate(self, split: str) -> Evaluation:
        evaluation: Evaluation = self._answer(self._call("evaluate", split))
        return evaluation

    def snapshot(self, whole: bool = True) -> Snapshot:
        return self._resting or self._answer(self._call("snapshot", whole))

    def adopt(self, vector: Array) -> bool:
        self._answer(self._call("adopt", vector))
        return True

    def scale(self, workers: int) -> str | None:
        """Sets the number of workers for all networks, each of which trains one network."""
        if workers < 1:
            return "the networks need at least one worker"
        if self._pool.scale(workers):  # the trainers of all networks ask for the same number
            tell_of_cpus(workers, self._changed)
        return None

    def close(self) -> None:
        worker, self.worker = self.worker, None
        if worker is not None:
            (self._pool.lose if self._busy else self._pool.give_back)(worker)

    # The worker --------------------------------------------------------------------------------------------

    def _begin(self, snapshot: Snapshot) -> None:
        self.worker = worker = self._pool.take(self._blueprint, self._check, self._changed)
        self._heartbeats = Heartbeats(FROZEN_S)
        self._heartbeats.expect(_ME)
        try:
            rows = self._pool.rows_for(worker) if self._rows is None else plain(self._rows)
            self._busy = True
            hosting = worker.actor.host.remote(
                self._blueprint.slim(), snapshot, self._attempt, rows, worker.cpus
            )
            self._answer(hosting)
        except BaseException:
            self.close()
            raise
        self._resting = None

    def _is_to_move(self) -> bool:
        """Whether other networks go first now, or the workers have another number of CPUs."""
        assert self.worker is not None
        return self._turns.over(self._number) or self.worker.cpus != self._pool.cpus

    def _rest(self) -> None:
        """Gives up the worker and the turn."""
        self._resting = self.snapshot()
        self.close()
        self._turns.pause(self._number)
        self._changed(f"network {self._number} leaves its worker, and waits for its turn")

    def _come_back(self, stopping: Callable[[], bool]) -> bool:
        """Waits for the next turn, and for a worker. Returns False if `stopping()` became true before."""
        assert self._resting is not None
        while not self._turns.enter(self._number, WATCH_S):
            if stopping():
                return False
        try:
            self._begin(self._resting)
        except Interrupted:  # the trainer saves a checkpoint of the resting state
            return False
        self._changed(f"network {self._number} goes on, on another worker")
        return True

    def _call(self, name: str, *given: Any) -> Any:
        assert self.worker is not None
        self._busy = True
        return self.worker.actor.ask.remote(name, *given)

    def _is_ready(self, reference: Any) -> bool:
        """Waits at most WATCH_S. Raises ServerLostError if the worker is frozen."""
        assert self.worker is not None
        if ray.wait([reference], timeout=WATCH_S)[0]:
            return True
        if self._heartbeats.look({_ME: Node(self.worker.actor)}).nodes:
            raise self._lost(f"gave no sign of life for {FROZEN_S:g} s")
        return False

    def _answer(self, reference: Any) -> Any:
        """The answer to a call; waits. Raises its DistbpError, or ServerLostError if the worker has ended."""
        while not self._is_ready(reference):
            pass
        try:
            answer = ray.get(reference)
        except RayTaskError as error:
            raise error.cause if isinstance(error.cause, DistbpError) else error from None
        except RayError as error:
            raise self._lost(f"died ({short(error)})") from None
        self._busy = False
        return answer

    def _lost(self, why: str) -> ServerLostError:
        assert self.worker is not None
        worker, self.worker = self.worker, None
        self._pool.lose(worker)
        return ServerLostError(f"worker {worker.number}, which had network {self._number}, {why}")
