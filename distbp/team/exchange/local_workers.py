"""The server's end of a segment: publishes a step to the workers of this node, and takes their sums."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence

from distbp.core.reduction import Block, blocks_within
from distbp.engine.parameter_server import Contribution
from distbp.machine.futex import fence
from distbp.team.exchange import segment as seg
from distbp.team.exchange.audit import Audit
from distbp.team.exchange.gathering import Gathering, runs
from distbp.team.exchange.segment import Range, Segment, Slot

SPINS = 20  # looks at the futex word before sleeping


class LocalWorkers:
    """The workers of a segment. One thread publishes and gathers; others may call `assign`, `beats`, `close`.

    audit: compares some answers; None: no audit. reached: whether the rows of a shard are on this node, so
    that every worker here can compute the shard."""

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
        self._audits: dict[int, list[Range]] = {}  # worker -> the ranges that it audits at this step
        self._taken: set[tuple[int, int]] = set()  # (worker, slot) read at this step
        self._nudges = 0

    def assign(self, ranges: Mapping[int, Sequence[Range]]) -> None:
        """Sets who hosts which shards, from the current step on. A worker without an entry hosts nothing."""
        with self._lock:
            gone = self._ranges.keys() - ranges.keys()
            self._ranges = {worker: list(given) for worker, given in ranges.items()}
            if self._audit:  # a worker that was asked may be gone
                self._audit.forget()
                self._audits = {}
            self._write({**dict.fromkeys(gone, ()), **self._ranges})

    def hosted(self, shards: int) -> tuple[int, list[tuple[int, int, Block]]]:
        """(the segment's version, [(worker, slot, block)]): who computes what at every step.

        The order of a worker's blocks is that of `WorkerPort`."""
        with self._lock:
            blocks = [
                (worker, slot, block)
                for worker, ranges in self._ranges.items()
                for slot, block in enumerate(
                    block
                    for start, stop in runs(sorted({s for r in ranges for s in range(r.start, r.stop)}))
                    for block in blocks_within(shards, start, stop)
                )
            ]
            return self.segment.version, blocks

    @property
    def audited(self) -> bool:
        """Whether this exchange compares some answers of two workers."""
        return self._audit is not None

    def publish(self, step: int) -> None:
        """Asks the workers to compute `step`, with the vector as it is now. Does not wait."""
        self._taken.clear()
        if self._audit:
            self._plan(step, self._audit)
        words = self.segment.words
        fence()  # the vector is written before the step's number
        words[seg.STEP] = step
        words[seg.STATE] = seg.RUNNING
        self.segment.published.advance()

    def rest(self, step: int) -> None:
        """Tells the workers that the vector is that of `step`, and to wait for the next `publish`."""
        words = self.segment.words
        fence()
        words[seg.VECTOR_STEP] = step
        words[seg.STATE] = seg.WAITING
        self.segment.published.advance()

    def take(self, step: int, gathering: Gathering[Contribution]) -> None:
        """Offers the sums that were posted for `step` since the last call to `gathering`. Does not wait.

        Raises CorruptionError if an audit finds two workers that differ."""
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
        """Whether all comparisons of this step are done."""
        return self._audit is None or self._audit.settled

    def wait(self, seen: int, timeout_s: float) -> bool:
        """Waits at most `timeout_s` for a post after `arrivals` gave `seen`. Returns whether one came."""
        self.segment.beat()
        return self.segment.arrived.wait(seen, timeout_s, SPINS) != seen

    @property
    def arrivals(self) -> int:
        """A number that changes with every post. Read it before `take`, and pass it to `wait` after that."""
        return self.segment.arrived.value

    def nudge(self) -> None:
        """Ends a `wait`. Another thread of this process calls it when sums have come from another node."""
        self._nudges = (self._nudges + 1) & 0xFFFFFF
        self.segment.arrived.set(0x7F << 24 | self._nudges)

    def help_out(self, step: int, missing: Sequence[int]) -> bool:
        """Asks workers without any of the missing shards to compute them too, at this step only.

        The first answer counts; a second answer has the same bits. Returns False if no worker is free, or if
        the rows of none of the shards are on this node."""
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
        """Worker -> seconds since its last sign of life."""
        return {worker: self.segment.beat_age_s(worker) for worker in list(self._ranges)}

    def close(self) -> None:
        """Tells the workers to end."""
        self.segment.words[seg.STATE] = seg.CLOSED
        self.segment.published.advance()

    def _plan(self, step: int, audit: Audit) -> None:
        """Asks for the second answers that the audit wants at `step`."""
        with self._lock:
            planned = audit.plan(step, self._ranges)
            if not planned and not self._audits:
                return
            self._audits = {}
            for worker, extra in planned.items():
                room = seg.MAX_RANGES - len(self._ranges[worker])
                self._audits[worker] = extra[:room]
                for range_left in extra[room:]:
                    audit.give_up(Block(range_left.start, range_left.stop))
            ranges = {w: [*given, *self._audits.get(w, ())] for w, given in self._ranges.items()}
            self.segment.set_ranges(ranges)  # `publish` announces them with the step

    def _write(self, ranges: Mapping[int, Sequence[Range]]) -> None:
        self.segment.set_ranges(ranges)
        self.segment.published.advance()


def _touches(ranges: Sequence[Range], shards: Sequence[int]) -> bool:
    return any(r.start <= shard < r.stop for r in ranges for shard in shards)
