"""Gives turns to networks of a job, of which only some may train at the same time."""

from __future__ import annotations

import threading


class TrainingTurns:
    """At most `may_train` of the networks 0 to `count - 1` train at the same time; the lowest numbers come
    first.

    `may_train` may change at any moment. Any thread may call any method. No method waits but `enter`."""

    def __init__(self, count: int, may_train: int) -> None:
        self._may_train = may_train
        self.most_at_a_time = 0  # the most networks that have trained at the same time until now
        self._left = set(range(count))  # networks that have not ended
        self._training: set[int] = set()
        self._changed = threading.Condition()

    @property
    def may_train(self) -> int:
        return self._may_train

    @property
    def at_a_time(self) -> int:
        """How many networks can train now: `may_train`, or fewer if fewer are left."""
        return min(self._may_train, len(self._left))

    @property
    def left(self) -> int:
        """How many networks have not ended."""
        return len(self._left)

    @property
    def training(self) -> int:
        """How many networks have a turn."""
        return len(self._training)

    def enter(self, number: int, wait_s: float) -> bool:
        """Takes a turn for a network; waits at most `wait_s` for it. Returns whether the network has it."""
        with self._changed:
            entered = self._changed.wait_for(lambda: self._is_next(number), wait_s)
            if entered:
                self._training.add(number)
                self.most_at_a_time = max(self.most_at_a_time, len(self._training))
                self._changed.notify_all()  # the next network may have a turn, too
            return entered

    def pause(self, number: int) -> None:
        """Gives up the turn for a while."""
        with self._changed:
            self._training.discard(number)
            self._changed.notify_all()

    def end(self, number: int) -> None:
        """Gives up the turn for good."""
        with self._changed:
            self._left.discard(number)
            self._training.discard(number)
            self._changed.notify_all()

    def resize(self, may_train: int) -> None:
        """Changes `may_train`. `over` tells which networks must then pause."""
        with self._changed:
            self._may_train = may_train
            self._changed.notify_all()

    def over(self, number: int) -> bool:
        """Whether this network must pause because more networks train than may: the highest numbers do."""
        with self._changed:
            return number in sorted(self._training)[self._may_train :]

    def _is_next(self, number: int) -> bool:
        if number in self._training:
            return True
        free = len(self._training) < self._may_train
        return free and number == min(self._left - self._training, default=None)
