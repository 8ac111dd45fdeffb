"""The audit for silent data corruption: two workers compute some of the answers, and their bits are compared.

All workers compute the same bits for the same block, so a difference means that a processor or its memory was
wrong. A counter-based stream decides which blocks of a step are audited, and by whom. The audit never changes
the result: answers are compared before the server joins them, and two equal answers are interchangeable.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from distbp.core.arrays import Array
from distbp.core.errors import CorruptionError
from distbp.core.reduction import Block, blocks_within
from distbp.core.streams import Purpose, Stream
from distbp.engine.blueprint import Blueprint
from distbp.engine.parameter_server import Contribution
from distbp.team.exchange.segment import PID, Range, Segment


class Audit:
    """The audits of one step after another.

    share: the part of all (step, block) answers that is audited, 0 to 1. shards: of the job. name: gives
    words for a worker by its row in the segment."""

    def __init__(self, seed: int, share: float, shards: int, name: Callable[[int], str]) -> None:
        self._share = share
        self._shards = shards
        self._name = name
        self._stream = Stream(seed, Purpose.AUDIT)
        self._step = -1
        self._due: dict[Block, tuple[int, int]] = {}  # the workers that compute it: host, second
        self._heard: dict[tuple[Block, int], Contribution] = {}
        self.compared = 0  # blocks, over all steps

    def plan(self, step: int, hosts: Mapping[int, Sequence[Range]]) -> dict[int, list[Range]]:
        """Begins `step`. Returns worker -> the ranges to compute besides those that it hosts.

        hosts: worker -> the ranges that it hosts. With fewer than two busy workers nothing is audited."""
        self._step = step
        self.forget()
        extra: dict[int, list[Range]] = {}
        busy = sorted(worker for worker, given in hosts.items() if given)
        if len(busy) < 2:
            return extra
        draw = self._stream.at(step)
        chosen, other = draw.random(self._shards) < self._share, draw.random(self._shards)
        for host in busy:
            for given in hosts[host]:
                for block in blocks_within(self._shards, given.start, given.stop):
                    if chosen[block.start]:
                        others = [worker for worker in busy if worker != host]
                        second = others[int(other[block.start] * len(others))]
                        self._due[block] = host, second
                        extra.setdefault(second, []).append(Range(block.start, block.stop, step))
        return extra

    def give_up(self, block: Block) -> None:
        """Drops the audit of a block, because there was no room to ask for it."""
        self._due.pop(block, None)

    def forget(self) -> None:
        """Drops all audits that are due at this step: a worker that should answer may be gone."""
        self._due.clear()
        self._heard.clear()

    @property
    def settled(self) -> bool:
        """Whether every comparison of this step is done or dropped."""
        return not self._due

    def hear(self, worker: int, answer: Contribution) -> None:
        """Records an answer. Raises CorruptionError if it differs from the other worker's."""
        block = answer.block
        due = self._due.get(block)
        if due is None or worker not in due:
            return
        self._heard[block, worker] = answer
        first, second = (self._heard.get((block, auditor)) for auditor in due)
        if first is None or second is None:
            return
        del self._due[block]
        self.compared += 1
        if not (same_bits(first.gradient, second.gradient) and same_bits(first.totals, second.totals)):
            raise CorruptionError(self._difference(due, first, second))

    def _difference(self, workers: tuple[int, int], first: Contribution, second: Contribution) -> str:
        block = first.block
        shards = f"shard {block.start}" if block.size == 1 else f"shards {block.start} to {block.stop - 1}"
        places = _differing(first.gradient, second.gradient)
        where = (
            f"at {len(places):,} of {len(first.gradient):,} places, the first is {places[0]:,}"
            if len(places)
            else "in the totals"
        )
        names = " and ".join(self._name(worker) for worker in workers)
        return (
            f"step {self._step}: {names} on {platform.node()} computed different gradient sums for {shards}"
            f" ({where}). One of them has a processor or memory that computes wrong; the update was not"
            " applied. Take that machine out of use, and go on from the last checkpoint elsewhere;"
            " `distbp verify` shows which of the two was wrong, and whether earlier steps were right"
        )


def same_bits(first: Array, second: Array) -> bool:
    """Whether two arrays of one dtype have equal bits: NaN equals NaN, and 0 does not equal -0."""
    kind = f"u{first.itemsize}"
    return bool(np.array_equal(first.view(kind), second.view(kind)))


def _differing(first: Array, second: Array) -> Array:
    kind = f"u{first.itemsize}"
    return np.flatnonzero(first.view(kind) != second.view(kind))


def audit_of(blueprint: Blueprint, segment: Segment) -> Audit | None:
    """The audit of a segment's workers; None if the job asks for none."""
    job = blueprint.job
    if not job.audit:
        return None

    def name(worker: int) -> str:
        return f"worker {worker} (process {segment.words[segment.row(worker) + PID]})"

    return Audit(job.seed, job.audit, blueprint.shards, name)
