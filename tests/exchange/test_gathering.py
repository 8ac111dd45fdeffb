"""Gathering: one answer for every shard, whatever repeats, nests or comes late."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from distbp.core.reduction import Block, blocks_within, joins
from distbp.team.exchange.gathering import Gathering, runs


def gather(shards: int, *blocks: tuple[int, int]) -> Gathering[int]:
    gathering: Gathering[int] = Gathering(shards)
    for number, block in enumerate(blocks):
        gathering.offer(Block(*block), number)
    return gathering


def test_complete_when_every_shard_is_in() -> None:
    gathering = gather(4, (0, 2))
    assert not gathering.complete
    assert gathering.missing() == [2, 3]
    assert gathering.has([0, 1]) and not gathering.has([1, 2])
    gathering.offer(Block(2, 4), 7)
    assert gathering.complete
    assert gathering.missing() == []
    assert gathering.answers() == [(Block(0, 2), 0), (Block(2, 4), 7)]


def test_the_first_answer_counts() -> None:
    gathering = gather(2, (0, 1), (1, 2))
    assert not gathering.offer(Block(0, 1), 9)
    assert not gathering.offer(Block(1, 2), 9)
    assert gathering.answers() == [(Block(0, 1), 0), (Block(1, 2), 1)]


def test_a_part_of_what_is_there_is_not_needed() -> None:
    gathering = gather(4, (0, 4))
    assert not gathering.offer(Block(2, 3), 9)
    assert gathering.answers() == [(Block(0, 4), 0)]


def test_a_larger_block_replaces_its_parts() -> None:
    """A worker that was late answers for [0, 4) when another has answered for one shard of it."""
    gathering = gather(8, (2, 3), (4, 8))
    assert gathering.offer(Block(0, 4), 9)
    assert gathering.answers() == [(Block(0, 4), 9), (Block(4, 8), 1)]


def test_start_forgets() -> None:
    gathering = gather(2, (0, 2))
    gathering.start()
    assert gathering.answers() == []
    assert gathering.missing() == [0, 1]


@given(st.integers(1, 40), st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=12))
def test_whatever_comes_in_whatever_order_the_answers_are_a_cut_of_the_tree(
    shards: int, ranges: list[tuple[int, int]]
) -> None:
    gathering: Gathering[Block] = Gathering(shards)
    for ends in ranges:
        for block in blocks_within(shards, min(ends), max(ends)):
            gathering.offer(block, block)
    for shard in gathering.missing():
        gathering.offer(Block(shard, shard + 1), Block(shard, shard + 1))
    assert gathering.complete
    answers = gathering.answers()
    assert all(block == answer for block, answer in answers)
    joins(Block(0, shards), [block for block, _ in answers])  # raises unless each shard is in once


@given(st.sets(st.integers(0, 60)))
def test_runs_are_the_set_in_the_fewest_ranges(shards: set[int]) -> None:
    found = runs(sorted(shards))
    assert [shard for start, stop in found for shard in range(start, stop)] == sorted(shards)
    assert all(left[1] < right[0] for left, right in pairwise(found))
