"""The server's rounds. A round publishes a step, gathers its blocks, and applies the update."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from distbp.core.arrays import Array
from distbp.engine.parameter_server import Contribution, ParameterServer
from distbp.optim.schedules import PlateauState
from distbp.team.exchange.gathering import Gathering
from distbp.team.exchange.local_workers import LocalWorkers

IDLE_WAIT_S = 0.05  # between two checks for late answers
LATE_FLOOR_S = 0.25  # no answer is late before this
LONG_STEP_S = 0.02  # compiled rounds do not pay for longer steps, and do not wait that long


class Remote(Protocol):
    """Nodes whose answers do not come through the segment of this node."""

    def publish(self, step: int, vector: Array) -> None: ...

    def rest(self, step: int, vector: Array) -> None:
        """Tells them that the vector is that of `step`, and to wait for the next `publish`."""
        ...

    def take(self, step: int, gathering: Gathering[Contribution]) -> None:
        """Offers the sums that came in for `step` since the last call to `gathering`. Does not wait."""
        ...


def _compiled(server: ParameterServer, workers: LocalWorkers, stop_asked: Array) -> Any:
    if not server.updater.compiled:  # without compiled code, Numba is not loaded
        return None
    from distbp.team.exchange.compiled_rounds import compiled_rounds

    return compiled_rounds(server, workers, stop_asked)


class Rounds:
    """Drives a `ParameterServer` whose vector is that of the segment.

    remote: other nodes, or None. late_factor: an answer is late after this many times the usual time of a
    step; workers that have answered then compute the late shards, too. 0 turns that off. clock: returns
    seconds."""

    def __init__(
        self,
        server: ParameterServer,
        workers: LocalWorkers,
        *,
        remote: Remote | None = None,
        late_factor: float = 4.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.server = server
        self.workers = workers
        self._remote = remote
        self._late_factor = late_factor
        self._clock = clock
        self._gathering: Gathering[Contribution] = Gathering(server.blueprint.shards)
        self._stop_asked = np.zeros(1, np.int64)
        self._usual_s = 0.0
        self._compiled = _compiled(server, workers, self._stop_asked)

    def stop_soon(self, stretch: int) -> None:
        """Makes `run` of that stretch return after the step in progress. Does not wait.

        Another thread calls it, possibly before `run`, after it, or after the call for the next stretch."""
        self._stop_asked[0] = max(self._stop_asked[0], stretch)

    def run(self, stretch: int, first: int, stop: int, plateau: PlateauState) -> int:
        """Trains steps `first` to `stop - 1`; waits. Returns the next step.

        stretch: a greater number than any earlier call had, from 1 on. Raises NotFiniteError before it
        applies a step with NaN or Inf, and CorruptionError if an audit finds a difference."""
        server, gathering = self.server, self._gathering
        step = first
        try:
            while step < stop and self._stop_asked[0] != stretch:
                done = self._run_compiled(stretch, step, stop, plateau)
                if done:
                    step += done
                    continue
                began = self._clock()
                gathering.start()
                server.probe()
                self.workers.publish(step)
                if self._remote:
                    self._remote.publish(step, server.vector)
                self._gather(step, began)
                server.apply(step, [c for _, c in gathering.answers()], plateau)
                step += 1
                self._note(self._clock() - began)
        finally:
            self.rest()
        return step

    def rest(self) -> None:
        """Publishes the vector for evaluation, without a step to compute."""
        self.workers.rest(self.server.step)
        if self._remote:
            self._remote.rest(self.server.step, self.server.vector)

    def _run_compiled(self, stretch: int, step: int, stop: int, plateau: PlateauState) -> int:
        """Trains some steps in one compiled call. Returns how many; 0 if the next step cannot be compiled."""
        if self._compiled is None or self._usual_s > LONG_STEP_S:
            return 0
        began = self._clock()
        done: int = self._compiled.run(stretch, step, stop, plateau)
        if done:
            self._note((self._clock() - began) / done)
        return done

    def _note(self, took_s: float) -> None:
        self._usual_s = took_s if self._usual_s == 0 else 0.9 * self._usual_s + 0.1 * took_s

    def _gather(self, step: int, began: float) -> None:
        workers, gathering = self.workers, self._gathering
        helped = False
        while True:
            seen = workers.arrivals
            workers.take(step, gathering)
            if self._remote:
                self._remote.take(step, gathering)
            if gathering.complete and workers.settled:
                return
            if not workers.wait(seen, IDLE_WAIT_S) and self._late_factor and not helped:
                late = max(LATE_FLOOR_S, self._late_factor * self._usual_s)
                missing = gathering.missing()
                if missing and self._clock() - began > late:
                    helped = workers.help_out(step, missing)
