"""One row for each initializer: what it draws on average, and how far it spreads."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest

from distbp import TrainingJob
from distbp.core.streams import Purpose, generator
from distbp.job.data_checks import check_against_data
from distbp.nn.initializers import INITIALIZERS, Constant, LecunNormal, Normal, Orthogonal, Uniform, Values
from distbp.nn.layers import Dense
from distbp.nn.layers.recurrent import Gru, Lstm
from distbp.nn.losses.base import Targets
from distbp.nn.network import Network

FAN_IN, FAN_OUT = 300, 200
SHAPE = (FAN_OUT, FAN_IN)

# name: (options, mean, standard deviation, largest magnitude)
TABLE: dict[str, tuple[dict[str, Any], float, float, float]] = {
    "zeros": ({}, 0.0, 0.0, 0.0),
    "constant": ({"value": 2.5}, 2.5, 0.0, 2.5),
    "normal": ({"mean": 1.0, "std": 0.2}, 1.0, 0.2, 2.2),
    "uniform": ({"low": -1.0, "high": 3.0}, 1.0, 4 / math.sqrt(12), 3.0),
    "glorot_uniform": ({}, 0.0, math.sqrt(2 / 500), math.sqrt(6 / 500)),
    "glorot_normal": ({}, 0.0, math.sqrt(2 / 500), 0.4),
    "he_uniform": ({}, 0.0, math.sqrt(2 / 300), math.sqrt(6 / 300)),
    "he_normal": ({}, 0.0, math.sqrt(2 / 300), 0.5),
    "lecun_uniform": ({}, 0.0, math.sqrt(1 / 300), math.sqrt(3 / 300)),
    "lecun_normal": ({}, 0.0, math.sqrt(1 / 300), 0.35),
    "orthogonal": ({"gain": 2.0}, 0.0, 2 / math.sqrt(300), 1.0),
    "large": ({}, 0.0, 1.0, 6.0),
    "unit_variance": ({}, 0.0, 1.0, 6.0),
    "data_points": ({}, 0.0, math.sqrt(1 / 3), 3.5),
    "values": ({"values": (0.5, -0.5) * (FAN_OUT * FAN_IN // 2)}, 0.0, 0.5, 0.5),
}


def draw(name: str, seed: int = 3) -> np.ndarray:
    rule = INITIALIZERS[name](**TABLE[name][0])
    return rule.draw(SHAPE, FAN_IN, FAN_OUT, generator(seed, Purpose.INITIALIZE, 0))


def test_every_initializer_has_a_row() -> None:
    assert TABLE.keys() == INITIALIZERS.keys()


@pytest.mark.parametrize("name", TABLE)
class TestEvery:
    def test_shape_dtype_and_moments(self, name: str) -> None:
        _, mean, std, largest = TABLE[name]
        values = draw(name)
        assert values.shape == SHAPE
        assert values.dtype == np.float64
        assert values.flags.c_contiguous
        # 60,000 values: five standard errors of the mean, and 2 % of the spread (a standard error is 0.3 %).
        assert values.mean() == pytest.approx(mean, abs=5 * std / math.sqrt(values.size) + 1e-12)
        assert values.std() == pytest.approx(std, rel=0.02, abs=1e-12)
        assert np.abs(values).max() <= largest

    def test_is_a_function_of_the_seed(self, name: str) -> None:
        assert np.array_equal(draw(name, seed=5), draw(name, seed=5))
        if name not in ("zeros", "constant", "values"):
            assert not np.array_equal(draw(name, seed=5), draw(name, seed=6))

    def test_draws_vectors_too(self, name: str) -> None:
        rule = INITIALIZERS[name](**TABLE[name][0])
        if name == "values":
            rule = Values(values=(1.0,) * 7)
        assert rule.draw((7,), 4, 7, generator(0, Purpose.INITIALIZE)).shape == (7,)


@pytest.mark.parametrize("shape", [(5, 9), (9, 5), (6, 6), (4, 2, 3)])
def test_orthogonal_rows_or_columns(shape: tuple[int, ...]) -> None:
    values = Orthogonal(gain=3.0).draw(shape, 1, 1, generator(1, Purpose.INITIALIZE))
    matrix = values.reshape(shape[0], -1) / 3
    product = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
    np.testing.assert_allclose(product, np.eye(len(product)), atol=1e-14)


def test_the_fans_and_not_the_shape_set_the_spread() -> None:
    bits = generator(1, Purpose.INITIALIZE)
    assert LecunNormal().draw((50, 50), 10_000, 1, bits).std() == pytest.approx(0.01, rel=0.1)


def test_options_have_the_defaults_that_the_docs_name() -> None:
    assert (Normal().mean, Normal().std) == (0.0, 0.05)
    assert (Uniform().low, Uniform().high) == (-0.05, 0.05)
    with pytest.raises(TypeError, match="value"):
        Constant()  # type: ignore[call-arg]


def test_values_are_taken_row_by_row() -> None:
    rule = Values(values=(1, 2, 3, 4, 5, 6))
    assert rule.draw((2, 3), 3, 2, generator(0, Purpose.INITIALIZE)).tolist() == [[1, 2, 3], [4, 5, 6]]


@pytest.mark.parametrize(
    ("layer", "shape", "wanted"),
    [
        (Dense, (2,), [2, 2]),
        (Gru, (3, 2), [6, 2]),
        (Lstm, (3, 2), [8, 2]),
    ],
)
def test_values_must_be_as_many_as_the_tensor_has(layer: Any, shape: Any, wanted: list[int]) -> None:
    made = layer(units=2, initializer=Values(values=(1, 2, 3)))
    text = f"its weight has {math.prod(wanted)} numbers (shape {wanted}), but the initializer gives 3 values"
    with pytest.raises(ValueError, match=re.escape(f"layer 0 ({made.type}): {text}")):
        Network([made], shape)
    fields = {"model": {"layers": [made]}, "loss": "mse"}
    (fault,) = check_against_data(TrainingJob(**fields), shape, Targets())
    assert (fault.path, fault.message) == ("model.layers.0", text)
    values = tuple(range(math.prod(wanted)))
    vector = Network([layer(units=2, initializer=Values(values=values))], shape).initialize(seed=1)
    assert tuple(vector[: len(values)]) == values
