"""A team that replaces its inner team by another: on request, and for `workers: auto` to find the fastest.
The bits do not depend on the choice.

Every step taken while measuring is a step of the job, so no work is lost. Training begins inline. If the rest
would take long enough to repay the start of Ray, the same job goes on with workers for a moment, and the
faster way stays. `distbp plan` predicts the speeds, and chooses by the same `choose`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from distbp.core import settings
from distbp.core.arrays import Array
from distbp.core.errors import ExchangeError, Interrupted
from distbp.data.batches import WholeData
from distbp.engine.blueprint import Blueprint
from distbp.engine.evaluation import Evaluation
from distbp.optim.schedules import PlateauState
from distbp.team.base import Snapshot, Team
from distbp.team.inline import InlineTeam

MEASURE_S = 0.5  # the time that each way is measured
WARM_UP_STEPS = 3
RAY_START_S = 5.0  # the time to start an embedded Ray with its workers
REPAY_S = 3 * RAY_START_S  # Ray is not tried if the rest takes less time inline
BETTER = 1.05  # times as fast as inline: workers must be at least that fast


class AutoTeam:
    """A `Team` that chooses among teams. `on_ray(blueprint, data, snapshot, attempt, changed, workers)` makes
    one with workers.

    off_ray: called when workers are no longer needed; does not wait. begin: the team to begin with, which
    stays until `scale`; None: measures. changed, waiting: see `RayTeam`, `InlineTeam`. clock: returns
    seconds."""

    def __init__(
        self,
        blueprint: Blueprint,
        data: WholeData,
        snapshot: Snapshot,
        attempt: int,
        on_ray: Callable[..., Team],
        changed: Callable[[str], None],
        off_ray: Callable[[], None] = lambda: None,
        *,
        begin: Team | None = None,
        waiting: Callable[[str], None] = lambda what: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._off_ray = off_ray
        self._make: Callable[[Snapshot, int], Team] = lambda start, workers: on_ray(
            blueprint, data, start, attempt, changed, workers
        )
        self._inline: Callable[[Snapshot], Team] = lambda start: InlineTeam(
            blueprint, data, start, attempt, waiting=waiting
        )
        self._team: Team = begin or self._inline(snapshot)
        self._changed = changed
        self._total = blueprint.total_steps
        self._speeds: dict[int, float] = {}  # workers -> steps a second
        self._candidates = candidates(settings.processors(), blueprint.shards)
        self._left = 0  # steps, when inline was measured
        self._decided = begin is not None or not self._candidates
        if begin is None and self._decided:
            changed("workers: auto chose 0 (one shard, or one processor: nothing to share)")
        self._warm_up = WARM_UP_STEPS
        self._steps = 0
        self._seconds = 0.0

    @property
    def exchange(self) -> str:
        return self._team.exchange

    @property
    def workers(self) -> int:
        return self._team.workers

    def run(self, first: int, stop: int, plateau: PlateauState, stopping: Callable[[], bool]) -> int:
        if self._decided:
            return self._team.run(first, stop, plateau, stopping)
        if self._warm_up:
            reached = self._team.run(first, min(stop, first + self._warm_up), plateau, stopping)
            self._warm_up -= reached - first
            return reached
        began = self._clock()
        until = began + MEASURE_S - self._seconds
        reached = self._team.run(first, stop, plateau, lambda: self._clock() > until or stopping())
        self._steps += reached - first
        self._seconds += self._clock() - began
        if self._seconds >= MEASURE_S:
            self._next(reached)
        return reached

    def evaluate(self, split: str) -> Evaluation:
        return self._team.evaluate(split)

    def snapshot(self, whole: bool = True) -> Snapshot:
        return self._team.snapshot(whole)

    def adopt(self, vector: Array) -> bool:
        return self._team.adopt(vector)

    def scale(self, workers: int) -> str | None:
        """Asks for a number of workers; no measurement changes it later."""
        self._decided = True
        if workers and self._team.workers:
            return self._team.scale(workers)
        if workers == self._team.workers:
            return None
        refused = self._change(workers)
        if not self._team.workers:
            self._off_ray()
        return refused

    def close(self) -> None:
        self._team.close()

    def _next(self, step: int) -> None:
        """Records the speed of the way just measured. Then tries the next way, or decides."""
        now = self._team.workers
        self._speeds[now] = self._steps / self._seconds
        self._left = self._left or self._total - step
        if self._candidates and repays(self._speeds[0], self._left):
            refused = self._change(self._candidates.pop(0))
            self._warm_up, self._steps, self._seconds = WARM_UP_STEPS, 0, 0.0
            if refused is not None:
                self._decided = True
                self._off_ray()
                self._changed(f"workers: auto chose 0 ({refused})")
            return
        best = choose(self._speeds, self._left)
        if best != now:
            self._change(best)
        if best == 0:
            self._off_ray()
        self._decided = True
        measured = ", ".join(f"{n} workers {v:,.0f}" for n, v in sorted(self._speeds.items()))
        why = f"steps a second: {measured}"
        if len(self._speeds) == 1:
            left_s = self._left / self._speeds[0]
            why += f"; {left_s:.0f} s are left, too few to repay the start of other processes"
        self._changed(f"workers: auto chose {best} ({why})")

    def _change(self, workers: int) -> str | None:
        """Replaces the inner team by one with this number of workers. If that fails, goes on inline and
        returns the reason."""
        snapshot = self._team.snapshot()
        fresh = Snapshot(snapshot.step, {k: v.copy() for k, v in snapshot.arrays.items()}, snapshot.health)
        self._team.close()
        if workers:
            try:
                self._team = self._make(fresh, workers)
                return None
            except (ExchangeError, Interrupted) as error:
                refused = "the run is to stop" if isinstance(error, Interrupted) else str(error)
                self._team = self._inline(fresh)
                return refused
        self._team = self._inline(fresh)
        return None


def candidates(cpus: int, shards: int) -> list[int]:
    """The numbers of workers to try: as many as can work at the same time, and half of that."""
    most = min(cpus, shards)
    return [n for n in dict.fromkeys((most, most // 2)) if n > 1]


def repays(inline: float, steps: int) -> bool:
    """Whether `steps` steps may repay the start of Ray. inline: steps a second without it."""
    return steps / inline > REPAY_S


def choose(speeds: Mapping[int, float], steps: int) -> int:
    """The best number of workers for `steps` more steps. speeds: number of workers -> steps a second, with 0
    for inline. Returns the fastest number if it is clearly faster than inline and repays Ray's start, else
    0."""
    best = max(speeds, key=lambda n: speeds[n])
    return best if speeds[best] >= BETTER * speeds[0] and repays(speeds[0], steps) else 0
