"""The Ray-objects exchange: between the server and the relays of other nodes, one actor call a step.

A relay's call pushes its sums and waits in a thread of the server's actor until a later step is published; the
vector comes back as a reference to one object, which crosses to each node once.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import ray

from distbp.exchange.gathering import Gathering
from distbp.exchange.relay import Publication
from distbp.nn.arrays import Array
from distbp.parameter_server import Contribution
from distbp.reduction import Block

# Ray carries values up to 100 KB within its messages; larger ones are worth an object of their own.
INLINE_BYTES = 100 * 1024

Packed = tuple[int, int, Array, Array]  # start, stop, gradient, totals


class Desk:
    """The server's side. `nudge` wakes the thread that gathers; calls from relays come in threads of their own."""

    def __init__(self, attempt: int, nudge: Any) -> None:
        self._attempt = attempt
        self._nudge = nudge
        self._turn = threading.Condition()
        self._step = -1
        self._vector: Any = None
        self._pushed: list[tuple[int, Contribution]] = []
        self._open = True
        self._callers = 0

    def publish(self, step: int, vector: Array) -> None:
        with self._turn:
            self._step = step
            if self._callers or self._pushed:
                self._vector = self._packed(vector)
            else:
                self._vector = None  # nobody is there; made when somebody asks
                self._source = vector
            self._pushed.clear()
            self._turn.notify_all()

    def take(self, step: int, gathering: Gathering[Contribution]) -> None:
        with self._turn:
            pushed, self._pushed = self._pushed, []
        for pushed_step, contribution in pushed:
            if pushed_step == step:
                gathering.offer(contribution.block, contribution)

    def push_pull(self, attempt: int, step: int, packed: Sequence[Packed]) -> tuple[int, Any]:
        """Called by relays; waits until a step after `step` is published. A step below 0 says: over."""
        with self._turn:
            self._callers += 1
            try:
                if attempt == self._attempt and step == self._step and packed:
                    for start, stop, gradient, totals in packed:
                        # Arrays come out of Ray read-only; the server joins in place.
                        mine = Contribution(Block(start, stop), gradient.copy(), totals.copy())
                        self._pushed.append((step, mine))
                    self._nudge()
                while self._open and self._step <= step and attempt == self._attempt:
                    self._turn.wait()
                if not self._open or attempt != self._attempt:
                    return -1, np.zeros(0)
                if self._vector is None:
                    self._vector = self._packed(self._source)
                return self._step, self._vector
            finally:
                self._callers -= 1

    def close(self) -> None:
        with self._turn:
            self._open = False
            self._turn.notify_all()

    @staticmethod
    def _packed(vector: Array) -> Any:
        # A copy: the next update writes to the vector while slow relays still read this one.
        return vector.copy() if vector.nbytes <= INLINE_BYTES else ray.put(vector)


class RayReply:
    """A `Reply` that is a Ray reference."""

    def __init__(self, reference: Any) -> None:
        self._reference = reference

    def wait(self, timeout_s: float) -> Publication | None:
        ready, _ = ray.wait([self._reference], timeout=timeout_s)
        if not ready:
            return None
        step, vector = ray.get(self._reference)
        return Publication(step, ray.get(vector) if isinstance(vector, ray.ObjectRef) else vector)


class RayLink:
    """A `Link` to the server's actor."""

    def __init__(self, server: Any, attempt: int) -> None:
        self._server = server
        self._attempt = attempt

    def push_pull(self, step: int, contributions: Sequence[Contribution]) -> RayReply:
        packed = [(c.block.start, c.block.stop, c.gradient, c.totals) for c in contributions]
        return RayReply(self._server.push_pull.remote(self._attempt, step, packed))
