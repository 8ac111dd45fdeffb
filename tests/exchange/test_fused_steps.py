"""Fused steps: the bits of worker and server, step by step; and where they stand back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from rigs import Data, Rig, classes, make_job, make_rig

from distbp import numerics
from distbp.data.prepared import PreparedRows
from distbp.exchange.base import Snapshot
from distbp.exchange.inline import InlineTeam
from distbp.parameter_server import NotFiniteError
from distbp.reduction import Block
from distbp.schedules import PlateauState

pytest.importorskip("numba", reason="Numba is not installed: nothing can be fused")

WHOLE = Block(0, 1)
KERNELS = ["numba", "fma", "mkl"]
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {"optimizer": {"type": "sgd", "learning_rate": 0.1}},
    "sgd with l2": {"optimizer": {"type": "sgd", "learning_rate": 0.1}, "regularization": {"l2": 0.01}},
    "momentum, a schedule": {
        "optimizer": {"type": "momentum", "learning_rate": 0.1, "schedule": {"type": "cosine"}}
    },
    "nesterov": {"optimizer": {"type": "nesterov", "learning_rate": 0.05}},
    "adam": {"optimizer": {"type": "adam"}},
    "adamw, biases too": {
        "optimizer": {"type": "adamw", "weight_decay": 0.1},
        "regularization": {"l2": 0.01, "biases": True},
    },
}
ACTIVATIONS = ["linear", "relu", "leaky_relu", "sigmoid", "tanh"]


def rig(kernels: str, data: Data, *, units: int = 33, activation: str = "relu", **fields: Any) -> Rig:
    layers = [
        {"type": "dense", "units": units, "activation": activation},
        {"type": "dense", "units": 16, "activation": activation},
        {"type": "dense", "units": 3},
    ]
    return make_rig(make_job(layers, **{"shards": 1, "epochs": 3, **fields}), data, kernels=kernels)


def team(made: Rig, vector: np.ndarray | None = None) -> InlineTeam:
    start = made.start() if vector is None else vector
    return InlineTeam(made.blueprint, made.data, Snapshot(0, {"vector": start.copy()}))


def assert_same_bits(made: Rig, steps: int) -> InlineTeam:
    """The team's, fused where it can, and those of worker and server called for every step."""
    with numerics.one_blas_thread():
        fused = team(made)
        assert fused._fused is not None
        assert fused.run(0, steps, PlateauState(), lambda: False) == steps
        plain = team(made)
        sums = made.contribution(plain.server.vector, WHOLE)
        for step in range(steps):
            plain.worker.compute(step, WHOLE, sums.gradient, sums.totals)
            plain.server.apply(step, [sums])
    mine, theirs = fused.server.snapshot(), plain.server.snapshot()
    assert mine.keys() == theirs.keys()
    for name in mine:
        assert mine[name].tobytes() == theirs[name].tobytes(), name
    assert (fused.server.step, fused.server.applied) == (steps, steps)
    assert fused.server.health == plain.server.health
    return fused


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_rule(name: str, kernels: str) -> None:
    # 13 steps an epoch, the last of them a smaller one.
    assert_same_bits(rig(kernels, classes(100, features=8), **OPTIMIZERS[name]), 30)


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation(activation: str, kernels: str) -> None:
    assert_same_bits(rig(kernels, classes(100, features=8), activation=activation), 30)


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize(("features", "units", "batch"), [(784, 100, 10), (2048, 70, 8), (48, 40, 64)])
def test_parts_of_a_weight_in_all_sizes(features: int, units: int, batch: int, kernels: str) -> None:
    batch = batch if features * batch % 16 == 0 else 16
    made = rig(kernels, classes(6 * batch, features=features), units=units, batch_size=batch)
    assert_same_bits(made, 11)


def test_it_fuses_all_but_the_last_step_of_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    made = rig("numba", classes(100, features=8))
    with numerics.one_blas_thread():
        watched = team(made)
        plain: list[int] = []
        apply = watched.server.apply
        monkeypatch.setattr(
            watched.server, "apply", lambda step, *rest: (plain.append(step), apply(step, *rest))
        )
        watched.run(0, 39, PlateauState(), lambda: False)
    assert plain == [12, 25, 38]


