"""A relay: stands for all workers of another node.

On its node it is what the server is on the server's: it publishes to the workers' segment and gathers what they
post. Toward the server it is one worker: it joins its node's blocks up to the largest nodes of the tree that
lie within them, so one vector for each crosses the network, and the bits are those of the tree.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from distbp.exchange.gathering import Gathering, runs
from distbp.exchange.local_workers import LocalWorkers
from distbp.exchange.segment import Range
from distbp.nn.arrays import Array
from distbp.parameter_server import Contribution
from distbp.reduction import Block, blocks_within, joins

WAIT_S = 0.05  # between two looks at what this node was asked for


class Publication(NamedTuple):
    """What the server says: the vector (size,) of `step`; a step below 0 says that it is over."""

    step: int
    vector: Array


class Reply(Protocol):
    """An answer on its way."""

    def wait(self, timeout_s: float) -> Publication | None: ...


class Link(Protocol):
    """The way to the server."""

    def push_pull(self, step: int, contributions: Sequence[Contribution]) -> Reply:
        """Pushes the node's sums of `step`; the reply comes when the server publishes a later step. The
        arrays may be overwritten as soon as this returns."""
        ...


class Relay:
    """`run` serves until the server says that it is over; `assign` may be called from other threads."""

    def __init__(self, workers: LocalWorkers, shards: int, link: Link) -> None:
        self._workers = workers
        self._link = link
        self._shards = shards
        self._gathering: Gathering[Contribution] = Gathering(shards)
        self._wanted: frozenset[int] = frozenset()
        self._changed = threading.Event()

    def assign(self, ranges: Mapping[int, Sequence[Range]]) -> None:
        """Says who of this node hosts what, from the current step on."""
        self._wanted = frozenset(
            shard for given in ranges.values() for one in given for shard in range(one.start, one.stop)
        )
        self._workers.assign(ranges)
        self._changed.set()
        self._workers.nudge()

    def run(self) -> None:
        step = -1
        sent: set[int] = set()
        replies = [self._link.push_pull(step, [])]
        while True:
            publication = replies[-1].wait(WAIT_S)
            if publication is None:
                if step >= 0 and self._wanted - sent:  # shards of a lost node, in the middle of a step
                    replies.append(self._push(step, sent))
                continue
            if publication.step < 0:
                break
            step, sent = publication.step, set()
            replies.clear()
            np.copyto(self._workers.segment.vector, publication.vector)
            self._gathering.start()
            self._workers.publish(step)
            replies.append(self._push(step, sent))
        self._workers.close()

    def _push(self, step: int, sent: set[int]) -> Reply:
        """Gathers what this node was asked for and has not sent, joins it, and sends it."""
        workers, gathering = self._workers, self._gathering
        while True:
            seen = workers.arrivals
            workers.take(step, gathering)
            wanted = self._wanted - sent
            if gathering.has(wanted):
                break
            workers.wait(seen, WAIT_S)
        found = dict(gathering.answers())
        ready = []
        for start, stop in runs(sorted(wanted)):
            for node in blocks_within(self._shards, start, stop):
                parts = [b for b in found if node.start <= b.start and b.stop <= node.stop]
                if parts:
                    ready.append(_join(node, [found[b] for b in parts]))
                else:  # a larger block was computed before this node was asked for less
                    ready += [found[b] for b in found if b.start <= node.start and node.stop <= b.stop]
        sent.update(shard for c in ready for shard in range(c.block.start, c.block.stop))
        return self._link.push_pull(step, ready)


def _join(node: Block, parts: Sequence[Contribution]) -> Contribution:
    """The sums over `node` from those of the blocks that make it up, in the tree's order, in place."""
    for left, right in joins(node, [p.block for p in parts]):
        np.add(parts[left].gradient, parts[right].gradient, out=parts[left].gradient)
        np.add(parts[left].totals, parts[right].totals, out=parts[left].totals)
    first = min(parts, key=lambda p: p.block.start)
    return Contribution(node, first.gradient, first.totals)
