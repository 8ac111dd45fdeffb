"""The worker's end of the shared-memory exchange: waits for a step, computes it, posts the sums.

The backward pass writes gradients straight into the slot that the server reads.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from distbp.core.errors import ExchangeError
from distbp.core.reduction import Block, blocks_within
from distbp.engine.worker import Worker
from distbp.machine.futex import fence
from distbp.team.exchange import segment as seg
from distbp.team.exchange.gathering import runs
from distbp.team.exchange.segment import Segment, Slot

# Announces a finished slot. Fault injection replaces `post`.
Post = Callable[[Slot, int, int, Block], None]

BEAT_S = 0.25  # between two signs of life
RESEND_S = 0.2  # an answer that had no effect is announced again after this time
SPINS = 300  # looks at the futex word before sleeping: about 0.3 ms, while the server joins and updates


def post(slot: Slot, attempt: int, step: int, block: Block) -> None:
    slot.post(attempt, step, block)


class WorkerPort:
    """A worker's end of a segment. `me`: the worker's row. `shards`: of the job. One thread calls `serve`."""

    def __init__(self, segment: Segment, me: int, shards: int, announce: Post = post) -> None:
        self._segment = segment
        self._me = me
        self._shards = shards
        self._announce = announce
        self._row = segment.row(me)
        segment.words[self._row + seg.PID] = os.getpid()
        self._count = 0
        self._step = -1
        self._done: list[tuple[Block, Slot]] = []

    def serve(self, worker: Worker) -> None:
        """Computes this worker's shards, as the control block asks, step after step; waits until the segment
        is closed. Raises what `Worker.compute` raises."""
        segment, words = self._segment, self._segment.words
        stop_beating = self._beat()
        try:
            attempt = words[seg.ATTEMPT]
            while True:
                seen = segment.published.value  # read before what it announces
                state = words[seg.STATE]
                if state == seg.CLOSED:
                    return
                if state == seg.RUNNING and self._work(worker, attempt, seen):
                    continue
                value = segment.published.wait(seen, RESEND_S, SPINS)
                if value == seen and state == seg.RUNNING:
                    self._resend(attempt)
        finally:
            stop_beating()

    def await_vector(self, step: int) -> None:
        """Waits until the server rests with the vector of `step` or a later step. Any thread may call it.

        Raises ExchangeError if the segment is closed meanwhile."""
        segment, words = self._segment, self._segment.words
        while True:
            seen = segment.published.value
            if words[seg.VECTOR_STEP] >= step:
                fence()
                return
            if words[seg.STATE] == seg.CLOSED:
                raise ExchangeError(f"the exchange was closed before step {step} was published")
            segment.published.wait(seen, RESEND_S)

    def _work(self, worker: Worker, attempt: int, seen: int) -> bool:
        """Computes the next block. Returns False if none is left at this step."""
        segment = self._segment
        step = segment.words[seg.STEP]
        fence()  # read the vector after its number
        if step != self._step:
            self._step = step
            self._done = []
        block = self._next_block(step)
        if block is None:
            return False
        number = len(self._done)
        slot = segment.slot(self._me, number)
        worker.compute(step, block, slot.gradient, slot.totals)
        self._done.append((block, slot))
        segment.words[self._row + seg.SLOTS_USED] = number + 1
        self._announce(slot, attempt, step, block)
        self._wake_server()
        return True

    def _next_block(self, step: int) -> Block | None:
        """The first block that this worker was asked for at `step` and has not computed; None if there is
        none. The blocks that it hosts come first, then those that it was asked for at this step only."""
        ranges = self._segment.ranges(self._me)
        wanted = {
            s for start, stop, only in ranges if only == -1 for s in range(start, min(stop, self._shards))
        }
        for block, _ in self._done:
            wanted.difference_update(range(block.start, block.stop))
        for start, stop in runs(sorted(wanted)):
            return blocks_within(self._shards, start, stop)[0]
        for start, stop, only_step in ranges:
            if only_step == step:
                for block in blocks_within(self._shards, start, stop):
                    if not any(d.start <= block.start and block.stop <= d.stop for d, _ in self._done):
                        return block
        return None

    def _resend(self, attempt: int) -> None:
        for block, slot in self._done:
            self._announce(slot, attempt, self._step, block)
        if self._done:
            self._wake_server()

    def _wake_server(self) -> None:
        # All values are different, so the server cannot take this one for an earlier value.
        self._count = (self._count + 1) & 0xFFFFFF
        self._segment.arrived.set((self._me + 1) << 24 | self._count)

    def _beat(self) -> Callable[[], None]:
        ended = threading.Event()

        def beat() -> None:
            while not ended.wait(BEAT_S):
                self._segment.beat(self._me)

        self._segment.beat(self._me)
        thread = threading.Thread(target=beat, name="distbp-heartbeat", daemon=True)
        thread.start()

        def stop() -> None:
            ended.set()
            thread.join()

        return stop
