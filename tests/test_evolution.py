"""Evolution strategies: ranks and directions by hand, and networks that no gradient can train."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rigs import classes, make_job, make_rig

from distbp import train
from distbp.core.reduction import Block
from distbp.engine.totals import BOUND, LIVE, LOSS, WEIGHT
from distbp.optim.evolution import Noise, centered_ranks, estimate

SMALL = {"type": "evolution", "population": 8, "sigma": 0.1}
LAYERS = [{"type": "dense", "units": 4, "activation": "tanh"}, {"type": "dense", "units": 3}]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("DISTBP_KERNELS", "numpy")
    yield


@pytest.mark.parametrize(
    ("losses", "ranks"),
    [
        ([3.0, 1.0, 2.0, 40.0, -7.0], [0.25, -0.25, 0, 0.5, -0.5]),
        ([1.0, 1.0], [0, 0]),
        ([5.0, 2.0, 2.0, 2.0, 9.0], [0.25, -0.25, -0.25, -0.25, 0.5]),
        ([1.0, np.nan, np.inf], [-0.5, 0.25, 0.25]),
    ],
)
def test_ranks_are_centered_and_shared_by_equals(losses: list[float], ranks: list[float]) -> None:
    np.testing.assert_allclose(centered_ranks(np.array(losses)), ranks, atol=1e-15)


def test_noise_is_a_function_of_its_position() -> None:
    here, there = Noise(7, 1000, np.float32), Noise(7, 1000, np.float32)
    there.at(3, 1)
    expected = here.at(5, 2).copy()
    np.testing.assert_array_equal(there.at(5, 2), expected)
    assert abs(expected.mean()) < 0.1 and abs(expected.std() - 1) < 0.1
    for other in ((5, 3), (6, 2)):
        assert abs(float(np.corrcoef(there.at(*other), expected)[0, 1])) < 0.15


def test_the_direction_by_hand() -> None:
    noise, out = Noise(1, 6, np.float64), np.full(6, np.nan)
    estimate(np.array([4.0, 1.0, 2.0, 2.0]), 0.5, 9, noise, out)  # ranks 1/2, -1/2, and 0 twice
    np.testing.assert_allclose(out, noise.at(9, 0) / (4 * 0.5), rtol=1e-15)


def test_on_a_plane_the_direction_is_that_of_its_slope() -> None:
    slope, noise, out = np.array([3.0, -1, 0, 0.5]), Noise(1, 4, np.float64), np.zeros(4)
    draws = [noise.at(0, pair).copy() for pair in range(2000)]
    losses = np.array([sign * float(slope @ e) for e in draws for sign in (1, -1)])
    estimate(losses, 0.1, 0, noise, out)
    cosine = float(out @ slope) / float(np.linalg.norm(out) * np.linalg.norm(slope))
    assert cosine > 0.995  # 1 - 3 / (2 * 2000) is expected


def test_a_worker_gives_the_losses_of_the_copies_and_nothing_else() -> None:
    job = make_job(LAYERS, batch_size=20, optimizer=SMALL, dtype="float64", shards=2)
    made = make_rig(job, classes(20, weighted=True))
    vector, whole = made.start(), Block(0, 2)
    assert made.blueprint.pushed == 0
    worker, gradient, totals = made.worker(vector), np.empty(0), np.zeros(made.worker(vector).totals_size)
    worker.compute(4, whole, gradient, totals)
    assert totals.shape == (3 + 8 + 1,) and totals[BOUND] == 0
    x, y, weights = made.training_arrays()
    noise = Noise(job.seed, vector.size, np.float64)

    def loss(parameters: Any) -> float:
        w, b, v, c = np.split(parameters, [20, 24, 36])
        z = np.tanh(x @ w.reshape(4, 5).T + b) @ v.reshape(3, 4).T + c
        return float((weights * (np.log(np.exp(z).sum(axis=1)) - z[np.arange(20), y])).sum())

    assert totals[LOSS] == pytest.approx(loss(vector)) and totals[WEIGHT] == pytest.approx(weights.sum())
    copies = [loss(vector + sign * 0.1 * noise.at(4, pair)) for pair in range(4) for sign in (1, -1)]
    np.testing.assert_allclose(totals[LIVE:BOUND], copies, rtol=1e-12)


def test_a_network_of_steps_learns_exclusive_or(tmp_path: Path) -> None:
    x, t = np.array([[0.0, 0], [0, 1], [1, 0], [1, 1]]), np.array([[0.0], [1], [1], [0]])
    job = make_job(
        [
            {"type": "dense", "units": 8, "activation": "step"},
            {"type": "dense", "units": 1, "activation": "step"},
        ],
        loss="mse",
        batch_size="full",
        epochs=200,
        shards=1,
        seed=3,
        optimizer={"type": "evolution", "population": 50, "sigma": 0.5, "learning_rate": 0.1},
    )
    result = train(job, data=(x, t), output=tmp_path / "run")
    assert result.metrics["train_loss"] == 0
    np.testing.assert_array_equal(result.model().predict(x), t[:, 0])


def test_it_comes_down_where_there_is_a_gradient_too(tmp_path: Path) -> None:
    fields: dict[str, Any] = {
        "batch_size": 30,
        "epochs": 20,
        "regularization": {"l2": 1e-4},
        "clip": {"norm": 9},
    }
    optimizer = {**SMALL, "population": 30, "learning_rate": 0.1}
    job = make_job(LAYERS, optimizer=optimizer, **fields)
    result = train(
        job, data={"train": classes(120), "validation": classes(60, seed=1)}, output=tmp_path / "run"
    )
    assert result.metrics["train_loss"] < 0.6 * result.history["train_loss"][0]
    assert result.metrics["validation_accuracy"] > 0.8 and not result.unhealthy
