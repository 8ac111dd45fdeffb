"""Several servers, each with a range of the flat vector: their meetings, and the links of relays to them.

A relay cuts its sums and sends each server its part, so the network cards of all servers share the traffic of
a large model. Before an update the servers add up their sums of squares, in the order of the vector. So
clipping by the global norm and the check for NaN and Inf have the same bits as with one server.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from distbp.core.arrays import Array
from distbp.core.errors import ExchangeError
from distbp.engine.parameter_server import Contribution, NotFiniteError, ParameterServer
from distbp.engine.ranges import RangeSums, joint
from distbp.optim.schedules import PlateauState
from distbp.team.exchange.desk import Desk
from distbp.team.exchange.gathering import Gathering
from distbp.team.exchange.relay import OVER, Link, Publication, Reply

IDLE_WAIT_S = 0.5


class Decision(NamedTuple):
    """squares: the sum of squares of the whole gradient. finite: whether the step can be applied. stop:
    whether the stretch ends after this step."""

    squares: float
    finite: bool
    stop: bool


Agree = Callable[[int, RangeSums], Decision]  # (step, sums of this server) -> one decision for all


class Council:
    """The meeting of the servers once a step. Each server calls `agree` in a thread of its own.

    stopping: whether the stretch is to end after this step."""

    def __init__(self, servers: int, stopping: Callable[[], bool] = lambda: False) -> None:
        self._servers = servers
        self._stopping = stopping
        self._turn = threading.Condition()
        self._sums: dict[int, RangeSums] = {}
        self._decision = Decision(0.0, True, False)
        self._settled = -1  # the step of the decision
        self._open = True

    def agree(self, server: int, step: int, sums: RangeSums) -> Decision:
        """Waits until all servers have given their sums for `step`. Returns the same decision to each.

        Raises ExchangeError if it is closed meanwhile."""
        with self._turn:
            self._sums[server] = sums
            if len(self._sums) == self._servers:
                whole = joint([self._sums[number] for number in range(self._servers)])
                self._decision = Decision(whole.squares[0], whole.finite, self._stopping())
                self._settled = step
                self._sums.clear()
                self._turn.notify_all()
            self._turn.wait_for(lambda: self._settled >= step or not self._open)
            if self._settled < step:
                raise ExchangeError(f"the servers were closed before they agreed on step {step}")
            return self._decision

    def close(self) -> None:
        with self._turn:
            self._open = False
            self._turn.notify_all()


class RangeRounds:
    """The rounds of one of several servers: it publishes its range, gathers its sums, agrees, and updates."""

    def __init__(
        self,
        server: ParameterServer,
        attempt: int,
        agree: Agree,
        pack: Callable[[Array], Any],
    ) -> None:
        self.server = server
        self._agree = agree
        self._arrived = threading.Event()
        self.desk = Desk(attempt, self._arrived.set, pack)
        self._gathering: Gathering[Contribution] = Gathering(server.blueprint.shards)
        self._open = True
        self.rest()

    def run(self, first: int, stop: int, plateau: PlateauState) -> int:
        """Trains steps `first` to `stop - 1`, or until the servers agree to stop; waits. Returns the next
        step.

        Raises NotFiniteError before it applies a step with NaN or Inf; ExchangeError if it is closed
        meanwhile."""
        server = self.server
        step = first
        try:
            while step < stop:
                self._gathering.start()
                self.desk.publish(step, server.vector)
                self._gather(step)
                sums = server.prepare(step, [c for _, c in self._gathering.answers()])
                decision = self._agree(step, sums)
                if not decision.finite:
                    raise NotFiniteError(step)
                server.finish(step, decision.squares, plateau)
                step += 1
                if decision.stop:
                    break
        finally:
            self.rest()
        return step

    def rest(self) -> None:
        """Publishes the range for evaluation, without a step to compute."""
        self.desk.rest(self.server.step, self.server.vector)

    def close(self) -> None:
        self._open = False
        self._arrived.set()
        self.desk.close()
        self.server.close()

    def _gather(self, step: int) -> None:
        while True:
            self._arrived.clear()
            self.desk.take(step, self._gathering)
            if self._gathering.complete:
                return
            self._arrived.wait(IDLE_WAIT_S)
            if not self._open:
                raise ExchangeError(f"the server was closed before step {step} was complete")


class FanLink:
    """A `Link` to several servers. ranges: [start, stop) of each in the flat vector (size,)."""

    def __init__(
        self, links: Sequence[Link], ranges: Sequence[tuple[int, int]], dtype: np.dtype[Any]
    ) -> None:
        self._links = list(zip(links, ranges, strict=True))
        self._vector = np.zeros(ranges[-1][1], dtype)

    def push_pull(self, phase: int, contributions: Sequence[Contribution]) -> FanReply:
        replies = []
        for link, (start, stop) in self._links:
            part = [c._replace(gradient=c.gradient[start:stop]) for c in contributions]
            replies.append((link.push_pull(phase, part), self._vector[start:stop]))
        return FanReply(replies, self._vector)


class FanReply:
    """The `Reply` of several servers. It is complete when every server has answered.

    If servers are at different steps, the reply has the earliest step. Then either the parts of the other
    servers are the same at both steps, or no server waits for sums that are computed with them."""

    def __init__(self, replies: Sequence[tuple[Reply, Array]], vector: Array) -> None:
        self._waiting = list(replies)
        self._vector = vector
        self._received: list[Publication] = []

    def wait(self, timeout_s: float) -> Publication | None:
        until = time.monotonic() + timeout_s
        while self._waiting:
            reply, place = self._waiting[0]
            publication = reply.wait(max(0.0, until - time.monotonic()))
            if publication is None:
                return None
            if publication.step < 0:
                return OVER
            if publication.vector is not None:
                np.copyto(place, publication.vector)
            self._received.append(publication)
            del self._waiting[0]
        earliest = min(self._received, key=lambda p: (p.step, p.running))
        fresh = any(p.vector is not None for p in self._received)
        return Publication(earliest.step, earliest.running, self._vector if fresh else None)
