"""The fixed binary tree over shard numbers, in which all sums are combined.

Floating-point addition is not associative, so the result of a sum depends on its order. The number of shards
alone decides the order: node [lo, hi) is the sum of its two parts, and the left part has the largest power of
two that is below hi - lo. A *block* is a range of shards that is a node of the tree. A worker that hosts a
block sends one vector, already summed. The server joins blocks upward. Every split of the shards into blocks
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

# Sums over the flat vector are computed for pieces of this many numbers. Then the sums of the pieces are
# added in order. Part of the numerics.
PIECE = 32768


class Block(NamedTuple):
    """Shards `start` to `stop - 1`, a node of the tree."""

    start: int
    stop: int

    @property
    def size(self) -> int:
        return self.stop - self.start


class Join(NamedTuple):
    """One addition: the sum at `right` is added to the sum at `left`. Both are places in a list of blocks."""

    left: int
    right: int


def middle(block: Block) -> int:
    """The shard at which a node of two or more shards is split: the first one of the right part."""
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
    """The additions, in order, that turn the sums of `blocks` (in any order) into the sum over `whole`. That
    sum ends up at the place of the block that starts where `whole` starts. `whole`: all shards, or a node.

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
    """Consecutive ranges [start, stop) of shards, one for each worker. Their lengths differ by at most 1. If
    there are more workers than shards, some ranges are empty."""
    return [(shards * w // workers, shards * (w + 1) // workers) for w in range(workers)]
