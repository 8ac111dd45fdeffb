"""Which blocks of a step have arrived, and whether they are all. Pure: no waiting, no memory, no clock."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Generic, TypeVar

from distbp.reduction import Block

T = TypeVar("T")


class Gathering(Generic[T]):
    """Collects one answer for every shard out of blocks that may repeat, nest, or come from several workers.

    All answers for one block are the same bits, so the first is as good as any. Blocks are nodes of one
    tree: two of them are equal, nested or apart, never partly overlapping.
    """

    def __init__(self, shards: int) -> None:
        self._all = (1 << shards) - 1
        self.start()

    def start(self) -> None:
        """Forgets everything, for the next step."""
        self._have = 0
        self._found: dict[Block, T] = {}

    def offer(self, block: Block, answer: T) -> bool:
        """Takes the answer unless it is not needed any more; says whether it was taken."""
        mask = ((1 << (block.stop - block.start)) - 1) << block.start
        if self._have & mask == mask:
            return False
        if self._have & mask:  # parts of it came earlier, from others: the larger block replaces them
            for held in [b for b in self._found if block.start <= b.start and b.stop <= block.stop]:
                del self._found[held]
        self._have |= mask
        self._found[block] = answer
        return True

    @property
    def complete(self) -> bool:
        return self._have == self._all

    def has(self, shards: Iterable[int]) -> bool:
        """Whether all of these have been answered for."""
        return all(self._have >> shard & 1 for shard in shards)

    def answers(self) -> list[tuple[Block, T]]:
        """What was taken, in shard order; once complete, every shard is in exactly one block."""
        return sorted(self._found.items())

    def missing(self) -> list[int]:
        """The shards that nobody has answered for yet."""
        rest = self._all & ~self._have
        return [shard for shard in range(rest.bit_length()) if rest >> shard & 1]


def runs(shards: Sequence[int]) -> list[tuple[int, int]]:
    """Sorted shard numbers as ranges [start, stop) of neighbors."""
    found: list[tuple[int, int]] = []
    for shard in shards:
        if found and found[-1][1] == shard:
            found[-1] = (found[-1][0], shard + 1)
        else:
            found.append((shard, shard + 1))
    return found
