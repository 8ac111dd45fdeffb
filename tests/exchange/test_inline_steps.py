"""Many steps in one compiled call: the bits of worker and server step by step, for every kind of job."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kernel_sets import HERE
from rigs import Data, Rig, classes, make_job, make_rig

from distbp.core.reduction import Block
from distbp.data.prepared import PreparedRows
from distbp.engine import inline_steps as steps
from distbp.engine import numerics
from distbp.engine.parameter_server import NotFiniteError
from distbp.engine.thread_choice import ThreadChoice
from distbp.nn.activations import ACTIVATIONS
from distbp.nn.losses import LOSSES
from distbp.nn.lowered import lower
from distbp.optim import CHAINS
from distbp.optim import updater as updaters
from distbp.optim.schedules import PlateauState
from distbp.team import inline
from distbp.team.base import Snapshot
from distbp.team.inline import InlineTeam

pytest.importorskip("numba", reason="Numba is not installed: nothing is compiled")

THREADS = [1, 2, 3]
every_number_of_threads = pytest.mark.parametrize("threads", THREADS)


@pytest.fixture(autouse=True)
def _every_step_is_worth_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(inline, "FLOPS_WORTH_THREADS", 0)
    monkeypatch.setattr(inline, "FLOPS_WORTH_PYTHON_THREADS", 0)
    monkeypatch.setattr(updaters, "WORTH_A_THREAD", 1)
    monkeypatch.setattr(ThreadChoice, "next", lambda choice, now: 0)  # as many as there are
    with numerics.one_blas_thread(), numerics.quiet():
        yield


def dense(*units: int, activation: str = "relu") -> list[dict[str, Any]]:
    """Hidden layers, and an output layer for three classes."""
    hidden = [{"type": "dense", "units": n, "activation": activation} for n in units]
    return [*hidden, {"type": "dense", "units": 3}]


def rig(data: Data, kernels: str = "numba", /, **fields: Any) -> Rig:
    fields = {"layers": dense(33), "shards": 4, "epochs": 3, "batch_size": 16, **fields}
    return make_rig(make_job(**fields), data, kernels=kernels)


def team(made: Rig, threads: int, vector: Any = None) -> InlineTeam:
    start = made.start() if vector is None else vector
    return InlineTeam(made.blueprint, made.data, Snapshot(0, {"vector": start.copy()}), threads=threads)


def step_by_step(made: Rig, steps: int, vector: Any = None) -> InlineTeam:
    """A team whose worker and server have been called for every step."""
    plain, whole = team(made, 1, vector), Block(0, made.shards)
    sums = made.contribution(plain.server.vector, whole)
    for step in range(steps):
        plain.worker.compute(step, whole, sums.gradient, sums.totals)
        plain.server.apply(step, [sums])
    return plain


def steps_of_python(watched: InlineTeam) -> list[int]:
    """Takes the numbers of the steps that the server is called for."""
    seen: list[int] = []
    apply = watched.server.apply

    def noted(step: int, *rest: Any) -> None:
        seen.append(step)
        apply(step, *rest)

    watched.server.apply = noted  # type: ignore[method-assign]
    return seen


def assert_same_bits(made: Rig, threads: int, steps: int = 20, compiled: bool = True) -> None:
    mine, plain = team(made, threads), step_by_step(made, steps)
    seen = steps_of_python(mine)
    assert mine.run(0, steps, PlateauState(), lambda: False) == steps
    per_epoch = made.blueprint.steps_per_epoch
    assert seen == [n for n in range(steps) if not compiled or (n + 1) % per_epoch == 0]
    evaluated = mine.evaluate("train"), plain.evaluate("train")
    mine.close()
    saved, expected = mine.server.snapshot(), plain.server.snapshot()
    assert saved.keys() == expected.keys()
    assert np.isfinite(expected["vector"]).all()
    assert (expected["vector"] != made.start()).any()
    for name in expected:
        assert saved[name].tobytes() == expected[name].tobytes(), name
    assert (mine.server.step, mine.server.applied) == (steps, steps)
    assert mine.server.health == plain.server.health
    assert evaluated[0].sums.tobytes() == evaluated[1].sums.tobytes()


# Every row of every table


@every_number_of_threads
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"clip": {"norm": 0.05}},
        {"clip": {"value": 0.01}, "regularization": {"l1": 0.001, "l2": 0.01}},
        {"clip": {"norm": 0.05}, "regularization": {"l1": 0.001, "l2": 0.01, "biases": True}},
    ],
    ids=["plain", "norm", "value and penalties", "norm, penalties, biases"],
)
@pytest.mark.parametrize("optimizer", CHAINS)
def test_every_rule(optimizer: str, more: dict[str, Any], threads: int) -> None:
    # 7 steps an epoch, the last of them a smaller one.
    options = {"type": optimizer, "learning_rate": 0.02, "weight_decay": 0.1, "schedule": {"type": "cosine"}}
    assert_same_bits(rig(classes(100, features=8), optimizer=options, **more), threads)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("activation", [name for name, one in ACTIVATIONS.items() if one.trainable])
def test_every_activation(activation: str, threads: int) -> None:
    assert_same_bits(rig(classes(100, features=8), layers=dense(33, 16, activation=activation)), threads)


def targets_of(loss: str) -> Data:
    """Rows with weights, and targets as the loss takes them."""
    x, labels, weights = classes(100, features=8, weighted=True)
    if LOSSES[loss]().targets == "labels":
        return x, labels, weights
    values = np.eye(3)[labels]
    return x, values.astype(np.float32), weights


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("shards", [1, 4])
@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss(loss: str, shards: int, threads: int) -> None:
    last = {"binary_cross_entropy": "sigmoid", "nll": "softmax"}.get(loss, "linear")
    layers = [{"type": "dense", "units": 33}, {"type": "dense", "units": 3, "activation": last}]
    made = rig(targets_of(loss), loss=loss, layers=layers, shards=shards)
    assert_same_bits(made, threads)


@pytest.mark.parametrize("kernels", [name for name in HERE if name != "numpy"])
@every_number_of_threads
def test_every_kernel_set(kernels: str, threads: int) -> None:
    made = rig(classes(3 * 256, features=784), kernels, layers=dense(128, 64), batch_size=256, shards=2)
    assert_same_bits(made, threads, steps=6)


# What a job may have


MIXED = [
    {"type": "dense", "units": 33},
    {"type": "batch_normalization"},
    {"type": "tanh"},
    {"type": "dropout", "rate": 0.2},
    {"type": "dense", "units": 20, "activation": "gelu"},
    {"type": "layer_normalization"},
    {"type": "dense", "units": 3},
]


@every_number_of_threads
@pytest.mark.parametrize("clip", [None, {"norm": 0.05}])
@pytest.mark.parametrize("shards", [1, 3, 4])
def test_normalization_and_dropout(shards: int, clip: Any, threads: int) -> None:
    assert_same_bits(rig(classes(100, features=8), layers=MIXED, shards=shards, clip=clip), threads)


@every_number_of_threads
def test_slices_of_one_row_stay_out_of_running_statistics(threads: int) -> None:
    layers = [{"type": "dense", "units": 9}, {"type": "batch_normalization"}, {"type": "dense", "units": 3}]
    made = rig(classes(100, features=8), layers=layers, batch_size=16, shards=7)  # the last batch has 4 rows
    assert_same_bits(made, threads)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("class_weight", [None, [1.0, 2.5, 0.25]])
@pytest.mark.parametrize("weighted", [False, True])
def test_weights_of_samples_and_classes(weighted: bool, class_weight: Any, threads: int) -> None:
    data = classes(100, features=8, weighted=weighted)
    assert_same_bits(rig(data, class_weight=class_weight), threads)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_batch_of_no_weight_changes_nothing(threads: int) -> None:
    x, y = classes(64, features=8)
    made = rig((x, y, np.repeat([0.0, 1.0], 32)), shuffle=False, shards=2)
    mine = team(made, threads)
    mine.run(0, 2, PlateauState(), lambda: False)
    assert mine.server.vector.tobytes() == made.start().tobytes()
    mine.close()
    assert_same_bits(made, threads, steps=6)


@every_number_of_threads
@pytest.mark.parametrize(("batch", "shards"), [(16, 3), (17, 5), (40, 7), (16, 16), (13, 8)])
def test_shards_that_divide_neither_batch_nor_threads(batch: int, shards: int, threads: int) -> None:
    data = classes(5 * batch + 3, features=7)
    assert_same_bits(rig(data, batch_size=batch, shards=shards, regularization={"l2": 0.01}), threads)


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("shuffle", [False, True])
def test_the_last_batch_of_an_epoch(drop_last: bool, shuffle: bool) -> None:
    made = rig(classes(100, features=8), drop_last=drop_last, shuffle=shuffle)
    assert made.blueprint.steps_per_epoch == (6 if drop_last else 7)
    assert_same_bits(made, 2)


# Gradients that are written out, and products that are deferred


def deferred(made: Rig) -> list[bool]:
    """Of each product into the gradient."""
    rows = -(-made.blueprint.job.batch_size // made.shards)
    lowered = lower(made.blueprint.network(), rows, made.blueprint.job.loss, training=True)
    return [row.deferred for row in lowered.rows if row.op.name == "product_tn"]


@every_number_of_threads
@pytest.mark.parametrize("clip", [None, {"norm": 0.05}])
@pytest.mark.parametrize(("batch", "shards"), [(128, 2), (72, 3), (64, 8)])
def test_gradients_that_are_never_written_out(batch: int, shards: int, clip: Any, threads: int) -> None:
    made = rig(
        classes(5 * batch, features=784),
        layers=dense(256, 128),
        batch_size=batch,
        shards=shards,
        regularization={"l2": 0.01},
        optimizer={"type": "adam"},
        clip=clip,
    )
    assert any(deferred(made))
    assert_same_bits(made, threads, steps=12)


@every_number_of_threads
def test_gradients_that_are_written_out(threads: int) -> None:
    made = rig(classes(2000, features=16), batch_size=400, shards=2, layers=dense(32))
    assert not any(deferred(made))  # errors and inputs are more numbers than the gradient
    assert_same_bits(made, threads, steps=12)


@every_number_of_threads
@pytest.mark.parametrize(("features", "units"), [(512, 32), (2048, 70), (48, 1), (1, 5)])
def test_weights_of_all_sizes(features: int, units: int, threads: int) -> None:
    made = rig(classes(100, features=max(2, features)), layers=dense(units), shards=2)
    assert_same_bits(made, threads, steps=12)


# Where rows come from


@every_number_of_threads
@pytest.mark.parametrize("weighted", [False, True])
def test_rows_that_are_prepared_when_they_are_needed(
    weighted: bool, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = classes(8000, features=40, weighted=weighted)
    fields = {"batch_size": 512, "data": {"standardize": True}, "shards": 2}
    at_once = rig(data, **fields)
    monkeypatch.setenv("DISTBP_PREPARE_BYTES", "1MiB")
    made = rig(data, **fields)
    rows, _ = made.data.train(0)
    assert isinstance(rows, PreparedRows) and rows.preprocessing is not None
    assert_same_bits(made, threads)
    assert step_by_step(made, 5).server.vector.tobytes() == step_by_step(at_once, 5).server.vector.tobytes()


@every_number_of_threads
def test_rows_of_a_mapped_file(threads: int, tmp_path: Path) -> None:
    made = rig(classes(500, features=8))
    rows, _ = made.data.train(0)
    assert isinstance(rows, PreparedRows)
    mapped = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.float32, rows.inputs.shape)
    mapped[:] = rows.inputs
    in_memory = step_by_step(made, 40).server.vector.tobytes()
    made.data.splits["train"] = PreparedRows(mapped, rows.targets, None)  # type: ignore[index]
    assert_same_bits(made, threads, steps=40)
    assert step_by_step(made, 40).server.vector.tobytes() == in_memory


# Where it begins, ends and stops


@pytest.mark.parametrize("shards", [4, 7])
@pytest.mark.parametrize(
    ("layers", "clip"),
    [(dense(33), None), (MIXED, {"norm": 0.05}), (dense(300), None)],
    ids=["small", "mixed", "deferred"],
)
def test_the_number_of_threads_may_change_after_each_call(
    layers: list[dict[str, Any]], clip: Any, shards: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shards of one thread share their work memory, and then belong to two threads, or to other ones."""
    numbers = itertools.cycle([0, 2, 1, 0, 1, 2])
    monkeypatch.setattr(ThreadChoice, "next", lambda choice, now: next(numbers))
    monkeypatch.setattr(steps, "MOST_STEPS", 2)
    data = classes(200, features=8)
    assert_same_bits(rig(data, layers=layers, shards=shards, batch_size=14, clip=clip), 5, steps=40)


