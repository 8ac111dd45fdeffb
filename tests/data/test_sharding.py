"""Which rows a step uses: `distbp.data.sharding`, and `distbp.data.batches`, which gathers them."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distbp.core.arrays import Array
from distbp.data import batches
from distbp.data.batches import ShardReader, WholeData
from distbp.data.prepared import PreparedRows
from distbp.data.sharding import POOL, Sharding, evaluated_rows, slice_bounds

shardings = st.builds(
    Sharding,
    rows=st.integers(1, 60),
    batch_size=st.integers(1, 25),
    shards=st.integers(1, 12),
    seed=st.integers(0, 2**64 - 1),
    shuffle=st.booleans(),
    drop_last=st.booleans(),
)


def rows_of_data(sharding: Sharding, weighted: bool = True) -> PreparedRows:
    """Row i holds i, everywhere."""
    numbers = np.arange(sharding.rows, dtype=np.float32)
    return PreparedRows(
        np.stack([numbers, -numbers], axis=1),
        numbers.astype(np.intp),
        numbers.astype(np.float64) + 0.5 if weighted else None,
    )


def readers(sharding: Sharding, data: PreparedRows) -> list[ShardReader]:
    whole = WholeData({"train": data}, {"train": sharding.rows}, sharding)
    return [
        ShardReader(*whole.train(shard), sharding, shard, np.dtype(np.float32))
        for shard in range(sharding.shards)
    ]


def batch(found: list[ShardReader], step: int) -> list[int]:
    """The rows of all slices, as the slices themselves say."""
    return [int(row) for reader in found for row in reader.slice(step).targets.copy()]


@given(st.integers(0, 1000), st.integers(1, 40))
def test_slices_cut_a_batch(rows: int, shards: int) -> None:
    bounds = [slice_bounds(rows, shards, shard) for shard in range(shards)]
    assert [row for start, stop in bounds for row in range(start, stop)] == list(range(rows))
    sizes = [stop - start for start, stop in bounds]
    assert sizes == sorted(sizes, reverse=True)  # the longer ones come first
    assert sizes[0] - sizes[-1] <= 1


@given(st.integers(0, 1000), st.integers(1, 40))
def test_every_row_is_evaluated_once(rows: int, shards: int) -> None:
    parts = [evaluated_rows(rows, shards, shard) for shard in range(shards)]
    assert [row for start, stop in parts for row in range(start, stop)] == list(range(rows))


@given(shardings)
def test_every_row_is_dealt_once(sharding: Sharding) -> None:
    dealt = np.concatenate([sharding.dealt(shard) for shard in range(sharding.shards)])
    assert sorted(dealt) == list(range(sharding.rows))
    assert dealt.dtype == np.int64


@given(shardings)
def test_every_row_is_used_once_in_an_epoch(sharding: Sharding) -> None:
    found = readers(sharding, rows_of_data(sharding))
    for epoch in range(2):
        first = epoch * sharding.steps_per_epoch
        steps = [batch(found, first + index) for index in range(sharding.steps_per_epoch)]
        assert [len(step) for step in steps] == [
            sharding.batch_rows(index) for index in range(sharding.steps_per_epoch)
        ]
        used = sorted(row for step in steps for row in step)
        full, rest = divmod(sharding.rows, sharding.batch_size)
        if sharding.drop_last and full and rest:
            assert len(used) == len(set(used)) == full * sharding.batch_size
        else:
            assert used == list(range(sharding.rows))


@given(shardings)
def test_without_shuffling_step_t_trains_on_the_next_rows_of_the_file(sharding: Sharding) -> None:
    sharding = replace(sharding, shuffle=False)
    found = readers(sharding, rows_of_data(sharding))
    for step in range(2 * sharding.steps_per_epoch):
        start = step % sharding.steps_per_epoch * sharding.batch_size
        assert batch(found, step) == list(range(start, min(start + sharding.batch_size, sharding.rows)))


@given(shardings, st.data())
def test_slices_are_a_pure_function_of_the_step(sharding: Sharding, data: st.DataObject) -> None:
    rows = rows_of_data(sharding)
    jumping = readers(sharding, rows)
    most = 3 * sharding.steps_per_epoch - 1
    steps = data.draw(st.lists(st.integers(0, most), max_size=8))
    for step in steps:
        fresh = readers(sharding, rows)
        assert batch(jumping, step) == batch(fresh, step)
        for old, new in zip(jumping, fresh, strict=True):
            np.testing.assert_array_equal(old.rows(step), new.slice(step).targets)


@given(shardings, st.booleans())
def test_inputs_targets_and_weights_stay_together(sharding: Sharding, weighted: bool) -> None:
    for reader in readers(sharding, rows_of_data(sharding, weighted)):
        for step in range(sharding.steps_per_epoch):
            x, targets, weights, count = reader.slice(step)
            assert x.shape == (count, 2)
            assert x.flags.c_contiguous
            np.testing.assert_array_equal(x, np.stack([targets, -targets], axis=1))
            if weighted:
                np.testing.assert_array_equal(weights, targets + 0.5)
            else:
                assert weights is None


@given(shardings)
def test_gathering_less_ahead_changes_nothing(sharding: Sharding) -> None:
    rows = rows_of_data(sharding)
    steps = range(2 * sharding.steps_per_epoch)
    ahead = [batch(readers(sharding, rows), step) for step in steps]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "BLOCK_BYTES", 1)
        found = readers(sharding, rows)
        assert [batch(found, step) for step in steps] == ahead


def order_of_epoch(sharding: Sharding, epoch: int) -> list[int]:
    found = readers(sharding, rows_of_data(sharding))
    first = epoch * sharding.steps_per_epoch
    return [row for i in range(sharding.steps_per_epoch) for row in batch(found, first + i)]


def lengths_of_slices(sharding: Sharding, lengths: Array, epoch: int) -> list[list[list[int]]]:
    """By step, of each shard's slice the lengths of its rows."""
    data = PreparedRows(
        np.stack([lengths, lengths], axis=1).astype(np.float32), np.arange(len(lengths)), None
    )
    found, first = readers(sharding, data), epoch * sharding.steps_per_epoch
    steps = [
        [reader.slice(first + i).targets.copy() for reader in found] for i in range(sharding.steps_per_epoch)
    ]
    used = np.concatenate([rows for step in steps for rows in step])
    assert sorted(used) == list(range(len(lengths)))  # every row once
    return [[lengths[rows].tolist() for rows in step] for step in steps]


