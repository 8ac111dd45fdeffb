"""The segment: nothing overlaps, and what is half written is not believed."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distbp.core.arrays import Array
from distbp.core.errors import ExchangeError
from distbp.core.reduction import Block
from distbp.team.exchange import segment as seg
from distbp.team.exchange.local_workers import LocalWorkers
from distbp.team.exchange.segment import MAX_RANGES, MAX_SLOTS, MAX_WORKERS, Range, Segment


@pytest.fixture
def segment() -> Iterator[Segment]:
    made = seg.create(10, np.float32, 3, attempt=2)
    yield made
    made.close()


def extent(array: Array) -> tuple[int, int]:
    start = array.ctypes.data
    return start, start + array.nbytes


@given(st.integers(1, 3000), st.sampled_from([np.float32, np.float64]), st.integers(3, 40))
def test_no_two_places_overlap(size: int, dtype: type, totals: int) -> None:
    made = seg.create(size, dtype, totals, attempt=1)
    words = np.frombuffer(made.words, np.int64)
    found = [extent(words), extent(made.vector)]
    for worker in (0, 1, MAX_WORKERS - 1):
        for number in (0, 1, MAX_SLOTS - 1):
            slot = made.slot(worker, number)
            found += [
                extent(np.frombuffer(slot.header, np.int64)),
                extent(slot.totals),
                extent(slot.gradient),
            ]
            slot.gradient[-1] = 1  # within the memory
            assert slot.gradient.ctypes.data % 64 == 0
    found.sort()
    assert all(left[1] <= right[0] for left, right in pairwise(found))
    assert made.row(MAX_WORKERS - 1) + 8 + 3 * MAX_RANGES <= len(words)
    made.close()


def test_both_ends_see_the_same(segment: Segment) -> None:
    other = seg.attach(segment.handle)
    segment.vector[:] = np.arange(10)
    assert other.vector.tolist() == list(range(10))
    assert other.vector.dtype == np.float32
    assert other.words[seg.ATTEMPT] == 2
    other.slot(1, 2).gradient[:] = 5
    assert segment.slot(1, 2).gradient.tolist() == [5] * 10
    assert other.slot(1, 2) is other.slot(1, 2)  # programs are bound to it


def test_ranges(segment: Segment) -> None:
    worker = seg.attach(segment.handle)
    assert worker.ranges(0) == []
    segment.set_ranges({0: [Range(0, 3), Range(5, 6, only_step=4)], 1: [Range(3, 5)]})
    assert worker.ranges(0) == [Range(0, 3, -1), Range(5, 6, 4)]
    assert worker.ranges(1) == [Range(3, 5, -1)]
    segment.set_ranges({0: []})
    assert worker.ranges(0) == []
    assert worker.ranges(1) == [Range(3, 5, -1)]


def test_ranges_that_are_being_written_are_not_believed(segment: Segment) -> None:
    segment.set_ranges({0: [Range(0, 3)]})
    segment.words[seg.VERSION] += 1
    assert segment.ranges(0) == []
    segment.words[seg.VERSION] += 1
    assert segment.ranges(0) == [Range(0, 3)]


def test_limits_are_errors(segment: Segment) -> None:
    with pytest.raises(ExchangeError, match=r"a worker can host at most 8 ranges of shards, not 9"):
        segment.set_ranges({0: [Range(n, n + 1) for n in range(9)]})
    assert segment.ranges(0) == []
    with pytest.raises(ExchangeError, match=r"a worker hosts more than 48 blocks of shards; use more"):
        segment.slot(0, MAX_SLOTS)


def test_a_slot_is_believed_for_its_attempt_and_step_only(segment: Segment) -> None:
    slot = segment.slot(0, 0)
    assert slot.posted(0, 0) is None or slot.posted(2, 0) is None
    slot.post(2, 7, Block(2, 4))
    assert slot.posted(2, 7) == Block(2, 4)
    assert slot.posted(2, 6) is None
    assert slot.posted(2, 8) is None
    assert slot.posted(1, 7) is None
    slot.header[seg.SLOT_STEP] = -1  # as while it is written
    assert slot.posted(2, 7) is None


def test_fresh_slots_hold_nothing(segment: Segment) -> None:
    """Zeros look like attempt 0, step 0: attempts begin at 1."""
    assert segment.slot(3, 0).posted(1, 0) is None


def test_beats(segment: Segment) -> None:
    assert segment.beat_age_s() < 60
    segment.beat(4)
    assert segment.beat_age_s(4) < 60
    assert segment.beat_age_s(5) > 60  # never heard of


def test_a_worker_that_is_not_named_any_more_hosts_nothing(segment: Segment) -> None:
    workers = LocalWorkers(segment)
    workers.assign({0: [Range(0, 2)], 1: [Range(2, 4)]})
    workers.assign({1: [Range(0, 4)]})
    assert segment.ranges(0) == []
    assert segment.ranges(1) == [Range(0, 4)]
    assert workers.beats().keys() == {1}


def test_missing_shards_go_to_those_who_have_none_of_them(segment: Segment) -> None:
    workers = LocalWorkers(segment)
    workers.assign({0: [Range(0, 2)], 1: [Range(2, 4)], 2: [Range(4, 6)]})
    assert workers.help_out(9, [2, 3])
    assert segment.ranges(0) == [Range(0, 2), Range(2, 4, only_step=9)]
    assert segment.ranges(1) == [Range(2, 4)]
    assert segment.ranges(2) == [Range(4, 6)]
    assert not workers.help_out(9, [1, 2, 5])


def test_nobody_helps_with_a_shard_whose_rows_are_elsewhere(segment: Segment) -> None:
    """Such a worker would wait for rows that nobody sends, and the step for the worker."""
    workers = LocalWorkers(segment, reached={0, 1, 3}.__contains__)
    workers.assign({0: [Range(0, 2)], 1: [Range(3, 4)]})
    assert not workers.help_out(9, [2])
    assert workers.help_out(9, [2, 3])
    assert segment.ranges(0) == [Range(0, 2), Range(3, 4, only_step=9)]


def test_a_server_that_is_gone_is_named(segment: Segment) -> None:
    handle = segment.handle
    segment.close()
    with pytest.raises(ExchangeError, match=r"the shared memory of process \d+ cannot be opened"):
        seg.attach(handle)