@every_number_of_threads
def test_a_call_ends_when_its_time_is_over(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "CALL_S", 0.0)
    made = rig(classes(100, features=8), layers=MIXED, clip={"norm": 0.05})
    assert_same_bits(made, threads)
    one = team(made, threads)
    assert one._compiled is not None
    assert one._compiled.run(0, 5, PlateauState()) == 1
    one.close()


@pytest.mark.parametrize("threads", [1, 2])
def test_a_stretch_may_begin_and_end_anywhere(threads: int) -> None:
    made = rig(classes(100, features=8), layers=MIXED, optimizer={"type": "adam"})
    whole, cut = team(made, threads), team(made, threads)
    whole.run(0, 30, PlateauState(), lambda: False)
    for first, stop in ((0, 1), (1, 5), (5, 7), (7, 15), (15, 30)):
        assert cut.run(first, stop, PlateauState(), lambda: False) == stop
    for one in (whole, cut):
        one.close()
    saved, expected = cut.server.snapshot(), whole.server.snapshot()
    assert {name: array.tobytes() for name, array in saved.items()} == {
        name: array.tobytes() for name, array in expected.items()
    }


def test_a_team_goes_on_from_a_snapshot() -> None:
    made = rig(classes(100, features=8), layers=MIXED, optimizer={"type": "adam"})
    whole = team(made, 2)
    whole.run(0, 10, PlateauState(), lambda: False)
    snapshot = whole.snapshot()
    again = InlineTeam(made.blueprint, made.data, snapshot, threads=3)
    for one in (whole, again):
        one.run(10, 20, PlateauState(), lambda: False)
        one.close()
    saved, expected = again.server.snapshot(), whole.server.snapshot()
    assert {n: a.tobytes() for n, a in saved.items()} == {n: a.tobytes() for n, a in expected.items()}


