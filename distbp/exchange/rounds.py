"""The server's end: publish a step, gather its blocks, apply the update, again.

`Rounds` drives a `ParameterServer` for workers that share its segment, and for remote nodes through
whatever is given as `remote`. One thread runs the steps; membership may be changed from others.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from distbp.exchange import segment as seg
from distbp.exchange.gathering import Gathering, runs
from distbp.exchange.segment import Range, Segment, Slot
from distbp.nn.layers.base import Array
from distbp.schedules import PlateauState
from distbp.parameter_server import Contribution, ParameterServer
from distbp.reduction import Block

IDLE_WAIT_S = 0.05  # between two looks at membership and lateness while waiting for answers
LATE_FLOOR_S = 0.1  # nothing is late before this
SPINS = 20


class Remote(Protocol):
    """Nodes whose answers come by another way than this segment."""

    def publish(self, step: int, vector: Array) -> None: ...

    def collect(self) -> list[Contribution]:
        """What came in for the published step since the last call; does not wait."""
        ...


class Rounds:
    """`late_factor`: a shard that takes so many times longer than a usual step is also computed by a worker
    that has nothing left to do. 0 turns that off."""

    def __init__(
        self,
        server: ParameterServer,
        segment: Segment,
        *,
        remote: Remote | None = None,
        late_factor: float = 4.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.server = server
        self.segment = segment
        self._remote = remote
        self._late_factor = late_factor
        self._clock = clock
        self._gathering: Gathering[Contribution] = Gathering(server.blueprint.shards)
        self._lock = threading.Lock()  # over the control block's ranges
        self._ranges: dict[int, list[Range]] = {}
        self._stop_asked = False
        self._taken: set[tuple[int, int]] = set()  # slots already read at this step
        self._usual_s = 0.0

    def assign(self, ranges: Mapping[int, Sequence[Range]]) -> None:
        """Says who of this node hosts what, from the current step on; workers not named host nothing."""
        with self._lock:
            for worker in self._ranges.keys() - ranges.keys():
                self.segment.set_ranges(worker, [])
            self._ranges = {worker: list(given) for worker, given in ranges.items()}
            self._write_ranges(self._ranges)

    def stop_soon(self) -> None:
        """Makes `run` return after the step in progress."""
        self._stop_asked = True

    def run(self, first: int, stop: int, plateau: PlateauState) -> int:
        """Trains steps `first` to `stop - 1`; waits. Returns the next step. Raises NotFiniteError."""
        server, segment, words = self.server, self.segment, self.segment.words
        self._stop_asked = False
        step = first
        try:
            while step < stop and not self._stop_asked:
                began = self._clock()
                self._gathering.start()
                self._taken.clear()
                words[seg.STEP] = step
                words[seg.STATE] = seg.RUNNING
                if self._remote:
                    self._remote.publish(step, segment.vector)
                segment.published.advance()
                self._gather(step, began)
                server.apply(step, [c for _, c in self._gathering.answers()], plateau)
                step += 1
                took = self._clock() - began
                self._usual_s = took if self._usual_s == 0 else 0.9 * self._usual_s + 0.1 * took
        finally:
            words[seg.STATE] = seg.WAITING
        return step

    def close(self) -> None:
        """Tells the workers to end."""
        self.segment.words[seg.STATE] = seg.CLOSED
        self.segment.published.advance()
        self.server.close()

    def _gather(self, step: int, began: float) -> None:
        segment, gathering = self.segment, self._gathering
        speculated = False
        while True:
            seen = segment.arrived.value
            self._scan(step)
            if gathering.complete:
                return
            if segment.arrived.wait(seen, IDLE_WAIT_S, SPINS) == seen:
                segment.beat()
                late = max(LATE_FLOOR_S, self._late_factor * self._usual_s)
                if self._late_factor and not speculated and self._clock() - began > late:
                    speculated = self._speculate(step)

    def _scan(self, step: int) -> None:
        segment, words, attempt = self.segment, self.segment.words, self.server.attempt
        for worker in list(self._ranges):
            for number in range(words[segment.row(worker) + seg.SLOTS_USED]):
                if (worker, number) in self._taken:
                    continue
                slot: Slot = segment.slot(worker, number)
                header = slot.header
                if header[seg.SLOT_STEP] == step and header[seg.SLOT_ATTEMPT] == attempt:
                    block = Block(header[seg.SLOT_START], header[seg.SLOT_STOP])
                    self._gathering.offer(block, Contribution(block, slot.gradient, slot.totals))
                    self._taken.add((worker, number))
        if self._remote:
            for contribution in self._remote.collect():
                self._gathering.offer(contribution.block, contribution)

    def _speculate(self, step: int) -> bool:
        """Also gives the missing shards, for this step, to workers that have answered for all of their own."""
        missing = self._gathering.missing()
        with self._lock:
            idle = [w for w, ranges in self._ranges.items() if not _touches(ranges, missing)]
            if not idle:
                return False
            extra: dict[int, list[Range]] = {}
            for index, (start, stop) in enumerate(runs(missing)):
                worker = idle[index % len(idle)]
                extra.setdefault(worker, []).append(Range(start, stop, step))
            kept = {w: [r for r in ranges if r.only_step == -1] for w, ranges in self._ranges.items()}
            for worker, ranges in extra.items():
                kept[worker] = (kept[worker] + ranges)[: seg.MAX_RANGES]
            self._write_ranges(kept)
        return True

    def _write_ranges(self, ranges: Mapping[int, Sequence[Range]]) -> None:
        for worker, given in ranges.items():
            self.segment.set_ranges(worker, list(given))
        self.segment.words[seg.VERSION] += 1
        self.segment.published.advance()


def _touches(ranges: Sequence[Range], shards: Sequence[int]) -> bool:
    return any(r.start <= shard < r.stop for r in ranges for shard in shards)
