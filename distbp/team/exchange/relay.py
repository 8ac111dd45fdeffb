"""A relay stands for all workers of a node that is not the server's.

To the workers of its node it is the server: it publishes steps to their segment and gathers their sums. To
the server it is one worker: it joins the blocks of its node into the largest possible blocks of the tree. So
only one vector for each of these blocks crosses the network, and the bits are those of the tree.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from distbp.core.reduction import Block, blocks_within, joins
from distbp.engine.parameter_server import Contribution
from distbp.team.exchange.gathering import Gathering, runs
from distbp.team.exchange.local_workers import LocalWorkers
from distbp.team.exchange.segment import Range

WAIT_S = 0.05  # between two checks for new orders


class Publication(NamedTuple):
    """A publication of the server.

    step: below 0, the exchange is over. running: whether to compute the step. vector: (size,), the vector of
    the step; None if the relay has it."""

    step: int
    running: bool
    vector: Any


OVER = Publication(-1, False, None)


class Reply(Protocol):
    """An answer on its way."""

    def wait(self, timeout_s: float) -> Publication | None:
        """Waits at most `timeout_s`. Returns None if the answer has not arrived."""
        ...


class Link(Protocol):
    """The connection of a relay to the server."""

    def push_pull(self, phase: int, contributions: Sequence[Contribution]) -> Reply:
        """Pushes the node's sums for the step of `phase` (see `desk`). Does not wait.

        The reply arrives when the server publishes a later phase. The caller may overwrite the arrays as soon
        as this returns."""
        ...


class Relay:
    """The relay of a node. One thread calls `run`; other threads may call `assign` and `end`.

    shards: of the job."""

    def __init__(self, workers: LocalWorkers, shards: int, link: Link) -> None:
        self._workers = workers
        self._link = link
        self._shards = shards
        self._gathering: Gathering[Contribution] = Gathering(shards)
        self._wanted: frozenset[int] = frozenset()
        self._ended = threading.Event()

    def assign(self, ranges: Mapping[int, Sequence[Range]]) -> None:
        """Sets who of this node hosts what, from the current step on. Does not wait."""
        self._wanted = frozenset(
            shard for given in ranges.values() for part in given for shard in range(part.start, part.stop)
        )
        self._workers.assign(ranges)
        self._workers.nudge()

    def run(self) -> None:
        """Serves until the server says that it is over; waits. Raises what the link raises if it is lost."""
        try:
            self._serve()
        finally:
            self._workers.close()

    def end(self) -> None:
        """Makes `run` return soon. Called by another thread; does not wait."""
        self._ended.set()
        self._workers.nudge()

    def _serve(self) -> None:
        workers, link = self._workers, self._link
        phase = -1
        sent: set[int] = set()
        reply = link.push_pull(phase, [])
        while not self._ended.is_set():
            publication = reply.wait(WAIT_S)
            workers.segment.beat()
            if publication is None:
                if phase > 0 and phase % 2 and self._wanted - sent:  # shards of a lost node, within a step
                    reply = self._push(phase, sent) or reply
                continue
            if publication.step < 0:
                return
            phase, sent = 2 * publication.step + publication.running, set()
            if publication.vector is not None:
                np.copyto(workers.segment.vector, publication.vector)
            if publication.running:
                self._gathering.start()
                workers.publish(publication.step)
                reply = self._push(phase, sent) or reply
            else:
                workers.rest(publication.step)
                reply = link.push_pull(phase, [])

    def _push(self, phase: int, sent: set[int]) -> Reply | None:
        """Gathers the blocks of this node that have not been sent at this step, joins them, and sends them.
        Returns None if `end` was called meanwhile."""
        workers, gathering = self._workers, self._gathering
        while True:
            seen = workers.arrivals
            workers.take(phase // 2, gathering)
            wanted = self._wanted - sent
            if gathering.has(wanted) and workers.settled:
                break
            workers.wait(seen, WAIT_S)
            if self._ended.is_set():
                return None
        answers = dict(gathering.answers())
        ready: dict[Block, Contribution] = {}
        for start, stop in runs(sorted(wanted)):
            for node in blocks_within(self._shards, start, stop):
                parts = [b for b in answers if node.start <= b.start and b.stop <= node.stop]
                if parts:
                    ready[node] = _join(node, [answers[b] for b in parts])
                else:  # a worker computed a larger block before this node's shards became fewer
                    whole = next(b for b in answers if b.start <= node.start and node.stop <= b.stop)
                    ready[whole] = answers[whole]
        sent.update(shard for block in ready for shard in range(block.start, block.stop))
        return self._link.push_pull(phase, list(ready.values()))


def _join(node: Block, parts: Sequence[Contribution]) -> Contribution:
    """Adds up the sums of the blocks that form `node`, in the tree's order, in place."""
    for left, right in joins(node, [p.block for p in parts]):
        np.add(parts[left].gradient, parts[right].gradient, out=parts[left].gradient)
        np.add(parts[left].totals, parts[right].totals, out=parts[left].totals)
    first = min(parts, key=lambda p: p.block.start)
    return Contribution(node, first.gradient, first.totals)
