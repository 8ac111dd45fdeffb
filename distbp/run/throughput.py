"""How fast a run trains; steps that load or compile are kept out of it."""

from __future__ import annotations


class Throughput:
    """Counts rows and seconds of the steps of one run.

    What is compiled or loaded in a team's first step is no part of its speed. Neither is what is loaded in
    the last step of the team's first epoch, which measures health. Both are stretches of their own.
    """

    def __init__(self, per_epoch: int) -> None:
        self._per_epoch = per_epoch
        self._fresh = self._cold = True  # no step, no whole epoch was seen from this team
        self._rows = 0
        self._seconds = 0.0

    def team_started(self) -> None:
        self._fresh = self._cold = True

    def epoch_ended(self) -> None:
        self._cold = False

    def stretch(self, step: int, stop: int) -> tuple[int, bool]:
        """Where a stretch from `step` ends, at `stop` or before, and whether its speed counts."""
        last = (step // self._per_epoch + 1) * self._per_epoch - 1
        if self._fresh:
            return step + 1, False
        if self._cold and step < last:
            return min(stop, last), True
        return stop, not (self._cold and step == last)

    def count(self, rows: int, seconds: float, ran: bool, changed: bool) -> None:
        """Notes a stretch; rows: 0 if its speed does not count. ran: it made a step. changed: workers came or
        went meanwhile."""
        if rows:
            self._rows += rows
            self._seconds += seconds
        self._fresh = changed or (self._fresh and not ran)
        self._cold = self._cold or changed

    @property
    def rows_per_second(self) -> float:
        """Over all stretches that count; 0.0 where none did."""
        return self._rows / self._seconds if self._seconds else 0.0
