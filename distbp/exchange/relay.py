"""A relay: stands for all workers of another node.

On its node it is what the server is on the server's: it publishes to the workers' segment and gathers what
they post. Toward the server it is one worker: it joins its node's blocks up to the largest nodes of the tree
that lie within them, so one vector for each crosses the network, and the bits are those of the tree.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from distbp.exchange.gathering import Gathering, runs
from distbp.exchange.local_workers import LocalWorkers
from distbp.exchange.segment import Range
from distbp.parameter_server import Contribution
from distbp.reduction import Block, blocks_within, joins

WAIT_S = 0.05  # between two looks at what this node was asked for


class Publication(NamedTuple):
    """What the server says: the vector (size,) of `step` (None: as it was), and whether to compute with it.
    A step below 0 says that it is over."""

    step: int
    running: bool
    vector: Any


OVER = Publication(-1, False, None)


class Reply(Protocol):
    """An answer on its way."""

    def wait(self, timeout_s: float) -> Publication | None: ...


class Link(Protocol):
    """The way to the server."""

    def push_pull(self, phase: int, contributions: Sequence[Contribution]) -> Reply:
        """Pushes the node's sums for the step of `phase` (see `desk`); the reply comes when the server
        publishes a later one. The arrays may be overwritten as soon as this returns."""
        ...


class Relay:
    """`run` serves until the server says that it is over; `assign` may be called from other threads."""

    def __init__(self, workers: LocalWorkers, shards: int, link: Link) -> None:
        self._workers = workers
        self._link = link
        self._shards = shards
        self._gathering: Gathering[Contribution] = Gathering(shards)
        self._wanted: frozenset[int] = frozenset()
        self._ended = threading.Event()

    def assign(self, ranges: Mapping[int, Sequence[Range]]) -> None:
        """Says who of this node hosts what, from the current step on."""
        self._wanted = frozenset(
            shard for given in ranges.values() for one in given for shard in range(one.start, one.stop)
        )
        self._workers.assign(ranges)
        self._workers.nudge()

    def run(self) -> None:
        """Serves until it is over, or the way to the server is lost (whatever error that is); waits."""
        try:
            self._serve()
        finally:
            self._workers.close()

    def end(self) -> None:
        """Makes `run` return soon. From another thread."""
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
        """Gathers what this node was asked for and has not sent, joins it, and sends it."""
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
        found = dict(gathering.answers())
        ready: dict[Block, Contribution] = {}
        for start, stop in runs(sorted(wanted)):
            for node in blocks_within(self._shards, start, stop):
                parts = [b for b in found if node.start <= b.start and b.stop <= node.stop]
                if parts:
                    ready[node] = _join(node, [found[b] for b in parts])
                else:  # a larger block was computed before this node was asked for less
                    whole = next(b for b in found if b.start <= node.start and node.stop <= b.stop)
                    ready[whole] = found[whole]
        sent.update(shard for block in ready for shard in range(block.start, block.stop))
        return self._link.push_pull(phase, list(ready.values()))


def _join(node: Block, parts: Sequence[Contribution]) -> Contribution:
    """The sums over `node` from those of the blocks that make it up, in the tree's order, in place."""
    for left, right in joins(node, [p.block for p in parts]):
        np.add(parts[left].gradient, parts[right].gradient, out=parts[left].gradient)
        np.add(parts[left].totals, parts[right].totals, out=parts[left].totals)
    first = min(parts, key=lambda p: p.block.start)
    return Contribution(node, first.gradient, first.totals)
