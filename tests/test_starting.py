"""First weights that look at the data: what they are made to be, and where they may be asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distbp import JobError, TrainingJob, train
from distbp.core.streams import Purpose, generator
from distbp.engine.starting import ROWS, start_by_data
from distbp.nn.initializers import DataPoints, UnitVariance
from distbp.nn.layers import LAYERS
from distbp.nn.network import Network
from distbp.run.verify import verify_run

BY_DATA = {"initializer": UnitVariance(), "bias_initializer": DataPoints()}


class Given:
    """Rows as training has them."""

    def __init__(self, x: np.ndarray) -> None:
        self.x = x

    def gather(self, rows: np.ndarray, out: np.ndarray) -> None:
        out[:] = self.x[rows]


def started(layers: list[Any], x: np.ndarray, seed: int = 3) -> tuple[Network, np.ndarray]:
    network = Network(layers, x.shape[1:], np.float64)
    vector = network.initialize(seed)
    start_by_data(network, vector, seed, lambda: (Given(x), len(x)))
    return network, vector


def tensors(network: Network, vector: np.ndarray) -> dict[str, np.ndarray]:
    return {t.path: vector[t.start : t.stop].reshape(t.shape) for t in network.tensors}


@pytest.mark.parametrize("rows", [40, 3000])
def test_sums_have_deviation_one_and_biases_lie_among_them(rows: int) -> None:
    x = np.random.default_rng(0).normal(3, [0.01, 5, 100], (rows, 3))
    dense = LAYERS["dense"]
    hidden = dense(units=30, activation="tanh", parametrization="ntk", **BY_DATA)
    network, vector = started([hidden, LAYERS["dropout"](), dense(units=4, **BY_DATA)], x)
    found = tensors(network, vector)
    if rows > ROWS:
        x = x[np.sort(generator(3, Purpose.START, 0).choice(rows, ROWS, replace=False))]
    for index, factor in ((0, 1 / np.sqrt(3)), (2, 1.0)):
        z = factor * x @ found[f"layers.{index}.dense.weight"].T
        np.testing.assert_allclose(z.std(axis=0), 1, rtol=1e-9)
        bias = found[f"layers.{index}.dense.bias"]
        assert (z.min(axis=0) <= -bias).all() and (-bias <= z.max(axis=0)).all()
        assert len(np.unique(bias)) == len(bias)
        x = np.tanh(z + bias)


def test_a_constant_input_leaves_the_weights_as_they_were_drawn() -> None:
    network, vector = started([LAYERS["dense"](units=5, **BY_DATA)], np.ones((20, 2)))
    weight = tensors(network, vector)["layers.0.dense.weight"]
    assert np.array_equal(weight, tensors(network, network.initialize(3))["layers.0.dense.weight"])
    np.testing.assert_allclose(
        tensors(network, vector)["layers.0.dense.bias"], -weight.sum(axis=1), rtol=1e-12
    )


def test_others_are_not_read() -> None:
    network = Network([LAYERS["dense"](units=2)], (3,), np.float64)
    vector = network.initialize(1)

    def rows() -> Any:
        raise AssertionError("nobody looks at the data")

    start_by_data(network, vector, 1, rows)
    assert np.array_equal(vector, network.initialize(1))


JOB = {"loss": "mse", "epochs": 2, "batch_size": 8, "workers": 0}


def test_a_run_begins_with_them_and_is_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTBP_KERNELS", "numpy")
    x = np.random.default_rng(0).normal(2, 7, (50, 3))
    layer = {"type": "dense", "units": 1, "initializer": "unit_variance", "bias_initializer": "data_points"}
    job = TrainingJob.from_mapping({**JOB, "model": {"layers": [layer]}, "dtype": "float64", "shards": 2})
    held = {"type": "sgd", "learning_rate": 1e-300}
    result = train(job.replace(optimizer=held), data=(x, x[:, 0]), output=tmp_path / "held")
    z = x @ result.model().vector[:3]
    assert z.std() == pytest.approx(1)
    moved = train(job, data=(x, x[:, 0]), output=tmp_path / "run")
    assert verify_run(tmp_path / "run", data=(x, x[:, 0])).equal
    assert moved.params_sha256 != result.params_sha256


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (
            {"type": "dense", "units": 3, "bias_initializer": "unit_variance"},
            "model.layers.0.bias_initializer: unit_variance looks at the data, and is for the weights",
        ),
        (
            {"type": "dense_steps", "units": 3, "initializer": "unit_variance"},
            "model.layers.0.initializer: unit_variance looks at the data, and is for the weights",
        ),
        (
            {"type": "gru", "units": 3, "recurrent_initializer": "unit_variance"},
            "model.layers.0.recurrent_initializer: unit_variance looks at the data, and is for the weights",
        ),
        (
            {"type": "dense", "units": 3, "bias_initializer": "data_points", "shares": "other.weight"},
            "data_points looks at the data; where layers share tensors take another",
        ),
    ],
)
def test_faults(layer: dict[str, Any], message: str) -> None:
    other = {"type": "dense", "units": 3, "name": "other"}
    with pytest.raises(JobError, match=message):
        TrainingJob.from_mapping({**JOB, "model": {"layers": [layer, other]}})
