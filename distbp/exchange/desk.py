"""The server's side of the way to other nodes: what it publishes to their relays, and what they push.

What is published has a *phase*, which only grows: `2 * step` says that the vector is that of `step` and that
there is nothing to do, `2 * step + 1` asks for the sums of `step`. A relay that says which phase it has seen
gets no vector that it holds already.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from distbp.exchange.gathering import Gathering
from distbp.exchange.relay import OVER, Publication
from distbp.nn.arrays import Array
from distbp.parameter_server import Contribution
from distbp.reduction import Block

Packed = tuple[int, int, Array, Array]  # start, stop, gradient, totals


class Desk:
    """The server's side. One thread publishes and takes; calls from relays come in threads of their own.

    nudge: wakes the thread that gathers. pack: makes a copy of a vector that can be sent.
    """

    def __init__(self, attempt: int, nudge: Callable[[], None], pack: Callable[[Array], Any]) -> None:
        self._attempt = attempt
        self._nudge = nudge
        self._pack = pack
        self._turn = threading.Condition()
        self._phase = -1
        self._source: Array | None = None
        self._packed: Any = None  # the vector of this phase, once somebody asked for it
        self._pushed: list[Contribution] = []
        self._open = True
        self._callers = 0

    def publish(self, step: int, vector: Array) -> None:
        """Asks for the sums of `step`. After it the vector may change once they are complete."""
        self._advance(2 * step + 1, vector)

    def rest(self, step: int, vector: Array) -> None:
        """The vector is that of `step`, and stays it until the next `publish`."""
        self._advance(2 * step, vector)

    def take(self, step: int, gathering: Gathering[Contribution]) -> None:
        """Offers what was pushed for `step`, which must be the one published last."""
        with self._turn:
            pushed, self._pushed = self._pushed, []
        for contribution in pushed:
            gathering.offer(contribution.block, contribution)

    def push_pull(self, attempt: int, phase: int, pushed: Sequence[Packed]) -> Publication:
        """Called by relays. Takes sums that answer `phase`, unless that is over or of another attempt, and
        waits for a later phase. The vector is left out where the relay has it."""
        # Arrays come out of Ray read-only, and the server joins in place.
        mine = [
            Contribution(Block(a, b), gradient.copy(), totals.copy()) for a, b, gradient, totals in pushed
        ]
        with self._turn:
            if attempt != self._attempt:
                return OVER
            if mine and phase == self._phase:
                self._pushed += mine
                self._nudge()
            self._callers += 1
            try:
                self._turn.wait_for(lambda: not self._open or self._phase > phase)
            finally:
                self._callers -= 1
            if not self._open:
                return OVER
            step, running = divmod(self._phase, 2)
            if running and phase == 2 * step:
                return Publication(step, True, None)
            return Publication(step, bool(running), self._vector())

    def close(self) -> None:
        """Tells all relays that it is over."""
        with self._turn:
            self._open = False
            self._turn.notify_all()

    def _advance(self, phase: int, vector: Array) -> None:
        with self._turn:
            if phase <= self._phase:  # a step that was published and not applied
                return
            if phase != self._phase + 1 or self._phase % 2:
                self._packed = None  # else: to run after rest, with the same vector
            self._phase = phase
            self._source = vector
            self._pushed.clear()
            if self._callers and self._packed is None:
                self._vector()  # now, for it may change as soon as this returns
            self._turn.notify_all()

    def _vector(self) -> Any:
        # A relay that comes while the server updates may get parts of two steps. That is harmless: the sums
        # it makes of them answer a phase that is over.
        if self._packed is None:
            assert self._source is not None
            self._packed = self._pack(self._source)
        return self._packed
