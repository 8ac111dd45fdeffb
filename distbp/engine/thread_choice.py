"""How many threads share the steps of a job: as many as make a step take the least time now.

Threads meet in every step. Where other programs use the processors, too, a thread that waits for another one
may wait for that program, and fewer threads are faster. The number of threads changes no bit, so it may
change between any two steps.
"""

from __future__ import annotations

import math

# A trial takes some steps at another number of threads. It is repeated after a pause, which doubles each time
# that the trial is slower.
TRIAL_STEPS = 16
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 8.0
SURELY_SLOWER = 3.0  # a trial ends where a step takes so many times as long


class ThreadChoice:
    """Chooses by the seconds that steps took. counts: numbers of threads, from `most` down to 1."""

    def __init__(self, most: int) -> None:
        self.counts = [most]
        while self.counts[-1] > 1:
            self.counts.append(self.counts[-1] // 2)
        self._seconds = [math.nan] * len(self.counts)  # of a step, when last measured
        self._measured = [-math.inf] * len(self.counts)  # when
        self._best, self._pause, self._due = 0, 0.0, math.inf

    def next(self, now: float) -> int:
        """Which of `counts` the next steps shall take. now: seconds of any clock that runs evenly."""
        if now < self._due:
            return self._best
        beside = (one for one in (self._best - 1, self._best + 1) if 0 <= one < len(self.counts))
        return min(beside, key=lambda one: self._measured[one], default=self._best)

    def limit_s(self, which: int) -> float:
        """The most seconds for a step of a trial; infinite where it is none."""
        return math.inf if which == self._best else SURELY_SLOWER * self._seconds[self._best]

    def took(self, which: int, seconds: float, now: float) -> None:
        """Takes the seconds that a step took at one of `counts`."""
        self._seconds[which], self._measured[which] = seconds, now
        known = [one for one in range(len(self.counts)) if not math.isnan(self._seconds[one])]
        best = min(known, key=lambda one: self._seconds[one])
        if best != self._best or math.isinf(self._due):  # compare it with those beside it at once
            self._best, self._pause, self._due = best, 0.0, now
        elif which != best:
            self._pause = min(max(FIRST_PAUSE_S, 2 * self._pause), LONGEST_PAUSE_S)
            self._due = now + self._pause
