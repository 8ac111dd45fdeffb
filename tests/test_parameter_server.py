"""The parameter server: one update a step, from any blocks, and none where something is wrong."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rigs import Rig, classes, make_job, make_rig

from distbp.core.arrays import Array
from distbp.core.errors import FencedError
from distbp.core.reduction import Block, blocks_within
from distbp.engine.parameter_server import Contribution, NotFiniteError, ParameterServer
from distbp.engine.totals import BOUND, LOSS, ROWS, WEIGHT
from distbp.optim import updater
from distbp.optim.schedules import PlateauState

LAYERS = (
    {"type": "dense", "units": 6, "activation": "relu"},
    {"type": "batch_normalization"},
    {"type": "dense", "units": 3},
)


def rig(**fields: Any) -> Rig:
    fields = {"batch_size": 16, "optimizer": {"type": "adam", "learning_rate": 0.01}, **fields}
    return make_rig(make_job(LAYERS, **fields), classes(40, weighted=True))


def push(rig: Rig, vector: Array, step: int, blocks: Sequence[Block] | None = None) -> list[Contribution]:
    worker = rig.worker(vector)
    sums = [rig.contribution(vector, block) for block in blocks or [Block(0, rig.shards)]]
    for own in sums:
        worker.compute(step, *own)
    return sums


def state(server: ParameterServer) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in server.snapshot().items()}


def test_an_update_by_hand() -> None:
    # SGD at 0.5: the sums divided once by the total weight, 2 + 6 = 8.
    job = make_job(
        [{"type": "dense", "units": 2}],
        shards=2,
        dtype="float64",
        optimizer={"type": "sgd", "learning_rate": 0.5},
    )
    x = np.ones((40, 1))
    r = make_rig(job, (x, np.arange(40) % 2))
    vector = np.array([1.0, 2, 3, 4])  # weight (2, 1), bias (2,)
    server = r.server(vector)
    left, right = np.array([1.0, 0, 2, -4]), np.array([7.0, 8, -2, 20])
    totals = np.zeros((2, len(server.totals)))
    totals[:, LOSS], totals[:, WEIGHT], totals[:, ROWS] = (3, 5), (2, 6), (4, 4)
    server.apply(0, [Contribution(Block(0, 1), left, totals[0]), Contribution(Block(1, 2), right, totals[1])])
    np.testing.assert_array_equal(vector, [1 - 0.5 * 8 / 8, 2 - 0.5 * 8 / 8, 3 - 0, 4 - 0.5 * 16 / 8])
    np.testing.assert_array_equal(server.epoch_totals[:3], [8, 8, 8])
    assert (server.step, server.applied) == (1, 1)


@pytest.mark.heavy
@settings(max_examples=25)
@given(st.data())
def test_any_blocks_give_the_same_bits(data: st.DataObject) -> None:
    r = rig(shards=8)
    one, many = r.start(), r.start()
    plain, split = r.server(one), r.server(many)
    for step in range(4):  # past the end of an epoch
        plain.apply(step, push(r, one, step))
        cuts = sorted(data.draw(st.sets(st.integers(1, 7), max_size=4)) | {0, 8})
        blocks = [b for a, z in itertools.pairwise(cuts) for b in blocks_within(8, a, z)]
        split.apply(step, push(r, many, step, data.draw(st.permutations(blocks))))
        assert state(plain) == state(split)
        assert plain.health == split.health


def test_each_step_is_applied_once() -> None:
    r = rig()
    vector = r.start()
    server = r.server(vector, attempt=3)
    sums = push(r, vector, 0)
    server.apply(0, copy.deepcopy(sums))
    before = state(server)
    for wrong in (0, 2, -1):  # repeated, from the future, nonsense
        with pytest.raises(FencedError) as caught:
            server.apply(wrong, copy.deepcopy(sums))
        assert str(caught.value) == f"attempt 3: step {wrong} was pushed, but the next one is 1"
        assert state(server) == before
        assert (server.step, server.applied) == (1, 1)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["first", "last", "loss", "statistic"])
@pytest.mark.parametrize("shards", [1, 4])
def test_what_is_not_finite_is_never_applied(value: float, where: str, shards: int) -> None:
    r = rig(shards=shards)
    vector = r.start()
    server = r.server(vector)
    server.apply(0, push(r, vector, 0))
    before = state(server)
    sums = push(r, vector, 1, [Block(s, s + 1) for s in range(shards)])
    good = copy.deepcopy(sums)
    count = r.blueprint.network().parameter_count
    if where == "loss":
        sums[-1].totals[LOSS] = value
    else:
        sums[-1].gradient[{"first": 0, "last": count - 1, "statistic": -1}[where]] = value
        sums[-1].totals[BOUND] = abs(value)  # as a worker finds it
    with np.errstate(invalid="ignore"), pytest.raises(NotFiniteError) as caught:
        server.apply(1, sums)
    assert caught.value.step == 1
    assert state(server) == before
    assert (server.step, server.applied) == (1, 1)
    server.apply(1, good)  # the step can be tried again
    assert server.step == 2


def test_large_gradients_whose_squares_overflow_are_applied() -> None:
    r = make_rig(make_job(optimizer={"type": "sgd"}, clip={"norm": 1.0}), classes(40))
    vector = r.start()
    server = r.server(vector)
    sums = push(r, vector, 0)
    sums[0].gradient[:3] = 1e30  # finite in float32, its square is not
    before = vector.copy()
    server.apply(0, sums)
    assert np.linalg.norm(vector - before) == pytest.approx(0.1, rel=1e-3)  # rate 0.1, clipped to 1


@pytest.mark.parametrize(
    "blocks", [[Block(0, 2)], [Block(0, 2), Block(2, 3)], [Block(0, 4), Block(2, 4)], [Block(0, 2)] * 2, []]
)
def test_blocks_that_are_not_all_shards_are_refused(blocks: list[Block]) -> None:
    r = rig()
    vector = r.start()
    server = r.server(vector)
    before = state(server)
    sums = [r.contribution(vector, block) for block in blocks]
    with pytest.raises(ValueError, match=r"is in no block|overlap others|given twice"):
        server.apply(0, sums)
    assert state(server) == before and server.step == 0


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "adamw"])
def test_a_server_from_a_snapshot_goes_on_with_the_same_bits(optimizer: str) -> None:
    r = rig(optimizer={"type": optimizer}, regularization={"l2": 0.01, "l1": 0.001}, clip={"norm": 0.5})
    vector = r.start()
    server = r.server(vector)
    for step in range(2):
        server.apply(step, push(r, vector, step))
    saved = server.snapshot()
    for step in range(2, 5):
        server.apply(step, push(r, vector, step))
    again = saved["vector"].copy()
    slots = {name.removeprefix("slots."): a for name, a in saved.items() if name.startswith("slots.")}
    second = r.server(again, step=2, slots=slots, epoch_totals=saved["epoch_totals"])
    for step in range(2, 5):
        second.apply(step, push(r, again, step))
    assert state(server) == state(second)
    assert server.health == second.health


def test_running_statistics_are_those_of_the_batch_by_rows() -> None:
    # 11 rows over 4 shards: 3, 3, 3, 2. Unbiased variance within each slice, weighted by its rows.
    layers = [{"type": "batch_normalization", "momentum": 0.25}, {"type": "dense", "units": 3}]
    r = make_rig(make_job(layers, batch_size=11, dtype="float64", shuffle=False), classes(11))
    vector = r.start()
    r.server(vector).apply(0, push(r, vector, 0))
    x = r.training_arrays()[0]
    slices = [x[0:3], x[3:6], x[6:9], x[9:11]]
    mean = sum(len(s) * s.mean(axis=0) for s in slices) / 11
    variance = sum(len(s) * s.var(axis=0, ddof=1) for s in slices) / 11
    network = r.blueprint.network()
    running = {t.name: vector[t.start : t.stop] for t in network.statistics}
    np.testing.assert_allclose(running["mean"], 0.25 * mean, rtol=1e-13)
    np.testing.assert_allclose(running["variance"], 0.75 + 0.25 * variance, rtol=1e-13)


def test_the_epochs_totals_are_its_sums_and_begin_again() -> None:
    r = rig()
    vector = r.start()
    server = r.server(vector)
    expected = np.zeros(3)
    for step in range(6):  # two epochs of three steps
        sums = push(r, vector, step)
        expected = sums[0].totals[:3] if step % 3 == 0 else expected + sums[0].totals[:3]
        server.apply(step, sums)
        np.testing.assert_allclose(server.epoch_totals[:3], expected, rtol=1e-14)
    assert server.epoch_totals[ROWS] == 40


def test_health_is_measured_at_the_last_step_of_an_epoch() -> None:
    job = make_job(
        [{"type": "dense", "units": 3}],
        batch_size=20,
        dtype="float64",
        optimizer={"type": "sgd", "learning_rate": 0.5},
    )
    r = make_rig(job, classes(40))
    vector = r.start()
    server = r.server(vector)
    server.apply(0, push(r, vector, 0))
    assert server.health == []
    before, sums = vector.copy(), push(r, vector, 1)
    gradient = sums[0].gradient.copy() / 20
    server.apply(1, sums)
    weight, bias = server.health
    assert (weight.path, bias.path) == ("layers.0.dense.weight", "layers.0.dense.bias")
    assert weight.gradient_norm == pytest.approx(np.linalg.norm(gradient[:15]), rel=1e-12)
    ratio = 0.5 * np.linalg.norm(gradient[:15]) / np.linalg.norm(before[:15])
    assert weight.update_ratio == pytest.approx(ratio, rel=1e-9)


@pytest.mark.parametrize("size", [1e-3, 1e25])  # the square of the larger one is not a float32
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adamw"])
def test_compiled_health_is_that_of_numpy(
    optimizer: str, dtype: str, threads: int, size: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("numba", reason="Numba is not installed")
    monkeypatch.setattr(updater, "WORTH_A_THREAD", 1)
    layers = [{"type": "dense", "units": 3000}, {"type": "dense", "units": 3}]  # more than one piece
    job = make_job(layers, dtype=dtype, shards=4, optimizer={"type": optimizer}, regularization={"l2": 0.01})
    found = []
    for kernels in ("numba", "numpy"):
        r, draw = make_rig(job, classes(8, features=16), kernels=kernels), np.random.default_rng(3)
        sums = [
            Contribution(
                Block(shard, shard + 1),
                (size * draw.standard_normal(r.start().size)).astype(dtype),
                np.array([1.0, 2, 2, 10 * size]),
            )
            for shard in range(4)
        ]
        server = r.server(r.start(), threads=threads)
        with np.errstate(all="ignore"):
            server.apply(0, sums)  # the only step of an epoch
        server.close()
        found.append((server.vector, server.health))
    (vector, compiled), (expected, by_numpy) = found
    np.testing.assert_allclose(vector, expected, rtol=1e-4, atol=1e-6)
    assert [one.path for one in compiled] == [
        f"layers.{layer}.dense.{name}" for layer in (0, 1) for name in ("weight", "bias")
    ]
    for one, other in zip(compiled, by_numpy, strict=True):
        assert one.path == other.path
        assert one.gradient_norm == pytest.approx(other.gradient_norm, rel=1e-5)
        if np.isfinite(other.update_ratio):
            assert one.update_ratio == pytest.approx(other.update_ratio, rel=1e-4)
        else:
            assert np.isnan(one.update_ratio) == np.isnan(other.update_ratio)


def test_a_batch_of_no_weight_changes_nothing_but_decay() -> None:
    x, y = classes(16)
    job = make_job(optimizer={"type": "sgd"}, shuffle=False)
    r = make_rig(job, (x, y, np.repeat([0.0, 1.0], 8)))
    vector = r.start()
    before = vector.copy()
    r.server(vector).apply(0, push(r, vector, 0))
    np.testing.assert_array_equal(vector, before)


def test_the_schedule_and_the_plateau_decide_the_rate() -> None:
    def step_size(plateau: PlateauState, step: int, schedule: Any) -> float:
        job = make_job(dtype="float64", optimizer={"type": "sgd", "learning_rate": 1.0, "schedule": schedule})
        r = make_rig(job, classes(16), {"validation": classes(8)})
        vector = r.start()
        before, sums = vector.copy(), push(r, vector, step)
        gradient = sums[0].gradient.copy() / 8
        r.server(vector, step=step).apply(step, sums, plateau)
        return float(np.linalg.norm(before - vector) / np.linalg.norm(gradient))

    decay = {"type": "step", "every_steps": 3, "factor": 0.5}
    rates = [step_size(PlateauState(), step, decay) for step in (0, 2, 3, 6)]
    np.testing.assert_allclose(rates, [1, 1, 0.5, 0.25], rtol=1e-12)
    assert step_size(PlateauState(rate=0.125), 1, "reduce_on_plateau") == pytest.approx(0.125, rel=1e-12)


@pytest.mark.parametrize("biases", [False, True])
def test_penalties_touch_biases_only_when_told(biases: bool) -> None:
    r = make_rig(make_job(LAYERS, regularization={"l2": 0.1, "biases": biases}), classes(16))
    network = r.blueprint.network()
    assert r.blueprint.decays(network) == ([(0, network.parameter_count)] if biases else network.decays)
