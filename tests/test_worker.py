"""Worker: the sums of shards and of blocks, by hand and in any split."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rigs import Rig, classes, make_job, make_rig

from distbp.core.arrays import Array
from distbp.core.reduction import Block, blocks_within, middle
from distbp.engine.parameter_server import Contribution
from distbp.engine.totals import BOUND, LIVE, LOSS, ROWS, WEIGHT, saturating_layers, totals_size
from distbp.nn.kernels import NUMPY
from distbp.nn.program import Program

LAYERS = (
    {"type": "dense", "units": 6, "activation": "sigmoid"},
    {"type": "dropout", "rate": 0.3},
    {"type": "batch_normalization"},
    {"type": "dense", "units": 5, "activation": "tanh"},
    {"type": "dense", "units": 3},
)


def rig(rows: int = 43, shards: int = 4, weighted: bool = True, **fields: Any) -> Rig:
    fields = {"batch_size": 16, **fields}
    return make_rig(make_job(LAYERS, shards=shards, **fields), classes(rows, weighted=weighted))


def compute(rig: Rig, vector: Array, step: int, block: Block) -> Contribution:
    sums = rig.contribution(vector, block)
    rig.worker(vector).compute(step, block, sums.gradient, sums.totals)
    return sums


def by_hand(rig: Rig, vector: Array, step: int, shard: int) -> Contribution:
    """The sums of one shard, with nothing of the worker but where its rows are."""
    rows = rig.worker(vector).rows(step, shard)
    sums = rig.contribution(vector, Block(shard, shard + 1))
    sums.gradient[:], sums.totals[:] = 0, 0
    if not len(rows):
        return sums
    x, t, weights = (part[rows] for part in rig.training_arrays())
    program = Program(
        rig.blueprint.network(),
        len(rows),
        vector,
        kernels=NUMPY,
        loss=rig.blueprint.job.loss,
        gradient=sums.gradient,
        seed=5,
    )
    program.run(x, t, weights, step, shard)
    sums.totals[LOSS], _, sums.totals[BOUND], *live = program.totals
    sums.totals[LIVE:BOUND] = live
    sums.totals[WEIGHT] = weights.sum(dtype=np.float64)
    sums.totals[ROWS] = len(rows) if len(rows) > 1 else 0  # one row has no variance
    return sums


def add(left: Contribution, right: Contribution) -> Contribution:
    block = Block(left.block.start, right.block.stop)
    return Contribution(block, left.gradient + right.gradient, left.totals + right.totals)


def tree(rig: Rig, vector: Array, step: int, block: Block) -> Contribution:
    if block.size == 1:
        return by_hand(rig, vector, step, block.start)
    half = middle(block)
    return add(
        tree(rig, vector, step, Block(block.start, half)), tree(rig, vector, step, Block(half, block.stop))
    )


def assert_same(a: Contribution, b: Contribution) -> None:
    assert a.gradient.tobytes() == b.gradient.tobytes()
    np.testing.assert_array_equal(a.totals, b.totals)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shards", [1, 3, 8])
@pytest.mark.parametrize("step", [0, 1, 2, 4])  # 2: the last of the epoch, with 11 rows
def test_the_sum_over_all_shards_equals_the_tree_by_hand(shards: int, step: int, dtype: str) -> None:
    r = rig(shards=shards, dtype=dtype)
    vector, whole = r.start(), Block(0, shards)
    assert vector.dtype == dtype
    assert_same(compute(r, vector, step, whole), tree(r, vector, step, whole))


def test_more_shards_than_rows_in_a_batch() -> None:
    r = rig(rows=20, shards=7, batch_size=16)  # the last batch: 4 rows
    vector = r.start()
    assert [len(r.worker(vector).rows(1, shard)) for shard in range(7)] == [1, 1, 1, 1, 0, 0, 0]
    assert_same(compute(r, vector, 1, Block(0, 7)), tree(r, vector, 1, Block(0, 7)))
    empty = compute(r, vector, 1, Block(6, 7))
    assert not empty.gradient.any() and not empty.totals.any()


@settings(max_examples=25)
@given(st.integers(1, 8), st.data())
def test_any_split_over_workers_gives_the_same_bits(shards: int, data: st.DataObject) -> None:
    r = rig(shards=shards)
    vector, whole, step = r.start(), Block(0, shards), data.draw(st.integers(0, 5))
    expected = compute(r, vector, step, whole)
    cut = data.draw(st.integers(0, shards))
    sums = [
        compute(r, vector, step, block)
        for bounds in ((0, cut), (cut, shards))
        for block in blocks_within(shards, *bounds)
    ]
    server = r.server(vector, step=step)
    server.prepare(step, sums)
    assert server.gradient.tobytes() == expected.gradient.tobytes()
    np.testing.assert_array_equal(server.totals, expected.totals)


def test_steps_in_any_order_and_buffers_in_turn() -> None:
    # A worker hosts two blocks, goes back a step, and meets the smaller last batch in between.
    r = rig(shards=6)
    vector = r.start()
    worker = r.worker(vector)
    blocks = [Block(0, 4), Block(4, 6)]
    sums = [r.contribution(vector, block) for block in blocks]
    for step in (0, 2, 1, 5, 2, 0, 3):
        for block, own in zip(blocks, sums, strict=True):
            worker.compute(step, block, own.gradient, own.totals)
            assert_same(own, compute(r, vector, step, block))
    worker.forget()
    worker.compute(1, blocks[0], sums[1].gradient, sums[1].totals)
    assert_same(sums[1], compute(r, vector, 1, blocks[0]))


def test_the_vector_is_read_at_every_step() -> None:
    r = rig()
    vector = r.start()
    worker, sums = r.worker(vector), r.contribution(vector, Block(0, 4))
    worker.compute(0, *sums)
    before = sums.gradient.copy()
    vector *= np.float32(1.5)
    worker.compute(0, *sums)
    assert not np.array_equal(before, sums.gradient)
    assert_same(sums, compute(r, vector, 0, Block(0, 4)))


def test_dropout_depends_on_step_and_shard_alone() -> None:
    r = rig(rows=16, batch_size=16, shards=2, shuffle=False)  # the same rows at every step
    vector = r.start()
    found = [compute(r, vector, step, Block(s, s + 1)).gradient for step in (0, 1) for s in (0, 1)]
    assert len({g.tobytes() for g in found}) == 4


def test_class_weights_multiply_sample_weights() -> None:
    x, y, w = classes(32, weighted=True)
    by_class = [1.0, 2.5, 0.25]
    layers = [{"type": "dense", "units": 3}]
    both = make_rig(make_job(layers, class_weight=by_class, dtype="float64"), (x, y, w))
    folded = make_rig(make_job(layers, dtype="float64"), (x, y, w * np.array(by_class)[y]))
    vector = both.start()
    assert_same(compute(both, vector, 1, Block(0, 4)), compute(folded, vector, 1, Block(0, 4)))


def test_balanced_class_weights() -> None:
    x, y = classes(40)
    r = make_rig(make_job(class_weight="balanced", epochs=1), (x, y))
    counts = np.bincount(y)
    assert r.blueprint.class_weights == pytest.approx(40 / (3 * counts))
    assert make_rig(make_job(class_weight={1: 4.0}), (x, y)).blueprint.class_weights == (1, 4, 1)


def test_weights_are_summed_in_float64() -> None:
    r = rig(rows=16, batch_size=16, shards=1)
    weights = r.data.train(0)[0].weights
    assert weights is not None and weights.dtype == np.float32
    totals = compute(r, r.start(), 0, Block(0, 1)).totals
    assert totals[WEIGHT] == weights.sum(dtype=np.float64)
    assert totals[ROWS] == 16


def test_live_rows_of_units_are_counted_at_every_step() -> None:
    r = rig(rows=40, batch_size=16, shards=2)
    assert saturating_layers(r.blueprint) == {0: 6, 3: 5}
    assert totals_size(r.blueprint) == LIVE + 6 + 5 + 1  # and the bound
    vector = r.start()
    vector[: 6 * 5] *= 1000  # the first layer's weights
    vector[: 2 * 5] = 0  # but not of its first two units
    for step, rows in ((1, 16), (2, 8)):
        live = compute(r, vector, step, Block(0, 2)).totals[LIVE:-1]
        assert live[:2].tolist() == [rows, rows]
        assert live[2:6].sum() < 0.1 * 4 * rows


def test_evaluation_is_the_same_for_any_shards_and_equals_plain_sums() -> None:
    x, y, w = classes(37, weighted=True)
    held_out = classes(29, seed=4, weighted=True)
    found = []
    for shards in (1, 5, 8):
        job = make_job(LAYERS, shards=shards, batch_size=16, class_weight=[1, 2, 3], dtype="float64")
        r = make_rig(job, (x, y, w), {"validation": held_out})
        vector = r.start()
        parts = [r.worker(vector).evaluate("validation", shard) for shard in range(shards)]
        found.append(sum(part.sums for part in parts))
    network = r.blueprint.network()
    program = Program(network, 29, vector, kernels=NUMPY)
    program.run(held_out[0])
    outputs = program.outputs(29)
    loss_weights = held_out[2] * np.array([1.0, 2, 3])[held_out[1]]
    shifted = outputs - outputs.max(axis=1, keepdims=True)
    losses = np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(29), held_out[1]]
    right = outputs.argmax(axis=1) == held_out[1]
    # Class weights count in the loss, not in the metrics; sample weights count in both.
    expected = [losses @ loss_weights, loss_weights.sum(), held_out[2] @ right, held_out[2].sum()]
    for sums in found:
        np.testing.assert_allclose(sums, expected, rtol=1e-12)
