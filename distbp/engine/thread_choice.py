"""Chooses the number of threads that share the steps of a job: the number with the fastest steps at the time.

Threads meet in every step. If other programs use the processors, a thread may wait for milliseconds for a
thread that does not run, and fewer threads are faster. The number of threads changes no bit, so it may change
between any two steps.
"""

from __future__ import annotations

import math

# A trial takes some steps with another number of threads. Trials are repeated after a pause. The pause
# doubles after each trial that is slower than the best number.
TRIAL_STEPS = 16
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 8.0
SURELY_SLOWER = 3.0  # a trial ends early if its steps take this many times as long


class ThreadChoice:
    """Compares numbers of threads by the seconds that a step took. `counts`: these numbers, `most` first,
    then half of each until 1. Methods name a number by its index in `counts`. Times are seconds of a clock
    that is never set."""

    def __init__(self, most: int) -> None:
        self.counts = [most]
        while self.counts[-1] > 1:
            self.counts.append(self.counts[-1] // 2)
        self._seconds = [math.nan] * len(self.counts)  # of a step, at the last measurement
        self._measured = [-math.inf] * len(self.counts)  # the time of the last measurement
        self._best, self._pause, self._due = 0, 0.0, math.inf

    def next(self, now: float) -> int:
        """The index for the next steps: the best number, or a neighbor of it if a trial is due."""
        if now < self._due:
            return self._best
        neighbors = (n for n in (self._best - 1, self._best + 1) if 0 <= n < len(self.counts))
        return min(neighbors, key=lambda n: self._measured[n], default=self._best)

    def limit_s(self, index: int) -> float:
        """The most seconds that a step of a trial may take; infinite for the best number."""
        return math.inf if index == self._best else SURELY_SLOWER * self._seconds[self._best]

    def took(self, index: int, seconds: float, now: float) -> None:
        """Records the seconds that a step took."""
        self._seconds[index], self._measured[index] = seconds, now
        known = [n for n in range(len(self.counts)) if not math.isnan(self._seconds[n])]
        best = min(known, key=lambda n: self._seconds[n])
        if best != self._best or math.isinf(self._due):  # its neighbors are tried at once
            self._best, self._pause, self._due = best, 0.0, now
        elif index != best:
            self._pause = min(max(FIRST_PAUSE_S, 2 * self._pause), LONGEST_PAUSE_S)
            self._due = now + self._pause
