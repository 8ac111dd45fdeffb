"""Rosenblatt's rule for step units, as the loss `perceptron`: what it learns, and in how many steps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distbp import TrainingJob, train
from distbp.core.arrays import Array

CORNERS = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], float)
TABLES = {"and": [0, 0, 0, 1], "or": [0, 1, 1, 1], "nand": [1, 1, 1, 0], "only the first": [0, 0, 1, 1]}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("DISTBP_KERNELS", "numpy")
    yield


def job_of(epochs: int, **fields: Any) -> TrainingJob:
    """One row a step, in the order of the rows, from weights of 0."""
    unit = {"type": "dense", "units": 1, "initializer": "zeros"}
    usual = {
        "model": {"layers": [unit]},
        "loss": "perceptron",
        "optimizer": {"type": "sgd", "learning_rate": 1.0},
        "batch_size": 1,
        "shuffle": False,
        "dtype": "float64",
        "workers": 0,
    }
    return TrainingJob(epochs=epochs, **{**usual, **fields})


def by_hand(x: Array, t: Array, epochs: int) -> tuple[Array, list[int]]:
    """Rosenblatt's rule in plain NumPy: weights, then the bias; and the corrections of each epoch."""
    w, made = np.zeros(x.shape[1] + 1), []
    for _ in range(epochs):
        corrections = 0
        for row, wanted in zip(np.c_[x, np.ones(len(x))], t, strict=True):
            answer = float(w @ row > 0)
            w += (wanted - answer) * row
            corrections += answer != wanted
        made.append(corrections)
    return w, made


@pytest.mark.parametrize("name", TABLES)
def test_a_step_unit_learns_what_a_line_can_separate(name: str, tmp_path: Path) -> None:
    t = np.array(TABLES[name], float)
    result = train(job_of(10), data=(CORNERS, t), output=tmp_path / "run")
    assert result.model().predict(CORNERS).tolist() == TABLES[name]
    assert result.metrics["train_loss"] == 0
    np.testing.assert_array_equal(result.model().vector, by_hand(CORNERS, t, 10)[0])


def test_it_cannot_learn_exclusive_or(tmp_path: Path) -> None:
    t = np.array([0.0, 1, 1, 0])
    result = train(job_of(100), data=(CORNERS, t), output=tmp_path / "run")
    assert (result.model().predict(CORNERS) != t).any() and result.metrics["train_loss"] > 0
    assert by_hand(CORNERS, t, 100)[1][-1] > 0


@pytest.mark.heavy
@pytest.mark.parametrize("seed", range(3))
def test_rosenblatts_and_novikoffs_theorem(seed: int, tmp_path: Path) -> None:
    """At most (R / margin)^2 corrections, R the length of the longest row with its 1 for the bias."""
    rng = np.random.default_rng(seed)
    plane = rng.normal(size=5)
    plane /= np.linalg.norm(plane)
    x = rng.uniform(-1, 1, (300, 4))
    side = np.c_[x, np.ones(300)] @ plane
    x, side = x[np.abs(side) > 0.15], side[np.abs(side) > 0.15]
    t = (side > 0).astype(float)
    longest = np.linalg.norm(np.c_[x, np.ones(len(x))], axis=1).max()
    bound = (longest / np.abs(side).min()) ** 2
    w, corrections = by_hand(x, t, 40)
    assert 0 < sum(corrections) <= bound and corrections[-1] == 0
    result = train(job_of(40), data=(x, t), output=tmp_path / "run")
    np.testing.assert_allclose(result.model().vector, w, rtol=1e-12, atol=1e-12)
    assert result.metrics["train_loss"] == 0 and (result.model().predict(x) == t).all()


def test_a_layer_of_units_learns_with_any_batch_and_shards(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(90, 3))
    t = (x @ rng.normal(size=(3, 4)) + 0.3 > 0).astype(float)
    data = {"train": (x, t), "validation": (x, t)}
    runs = [
        train(
            job_of(60, batch_size=15, shards=shards, model={"layers": [{"type": "dense", "units": 4}]}),
            data=data,
            output=tmp_path / str(shards),
        )
        for shards in (1, 3)
    ]
    for result in runs:
        assert result.metrics["validation_accuracy"] > 0.97 and not result.unhealthy
    np.testing.assert_allclose(runs[0].model().vector, runs[1].model().vector, rtol=1e-9)
