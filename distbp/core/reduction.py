"""The fixed binary tree over shard numbers, in which all sums are combined.

Floating-point addition is not associative, so the order of a sum is part of its result. Here the order
belongs to the job: node [lo, hi) is the sum of its two halves, split at the largest power of two that leaves
something on the right. A *block* is a range that is a node of the tree. A worker that hosts a block sends
one vector, already summed; the server joins blocks upward. Any split of the shards into blocks
gives the same bits.

                 [0,6)
             /          \\
          [0,4)         [4,6)            6 shards
         /     \\        /    \\
      [0,2)   [2,4)    4      5
      /  \\    /  \\
     0    1  2    3
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

# Sums over the flat vector are taken in pieces of so many numbers, and then over the pieces in order. Part of
# the numerics.
PIECE = 32768


class Block(NamedTuple):
    """Shards `start` to `stop - 1`, a node of the tree."""

    start: int
    stop: int

    @property
    def size(self) -> int:
        return self.stop - self.start


class Join(NamedTuple):
    """Add what stands at place `right` to what stands at place `left` (places in a list of blocks)."""

    left: int
    right: int


def middle(block: Block) -> int:
    """Where a node of two or more shards is split."""
    return block.start + (1 << ((block.size - 1).bit_length() - 1))


def blocks_within(shards: int, start: int, stop: int) -> list[Block]:
    """The fewest nodes of the tree over `shards` shards that together are exactly [start, stop)."""
    found: list[Block] = []
    waiting = [Block(0, shards)]
    while waiting:
        block = waiting.pop()
        if block.stop <= start or stop <= block.start:
            continue
        if start <= block.start and block.stop <= stop:
            found.append(block)
        else:
            half = middle(block)
            waiting += [Block(half, block.stop), Block(block.start, half)]
    return found


def joins(whole: Block, blocks: Sequence[Block]) -> list[Join]:
    """The additions, in order, that turn sums over `blocks` (any order) into the sum over `whole`, which ends
    at the place of the block that starts where `whole` starts. `whole` is all shards, or a node.

    Raises ValueError unless the blocks cover every shard exactly once and are nodes of the tree.
    """
    place = {block: index for index, block in enumerate(blocks)}
    if len(place) < len(blocks):
        raise ValueError(f"a block is given twice in {list(blocks)}")
    order: list[Join] = []

    def combine(block: Block) -> int:
        if block in place:
            return place.pop(block)
        if block.size <= 1:
            raise ValueError(f"shard {block.start} is in no block of {list(blocks)}")
        half = middle(block)
        left = combine(Block(block.start, half))
        right = combine(Block(half, block.stop))
        order.append(Join(left, right))
        return left

    combine(whole)
    if place:
        raise ValueError(f"blocks {sorted(place)} overlap others or are not nodes of the tree under {whole}")
    return order


def assign(shards: int, workers: int) -> list[tuple[int, int]]:
    """Consecutive ranges of shards, one for each worker, as equal as can be; workers beyond the number of
    shards get empty ranges."""
    return [(shards * w // workers, shards * (w + 1) // workers) for w in range(workers)]
