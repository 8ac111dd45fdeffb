"""The server's end of the connection to other nodes: it publishes steps to their relays, and takes their
sums.

Each publication has a *phase*, a number that only grows. Phase `2 * step` says that the vector is that of
`step`, and asks for nothing. Phase `2 * step + 1` asks for the sums of `step`. A relay names the last phase
that it has seen, and does not get a vector again that it has.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from distbp.core.arrays import Array
from distbp.core.reduction import Block
from distbp.engine.parameter_server import Contribution
from distbp.team.exchange.gathering import Gathering
from distbp.team.exchange.relay import OVER, Publication
from distbp.team.exchange.sparse_sums import Scan, SparseSums, SparseTable, decode, encode, live_rows

Packed = tuple[int, int, Array | SparseSums, Array]  # start, stop, gradient, totals


def packed(
    contributions: Iterable[Contribution], tables: Sequence[SparseTable] = (), scan: Scan = live_rows
) -> list[Packed]:
    """The contributions as a relay sends them. tables, scan: see `encode`. Some arrays are not copied."""
    return [
        (block.start, block.stop, encode(gradient, tables, scan), totals)
        for block, gradient, totals in contributions
    ]


class Desk:
    """One thread publishes and takes. Calls from relays come in threads of their own.

    nudge: wakes the thread that gathers. pack: copies a vector into what can be sent."""

    def __init__(self, attempt: int, nudge: Callable[[], None], pack: Callable[[Array], Any]) -> None:
        self._attempt = attempt
        self._nudge = nudge
        self._pack = pack
        self._turn = threading.Condition()
        self._phase = -1
        self._source: Array | None = None
        self._packed: Any = None  # the vector of this phase, once a relay has asked for it
        self._pushed: list[Contribution] = []
        self._open = True
        self._callers = 0

    def publish(self, step: int, vector: Array) -> None:
        """Asks for the sums of `step`. The vector may change as soon as they are complete. Does not wait."""
        self._advance(2 * step + 1, vector)

    def rest(self, step: int, vector: Array) -> None:
        """Publishes the vector of `step`, which stays as it is until the next `publish`. Does not wait."""
        self._advance(2 * step, vector)

    def take(self, step: int, gathering: Gathering[Contribution]) -> None:
        """Offers to `gathering` what was pushed for `step`, which must be the last one published. Does not
        wait."""
        with self._turn:
            pushed, self._pushed = self._pushed, []
        for contribution in pushed:
            gathering.offer(contribution.block, contribution)

    def push_pull(self, attempt: int, phase: int, pushed: Sequence[Packed]) -> Publication:
        """Takes sums that answer `phase`, and waits for a later phase. Called by relays.

        Drops sums of a phase that is over. Returns OVER for another attempt or after `close`. Leaves out the
        vector if the relay has it."""
        # Arrays from Ray are read-only, and the server joins in place.
        mine = [
            Contribution(Block(a, b), decode(gradient), totals.copy()) for a, b, gradient, totals in pushed
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
        """Tells all relays that the exchange is over."""
        with self._turn:
            self._open = False
            self._turn.notify_all()

    def _advance(self, phase: int, vector: Array) -> None:
        with self._turn:
            if phase <= self._phase:  # the step was published before, and not applied
                return
            if phase != self._phase + 1 or self._phase % 2:
                self._packed = None  # otherwise a step follows its own rest, with the same vector
            self._phase = phase
            self._source = vector
            self._pushed.clear()
            if self._callers and self._packed is None:
                self._vector()  # packed now, because the vector may change as soon as this returns
            self._turn.notify_all()

    def _vector(self) -> Any:
        # A relay that asks during an update may get a mixture of two steps. That does no harm, because its
        # sums answer a phase that is over, and are dropped.
        if self._packed is None:
            assert self._source is not None
            self._packed = self._pack(self._source)
        return self._packed