def test_a_stretch_may_begin_and_end_anywhere() -> None:
    made = rig("numba", classes(100, features=8), **OPTIMIZERS["adam"])
    with numerics.one_blas_thread():
        whole, cut = team(made), team(made)
        whole.run(0, 30, PlateauState(), lambda: False)
        for first, stop in ((0, 1), (1, 6), (6, 15), (15, 30)):
            assert cut.run(first, stop, PlateauState(), lambda: False) == stop
    assert whole.server.vector.tobytes() == cut.server.vector.tobytes()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_step_that_is_not_finite_is_refused_before_the_update(bad: float) -> None:
    x, y = classes(100, features=8)
    x = x.astype(np.float32)
    made = rig("numba", (x, y))
    rows, _ = made.data.train(0)
    assert isinstance(rows, PreparedRows)
    sixth = made.data.sharding.order(0, made.data.sharding.dealt(0), 0)[5 * 8]
    poisoned = rows.inputs.copy()
    poisoned[sixth] = bad
    made.data.splits["train"] = PreparedRows(poisoned, rows.targets, None)  # type: ignore[index]
    with numerics.one_blas_thread():
        expected = team(made)
        expected.run(0, 5, PlateauState(), lambda: False)
        stopped = team(made)
        with pytest.raises(NotFiniteError), np.errstate(all="ignore"):
            stopped.run(0, 12, PlateauState(), lambda: False)
    assert stopped.server.step == 5
    assert stopped.server.vector.tobytes() == expected.server.vector.tobytes()


def test_large_but_finite_gradients_are_left_to_worker_and_server() -> None:
    x, y = classes(100, features=8)
    made = rig("numba", ((x * 1e30).astype(np.float32), y), activation="linear", units=4)
    start = made.start()
    start *= 1e-30
    with numerics.one_blas_thread():
        fused = team(made, start)
        fused.run(0, 1, PlateauState(), lambda: False)
        plain = team(made, start)
        sums = made.contribution(plain.server.vector, WHOLE)
        plain.worker.compute(0, WHOLE, sums.gradient, sums.totals)
        plain.server.apply(0, [sums])
    assert fused.server.vector.tobytes() == plain.server.vector.tobytes()


@pytest.mark.parametrize(
    ("fields", "data"),
    [
        ({"clip": {"norm": 1.0}}, classes(100, features=8)),
        ({"regularization": {"l1": 0.1}}, classes(100, features=8)),
        ({"optimizer": {"type": "rmsprop"}}, classes(100, features=8)),
        ({"shards": 3}, classes(100, features=8)),  # which do not divide a batch
        ({"dtype": "float64"}, classes(100, features=8)),
        ({"loss": {"type": "softmax_cross_entropy", "label_smoothing": 0.1}}, classes(100, features=8)),
        ({"activation": "gelu"}, classes(100, features=8)),
        ({}, classes(100, features=8, weighted=True)),
        ({}, classes(100, features=7)),  # slices of 56 values do not begin at multiples of 64 bytes
    ],
)
def test_what_cannot_be_fused_is_not(fields: dict[str, Any], data: Data) -> None:
    made = rig("numba", data, **fields)
    with numerics.one_blas_thread():
        assert team(made)._fused is None


def test_numpys_kernels_fuse_nothing() -> None:
    made = rig("numba", classes(100, features=8))
    with numerics.one_blas_thread():
        plain = replace(made.blueprint, kernels="numpy")
        assert InlineTeam(plain, made.data, Snapshot(0, {"vector": made.start()}))._fused is None


@pytest.mark.parametrize("kernels", KERNELS)
def test_batches_of_hundreds_into_few_classes(kernels: str) -> None:
    """Where the products are those of a real table: long ones, and narrow ones."""
    data = classes(3000, features=54)
    assert_same_bits(rig(kernels, data, units=128, batch_size=256, drop_last=True), 30)