@every_number_of_threads
@pytest.mark.parametrize("clip", [None, {"norm": 0.05}])
@pytest.mark.parametrize("layers", [dense(33), MIXED, dense(300)], ids=["small", "mixed", "deferred"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_step_that_is_not_finite_is_refused_before_the_update(
    bad: float, layers: list[dict[str, Any]], clip: Any, threads: int
) -> None:
    x, y = classes(100, features=80)
    made = rig((x.astype(np.float32), y), layers=layers, clip=clip, optimizer={"type": "adam"})
    rows, _ = made.data.train(0)
    assert isinstance(rows, PreparedRows)
    third = made.data.sharding.order(3, made.data.sharding.dealt(3), 0)[2 * 4]
    poisoned = rows.inputs.copy()
    poisoned[third, 5] = bad
    made.data.splits["train"] = PreparedRows(poisoned, rows.targets, None)  # type: ignore[index]
    expected, stopped = step_by_step(made, 2), team(made, threads)
    with pytest.raises(NotFiniteError) as caught:
        stopped.run(0, 6, PlateauState(), lambda: False)
    stopped.close()
    assert caught.value.step == stopped.server.step == 2
    saved, right = stopped.server.snapshot(), expected.server.snapshot()
    assert {n: a.tobytes() for n, a in saved.items()} == {n: a.tobytes() for n, a in right.items()}


@pytest.mark.parametrize("threads", [1, 2])
def test_large_but_finite_gradients_are_left_to_worker_and_server(threads: int) -> None:
    x, y = classes(100, features=8)
    made = rig(((x * 1e37).astype(np.float32), y), layers=dense(4, activation="linear"))
    start = made.start()
    start[: 4 * 8] *= np.float32(1e-37)  # the first layer's weights
    mine, plain = team(made, threads, start), step_by_step(made, 1, start)
    seen = steps_of_python(mine)
    mine.run(0, 1, PlateauState(), lambda: False)
    mine.close()
    assert mine.server.vector.tobytes() == plain.server.vector.tobytes()
    assert mine.server.vector.tobytes() != start.tobytes()
    assert seen == [0]


def test_an_interrupt_leaves_no_thread_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    made = rig(classes(100, features=8))
    interrupted, plain = team(made, 2), step_by_step(made, 6)
    train, main = interrupted._compiled._train, threading.current_thread()

    def interrupt(*arguments: Any) -> None:
        if threading.current_thread() is main:
            raise KeyboardInterrupt
        train(*arguments)

    monkeypatch.setattr(interrupted._compiled, "_train", interrupt)
    before = interrupted.server.vector.copy()
    with pytest.raises(KeyboardInterrupt):
        interrupted.run(0, 6, PlateauState(), lambda: False)
    monkeypatch.undo()
    assert interrupted.server.step == 0
    assert interrupted.server.vector.tobytes() == before.tobytes()
    interrupted.run(0, 6, PlateauState(), lambda: False)  # it may go on, and comes to the same bits
    assert interrupted.server.vector.tobytes() == plain.server.vector.tobytes()
    count = threading.active_count()
    interrupted.close()  # returns: its threads have ended
    assert threading.active_count() < count


@every_number_of_threads
@pytest.mark.parametrize(("kernels", "dtype"), [("numpy", "float32"), ("numba", "float64")])
def test_what_is_not_compiled_gives_the_bits_of_worker_and_server(
    kernels: str, dtype: str, threads: int
) -> None:
    made = rig(classes(100, features=8), kernels, layers=MIXED, dtype=dtype, clip={"norm": 1.0})
    assert_same_bits(made, threads, compiled=False)
