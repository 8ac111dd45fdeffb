"""Whose turn it is, where several networks train and not all of them at a time."""

from __future__ import annotations

import threading


class TrainingTurns:
    """At most `at_a_time` of the networks 0 to `count - 1` train at a time; the lowest numbers come first.

    `at_a_time` may change at any moment. Any thread may call any method. No method waits but `enter`."""

    def __init__(self, count: int, at_a_time: int) -> None:
        self._at_a_time = at_a_time
        self.most = 0  # that have trained at a time
        self._left = set(range(count))  # those that have not ended
        self._training: set[int] = set()
        self._changed = threading.Condition()

    @property
    def at_a_time(self) -> int:
        return self._at_a_time

    @property
    def workers(self) -> int:
        """How many train at a time now: fewer than `at_a_time` where fewer are left."""
        return min(self._at_a_time, len(self._left))

    @property
    def left(self) -> int:
        """How many have not ended."""
        return len(self._left)

    @property
    def training(self) -> int:
        """How many have a turn."""
        return len(self._training)

    @property
    def awaited(self) -> bool:
        """Whether a network waits for its turn."""
        return len(self._left) > len(self._training)

    def enter(self, number: int, wait_s: float) -> bool:
        """Takes the turn of a network; waits for it at most `wait_s`. Returns whether it has come."""
        with self._changed:
            come = self._changed.wait_for(lambda: self._is_next(number), wait_s)
            if come:
                self._training.add(number)
                self.most = max(self.most, len(self._training))
                self._changed.notify_all()  # perhaps another one is next
            return come

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

    def resize(self, at_a_time: int) -> None:
        """Lets more of them train, or fewer; `over` says which ones have to pause."""
        with self._changed:
            self._at_a_time = at_a_time
            self._changed.notify_all()

    def over(self, number: int) -> bool:
        """Whether more networks train than may, and this one has to pause: the highest numbers do."""
        with self._changed:
            return number in sorted(self._training)[self._at_a_time :]

    def _is_next(self, number: int) -> bool:
        if number in self._training:
            return True
        free = len(self._training) < self._at_a_time
        return free and number == min(self._left - self._training, default=None)
