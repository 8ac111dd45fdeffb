"""Measures the training speed of a run, without the steps in which code is loaded or compiled."""

from __future__ import annotations


class Throughput:
    """Counts rows and seconds of the steps of one run.

    A team's first step, in which code is compiled or loaded, does not count. Neither does the last step of
    the team's first epoch, which loads the code that measures health. Both are stretches of their own.
    """

    def __init__(self, per_epoch: int) -> None:
        self._per_epoch = per_epoch
        self._fresh = self._cold = True  # the team has trained no step, and no whole epoch
        self._rows = 0
        self._seconds = 0.0

    def team_started(self) -> None:
        self._fresh = self._cold = True

    def epoch_ended(self) -> None:
        self._cold = False

    def stretch(self, step: int, stop: int) -> tuple[int, bool]:
        """Returns where a stretch from `step` on must end, at `stop` or before, and whether its speed
        counts."""
        last = (step // self._per_epoch + 1) * self._per_epoch - 1
        if self._fresh:
            return step + 1, False
        if self._cold and step < last:
            return min(stop, last), True
        return stop, not (self._cold and step == last)

    def count(self, rows: int, seconds: float, ran: bool, changed: bool) -> None:
        """Records a stretch. rows: 0 if its speed does not count. ran: whether it trained a step. changed:
        whether workers came or went meanwhile."""
        if rows:
            self._rows += rows
            self._seconds += seconds
        self._fresh = changed or (self._fresh and not ran)
        self._cold = self._cold or changed

    @property
    def rows_per_second(self) -> float:
        """Rows per second over all stretches that count; 0.0 before the first."""
        return self._rows / self._seconds if self._seconds else 0.0