@given(shardings, st.integers(0, 3))
def test_buckets_use_every_row_once_and_are_sorted(sharding: Sharding, epoch: int) -> None:
    sharding = replace(sharding, shuffle=True, drop_last=False, buckets=(-1,))
    lengths = np.random.default_rng(1).integers(0, 9, sharding.rows)
    steps = lengths_of_slices(sharding, lengths, epoch)
    full = steps[: sharding.rows // sharding.batch_size]
    for shard in range(sharding.shards):  # a slice's rows lie between those of others: no overlap
        ranges = sorted((min(step[shard]), max(step[shard])) for step in full if step[shard])
        assert all(one[1] <= two[0] for one, two in itertools.pairwise(ranges))


def test_slices_of_one_step_have_similar_lengths_in_all_shards() -> None:
    """And come in a random order, another one in each epoch."""
    sharding, lengths = Sharding(960, 32, 4, buckets=(-1,)), np.arange(960) % 60
    orders = []
    for epoch in range(2):
        steps = lengths_of_slices(sharding, lengths, epoch)
        assert max(max(map(max, step)) - min(map(min, step)) for step in steps) <= 15  # of 60
        orders.append([max(step[0]) for step in steps])
    assert sorted(orders[0]) not in orders
    assert orders[0] != orders[1]


def test_buckets_reach_over_a_pool_of_slices_at_most() -> None:
    sharding = Sharding(2 * POOL * 4, 4, 1, buckets=(-1,))
    plain = order_of_epoch(replace(sharding, buckets=()), 0)
    lengths = np.random.default_rng(0).integers(0, 9, sharding.rows)
    data = PreparedRows(np.stack([lengths] * 2, axis=1).astype(np.float32), np.arange(len(lengths)), None)
    found = readers(sharding, data)
    order = [row for step in range(sharding.steps_per_epoch) for row in batch(found, step)]
    half = len(order) // 2
    assert order != plain
    assert set(order[:half]) == set(plain[:half])


def test_shuffling_differs_by_epoch_and_seed() -> None:
    sharding = Sharding(60, 10, 3, seed=1)
    orders = [order_of_epoch(sharding, epoch) for epoch in range(3)]
    orders += [order_of_epoch(replace(sharding, seed=2), 0), list(range(60))]
    assert len({tuple(order) for order in orders}) == len(orders)


def test_rows_left_out_change_from_epoch_to_epoch() -> None:
    sharding = Sharding(23, 10, 3, seed=1, drop_last=True)
    assert sharding.steps_per_epoch == 2
    left_out = {frozenset(range(23)) - set(order_of_epoch(sharding, epoch)) for epoch in range(6)}
    assert len(left_out) > 1


def test_drop_last_keeps_the_only_batch() -> None:
    assert Sharding(3, 10, 2, drop_last=True).steps_per_epoch == 1


def test_more_shards_than_rows_in_the_last_batch() -> None:
    sharding = Sharding(10, 8, 4, shuffle=False)
    found = readers(sharding, rows_of_data(sharding))
    assert [reader.slice(1).rows for reader in found] == [1, 1, 0, 0]
    assert [reader.slice(0).rows for reader in found] == [2, 2, 2, 2]


def test_a_shard_needs_only_its_own_rows() -> None:
    sharding = Sharding(50, 12, 3, seed=9)
    data = rows_of_data(sharding)
    for shard, reader in enumerate(readers(sharding, data)):
        own = np.sort(sharding.dealt(shard))
        part = PreparedRows(data.inputs[own], data.targets[own], None)
        places: Array = np.searchsorted(own, sharding.dealt(shard))
        alone = ShardReader(part, places, sharding, shard, np.dtype(np.float32))
        for step in range(2 * sharding.steps_per_epoch):
            np.testing.assert_array_equal(alone.slice(step).targets, reader.slice(step).targets)


@given(sharding=shardings, step=st.integers(0, 40))
def test_rows_before_a_step_are_those_of_the_batches_before_it(sharding, step):
    batches = (sharding.batch_rows(earlier % sharding.steps_per_epoch) for earlier in range(step))
    assert sharding.rows_before(step) == sum(batches)
