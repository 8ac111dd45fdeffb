"""Collects the blocks of a step until all shards have one. Pure: no waiting, no shared memory, no clock."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Generic, TypeVar

from distbp.core.reduction import Block

T = TypeVar("T")


class Gathering(Generic[T]):
    """Collects one answer for every shard from blocks, which may repeat, nest, or come from several workers.

    All answers for a block have the same bits, so the first answer counts. Blocks are nodes of one tree, so
    two blocks are equal, nested or disjoint. shards: of the job."""

    def __init__(self, shards: int) -> None:
        self._all = (1 << shards) - 1
        self.start()

    def start(self) -> None:
        """Forgets all answers, for the next step."""
        self._have = 0
        self._found: dict[Block, T] = {}

    def offer(self, block: Block, answer: T) -> bool:
        """Takes the answer if some shard of `block` still needs one. Returns whether it did."""
        mask = ((1 << (block.stop - block.start)) - 1) << block.start
        if self._have & mask == mask:
            return False
        if self._have & mask:  # parts of the block came before: the larger block replaces them
            for held in [b for b in self._found if block.start <= b.start and b.stop <= block.stop]:
                del self._found[held]
        self._have |= mask
        self._found[block] = answer
        return True

    @property
    def complete(self) -> bool:
        """Whether every shard has an answer."""
        return self._have == self._all

    def has(self, shards: Iterable[int]) -> bool:
        """Whether all of these shards have an answer."""
        return all(self._have >> shard & 1 for shard in shards)

    def answers(self) -> list[tuple[Block, T]]:
        """The answers by block, in shard order. When complete, every shard is in exactly one block."""
        return sorted(self._found.items())

    def missing(self) -> list[int]:
        """The shards without an answer, in order."""
        rest = self._all & ~self._have
        return [shard for shard in range(rest.bit_length()) if rest >> shard & 1]


def runs(shards: Sequence[int]) -> list[tuple[int, int]]:
    """Turns sorted shard numbers into ranges [start, stop) of consecutive numbers."""
    ranges: list[tuple[int, int]] = []
    for shard in shards:
        if ranges and ranges[-1][1] == shard:
            ranges[-1] = (ranges[-1][0], shard + 1)
        else:
            ranges.append((shard, shard + 1))
    return ranges
