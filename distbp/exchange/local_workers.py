"""The server's end of a segment: publish a step to the workers of this node, and take in what they post."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence

from distbp.exchange import segment as seg
from distbp.exchange.audit import Audit
from distbp.exchange.futex import fence
from distbp.exchange.gathering import Gathering, runs
from distbp.exchange.segment import Range, Segment, Slot
from distbp.parameter_server import Contribution
from distbp.reduction import Block, blocks_within

SPINS = 20  # looks at the word before sleeping


class LocalWorkers:
    """One thread publishes and gathers; `assign`, `beats` and `close` may be called from others.

    reached: whether the rows of a shard are on this node, so that any worker here can compute it."""

    def __init__(
        self,
        segment: Segment,
        audit: Audit | None = None,
        reached: Callable[[int], bool] = lambda shard: True,
    ) -> None:
        self.segment = segment
        self._reached = reached
        self._audit = audit
        self._lock = threading.Lock()  # over the ranges in the control block
        self._ranges: dict[int, list[Range]] = {}
        self._audits: dict[int, list[Range]] = {}  # worker -> what it computes again at this step
        self._taken: set[tuple[int, int]] = set()  # (worker, slot) read at this step
        self._nudges = 0

    def assign(self, ranges: Mapping[int, Sequence[Range]]) -> None:
        """Says who hosts which shards, from the current step on; workers not named host nothing."""
        with self._lock:
            gone = self._ranges.keys() - ranges.keys()
            self._ranges = {worker: list(given) for worker, given in ranges.items()}
            if self._audit:  # who was asked may be gone
                self._audit.forget()
                self._audits = {}
            self._write({**dict.fromkeys(gone, ()), **self._ranges})

    def hosted(self, shards: int) -> tuple[int, list[tuple[int, int, Block]]]:
        """(the segment's version, who computes what at every step): (worker, slot, block), as
        `WorkerPort` takes them up."""
        with self._lock:
            found = [
                (worker, slot, block)
                for worker, ranges in self._ranges.items()
                for slot, block in enumerate(
                    block
                    for start, stop in runs(sorted({s for r in ranges for s in range(r.start, r.stop)}))
                    for block in blocks_within(shards, start, stop)
                )
            ]
            return self.segment.version, found

    @property
    def audited(self) -> bool:
        """Whether some answers are computed twice and compared."""
        return self._audit is not None

    def publish(self, step: int) -> None:
        """The vector is that of `step`: compute."""
        self._taken.clear()
        if self._audit:
            self._plan(step, self._audit)
        words = self.segment.words
        fence()  # the vector before its number
        words[seg.STEP] = step
        words[seg.STATE] = seg.RUNNING
        self.segment.published.advance()

    def rest(self, step: int) -> None:
        """The vector is that of `step`, and there is nothing to compute until the next `publish`."""
        words = self.segment.words
        fence()
        words[seg.VECTOR_STEP] = step
        words[seg.STATE] = seg.WAITING
        self.segment.published.advance()

    def take(self, step: int, gathering: Gathering[Contribution]) -> None:
        """Offers what has been posted for `step` and was not taken before. Does not wait. Raises
        CorruptionError where two workers differ."""
        segment, words = self.segment, self.segment.words
        attempt = words[seg.ATTEMPT]
        for worker in list(self._ranges):
            for number in range(words[segment.row(worker) + seg.SLOTS_USED]):
                if (worker, number) in self._taken:
                    continue
                slot: Slot = segment.slot(worker, number)
                block = slot.posted(attempt, step)
                if block is not None:
                    answer = Contribution(block, slot.gradient, slot.totals)
                    self._taken.add((worker, number))
                    if self._audit:
                        with self._lock:
                            self._audit.hear(worker, answer)
                    gathering.offer(block, answer)

    @property
    def settled(self) -> bool:
        """Whether nothing is still to be compared at this step."""
        return self._audit is None or self._audit.settled

    def wait(self, seen: int, timeout_s: float) -> bool:
        """Waits for something to be posted after `arrivals` gave `seen`; false when the time is up."""
        self.segment.beat()
        return self.segment.arrived.wait(seen, timeout_s, SPINS) != seen

    @property
    def arrivals(self) -> int:
        """To be read before `take`, and given to `wait` after it."""
        return self.segment.arrived.value

    def nudge(self) -> None:
        """Ends a `wait` from another thread of this process, since something came by another way."""
        self._nudges = (self._nudges + 1) & 0xFFFFFF
        self.segment.arrived.set(0x7F << 24 | self._nudges)

    def help_out(self, step: int, missing: Sequence[int]) -> bool:
        """Gives the missing shards, for this step only, also to workers that have none of them; false where
        nobody is free, or has their rows. The first answer counts: it is the same answer."""
        missing = [shard for shard in missing if self._reached(shard)]
        if not missing:
            return False
        with self._lock:
            idle = [w for w, ranges in self._ranges.items() if not _touches(ranges, missing)]
            if not idle:
                return False
            helped = {w: [*ranges, *self._audits.get(w, ())] for w, ranges in self._ranges.items()}
            for index, (start, stop) in enumerate(runs(missing)):
                helped[idle[index % len(idle)]].append(Range(start, stop, step))
            self._write({w: ranges[: seg.MAX_RANGES] for w, ranges in helped.items()})
        return True

    def beats(self) -> dict[int, float]:
        """Seconds since each worker last gave a sign of life."""
        return {worker: self.segment.beat_age_s(worker) for worker in list(self._ranges)}

    def close(self) -> None:
        """Tells the workers to end."""
        self.segment.words[seg.STATE] = seg.CLOSED
        self.segment.published.advance()

    def _plan(self, step: int, audit: Audit) -> None:
        """Asks for the answers that are computed twice at `step`."""
        with self._lock:
            planned = audit.plan(step, self._ranges)
            if not planned and not self._audits:
                return
            self._audits = {}
            for worker, extra in planned.items():
                room = seg.MAX_RANGES - len(self._ranges[worker])
                self._audits[worker] = extra[:room]
                for one in extra[room:]:
                    audit.give_up(Block(one.start, one.stop))
            ranges = {w: [*given, *self._audits.get(w, ())] for w, given in self._ranges.items()}
            self.segment.set_ranges(ranges)  # announced together with the step

    def _write(self, ranges: Mapping[int, Sequence[Range]]) -> None:
        self.segment.set_ranges(ranges)
        self.segment.published.advance()


def _touches(ranges: Sequence[Range], shards: Sequence[int]) -> bool:
    return any(r.start <= shard < r.stop for r in ranges for shard in shards)
