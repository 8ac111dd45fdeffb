from __future__ import annotations

import itertools
import pickle
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distbp.core.arrays import Array
from distbp.core.reduction import Block, assign, blocks_within, joins, middle

shard_counts = st.integers(1, 70)


def is_node(block: Block, shards: int) -> bool:
    node = Block(0, shards)
    while node != block:
        if node.size == 1:
            return False
        half = middle(node)
        node = Block(node.start, half) if block.stop <= half else Block(half, node.stop)
    return True


def tree_sum(leaves: Sequence[Array], block: Block) -> Array:
    """The definition: a node is the sum of its halves."""
    if block.size == 1:
        return leaves[block.start]
    half = middle(block)
    return np.add(tree_sum(leaves, Block(block.start, half)), tree_sum(leaves, Block(half, block.stop)))


def join(whole: Block, blocks: Sequence[Block], leaves: Sequence[Array]) -> Array:
    sums = [tree_sum(leaves, block).copy() for block in blocks]
    for left, right in joins(whole, blocks):
        sums[left] += sums[right]
    return sums[next(i for i, block in enumerate(blocks) if block.start == whole.start)]


@st.composite
def partitions(draw: st.DrawFn) -> tuple[int, list[Block]]:
    """Shards, and the blocks of any number of ranges that together are all of them, in any order."""
    shards = draw(shard_counts)
    cuts = draw(st.sets(st.integers(1, shards), max_size=8)) | {0, shards}
    edges = sorted(cuts)
    blocks = [b for a, z in itertools.pairwise(edges) for b in blocks_within(shards, a, z)]
    return shards, draw(st.permutations(blocks))


def test_the_drawing_in_the_docstring() -> None:
    assert middle(Block(0, 6)) == 4
    assert middle(Block(0, 4)) == 2
    assert middle(Block(4, 6)) == 5
    assert blocks_within(6, 0, 6) == [Block(0, 6)]
    assert blocks_within(6, 1, 6) == [Block(1, 2), Block(2, 4), Block(4, 6)]
    assert joins(Block(0, 6), [Block(4, 6), Block(0, 2), Block(2, 4)]) == [(1, 2), (1, 0)]


@given(st.integers(0, 1000), st.integers(2, 10_000))
def test_the_left_half_is_the_largest_power_of_two_that_leaves_something(start: int, size: int) -> None:
    left = middle(Block(start, start + size)) - start
    assert left & (left - 1) == 0
    assert left < size <= 2 * left


@given(partitions(), st.integers(0, 2**32 - 1))
def test_any_split_into_blocks_gives_the_same_bits(split: tuple[int, list[Block]], seed: int) -> None:
    shards, blocks = split
    rng = np.random.default_rng(seed)
    # Sizes far apart, so that another order of addition shows.
    leaves = list(
        (rng.normal(size=(shards, 7)) * 10.0 ** rng.integers(-6, 7, (shards, 7))).astype(np.float32)
    )
    whole = Block(0, shards)
    assert join(whole, blocks, leaves).tobytes() == tree_sum(leaves, whole).tobytes()


@given(shard_counts, st.data())
def test_blocks_within_are_the_fewest_nodes_that_are_the_range(shards: int, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, shards))
    stop = data.draw(st.integers(start, shards))
    blocks = blocks_within(shards, start, stop)
    assert [shard for block in blocks for shard in range(*block)] == list(range(start, stop))
    assert all(is_node(block, shards) for block in blocks)
    for left, right in itertools.pairwise(blocks):
        assert not is_node(Block(left.start, right.stop), shards)


@given(st.integers(1, 200), st.integers(1, 250))
def test_assign_covers_every_shard_once_and_evenly(shards: int, workers: int) -> None:
    ranges = assign(shards, workers)
    assert len(ranges) == workers
    assert [s for start, stop in ranges for s in range(start, stop)] == list(range(shards))
    sizes = [stop - start for start, stop in ranges]
    assert max(sizes) - min(sizes) <= 1


@given(st.integers(0, 6), st.integers(0, 4))
def test_workers_that_are_a_power_of_two_get_one_block_each(more: int, power: int) -> None:
    workers, shards = 2**power, 2 ** (power + more)
    assert all(len(blocks_within(shards, *r)) == 1 for r in assign(shards, workers))


def test_joins_within_a_node() -> None:
    # A relay joins what its node hosts: shards 4 to 6 of 7.
    assert joins(Block(4, 7), [Block(6, 7), Block(4, 6)]) == [(1, 0)]


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ([Block(0, 2)], r"shard 2 is in no block of \[Block\(start=0, stop=2\)\]"),
        ([Block(0, 2), Block(2, 4), Block(3, 4)], "overlap others or are not nodes of the tree"),
        ([Block(0, 4), Block(0, 2)], r"blocks \[Block\(start=0, stop=2\)\] overlap others"),
        ([Block(0, 1), Block(1, 3), Block(3, 4)], "shard 1 is in no block"),  # [1, 3) is not a node
        ([], "shard 0 is in no block"),
        ([Block(0, 2), Block(0, 2), Block(2, 4)], "a block is given twice in"),
    ],
)
def test_blocks_that_are_no_cover_are_refused(blocks: list[Block], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        joins(Block(0, 4), blocks)


def test_blocks_travel() -> None:
    assert pickle.loads(pickle.dumps(Block(2, 4))) == Block(2, 4)
