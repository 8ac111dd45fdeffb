"""`workers: auto`: try, measure, keep the fastest. It may, because the bits do not depend on it.

Every step taken while measuring is a step of the job, so nothing is thrown away. Training begins inline. When
what is left would take long enough to repay the start of Ray, the same job goes on with workers for a
moment, and the faster way stays.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from distbp.blueprint import Blueprint
from distbp.data.batches import WholeData
from distbp.evaluation import Evaluation
from distbp.exchange.base import Snapshot, Team
from distbp.exchange.inline import InlineTeam
from distbp.nn.arrays import Array
from distbp.schedules import PlateauState

MEASURE_S = 0.5  # of steps, for each way
WARM_UP_STEPS = 3
REPAY_S = 15.0  # time left, inline, below which starting Ray is not worth it
BETTER = 1.05  # times as fast as inline, to be worth other processes


class AutoTeam:
    """A `Team` that chooses among others. `on_ray(blueprint, data, snapshot, attempt, changed, workers)`.

    off_ray: called when workers proved not to be worth it; does not wait."""

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
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._off_ray = off_ray
        self._make: Callable[[Snapshot, int], Team] = lambda start, workers: on_ray(
            blueprint, data, start, attempt, changed, workers
        )
        self._inline: Callable[[Snapshot], Team] = lambda start: InlineTeam(
            blueprint, data, start, attempt, changed=changed
        )
        self._team: Team = self._inline(snapshot)
        self._changed = changed
        self._shards = blueprint.shards
        self._total = blueprint.total_steps
        self._speeds: dict[int, float] = {}  # workers -> steps a second
        self._candidates = candidates(os.cpu_count() or 1, blueprint.shards)
        self._decided = not self._candidates
        if self._decided:
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
        """Whoever asks for a number knows better than a measurement."""
        self._decided = True
        if workers and self._team.workers:
            return self._team.scale(workers)
        if workers != self._team.workers:
            self._change(workers)
        return None

    def close(self) -> None:
        self._team.close()

    def _next(self, step: int) -> None:
        """One way is measured; on to the next, or to the decision."""
        now = self._team.workers
        self._speeds[now] = self._steps / self._seconds
        left_s = (self._total - step) / self._speeds[0]
        if self._candidates and left_s > REPAY_S:
            self._change(self._candidates.pop(0))
            self._warm_up, self._steps, self._seconds = WARM_UP_STEPS, 0, 0.0
            return
        best = choose(self._speeds)
        if best != now:
            self._change(best)
        if best == 0:
            self._off_ray()
        self._decided = True
        measured = ", ".join(f"{n} workers {v:,.0f}" for n, v in sorted(self._speeds.items()))
        why = f"steps a second: {measured}"
        if len(self._speeds) == 1:
            why += f"; {left_s:.0f} s are left, too few to repay the start of other processes"
        self._changed(f"workers: auto chose {best} ({why})")

    def _change(self, workers: int) -> None:
        snapshot = self._team.snapshot()
        fresh = Snapshot(snapshot.step, {k: v.copy() for k, v in snapshot.arrays.items()}, snapshot.health)
        self._team.close()
        self._team = self._make(fresh, workers) if workers else self._inline(fresh)


def candidates(cpus: int, shards: int) -> list[int]:
    """Numbers of workers worth a try: as many as can work at once, and half of that."""
    most = min(cpus, shards)
    return [n for n in dict.fromkeys((most, most // 2)) if n > 1]


def choose(speeds: dict[int, float]) -> int:
    """The fastest number of workers; inline (0) unless another is clearly faster."""
    best = max(speeds, key=lambda n: speeds[n])
    return best if speeds[best] >= BETTER * speeds[0] else 0
