"""The compiled stack against the layers; exp, logistic and tanh against float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

numba = pytest.importorskip("numba", reason="Numba is not installed: there is no compiled stack")

from distbp.nn.dense_stack import DenseStack, bound_by_factors, covers, plan  # noqa: E402

from distbp.nn import vector_math  # noqa: E402
from distbp.nn.blas import Gemm  # noqa: E402
from distbp.nn.kernels import NUMPY, load  # noqa: E402
from distbp.nn.layers import Dense, Dropout  # noqa: E402
from distbp.nn.losses import SoftmaxCrossEntropy  # noqa: E402
from distbp.nn.network import Network, aligned_vector  # noqa: E402
from distbp.totals import SURELY_FINITE  # noqa: E402


def stack(activation: str, dtype: Any = np.float32) -> Network:
    hidden = [Dense(units=21, activation=activation), Dense(units=9, activation=activation)]
    return Network([*hidden, Dense(units=4)], (13,), dtype)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("rows", [1, 10, 50])
@pytest.mark.parametrize("activation", ["linear", "relu", "leaky_relu", "sigmoid", "tanh"])
@pytest.mark.parametrize("kernels", ["numba", "fma", "mkl", "amx"])
def test_sums_are_those_of_the_layers(kernels: str, activation: str, rows: int, weighted: bool) -> None:
    network = stack(activation)
    assert covers(network)
    rng = np.random.default_rng(3)
    vector = network.initialize(1)
    x = rng.normal(size=(rows, 13)).astype(np.float32)
    labels = rng.integers(0, 4, rows).astype(np.intp)
    weights = rng.uniform(0.5, 2, rows).astype(np.float32) if weighted else None
    gradient, expected = aligned_vector(network.size, np.float32), np.empty(network.size, np.float32)
    gemm = load(kernels).gemm
    assert gemm is not None
    mine = DenseStack(network, rows, vector, gradient, gemm(np.dtype(np.float32)))
    loss, bound = mine.sums(x, labels, weights)
    assert float(np.abs(gradient).max()) * (1 - 1e-5) <= bound < 1e6

    program = network.bind(rows, vector, expected, kernels=NUMPY)
    d_outputs = np.empty((rows, 4), np.float32)
    plain = SoftmaxCrossEntropy().bind(rows, (4,), np.dtype(np.float32), NUMPY)
    assert loss == pytest.approx(plain(program.forward(x), labels, weights, d_outputs), rel=1e-5)
    program.backward(d_outputs)
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-5 * float(np.abs(expected).max()))
    for (i, live), (j, others) in zip(mine.live, program.live, strict=True):
        assert i == j and np.array_equal(live(), others())


@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38])
@pytest.mark.parametrize("rows", [1, 50])  # whichever is fewer is looked at: the factors or the gradient
def test_the_bound_is_not_finite_where_a_gradient_may_not_be(rows: int, value: float) -> None:
    network = stack("relu")
    vector, gradient = network.initialize(1), aligned_vector(network.size, np.float32)
    gemm = load("numba").gemm
    assert gemm is not None
    mine = DenseStack(network, rows, vector, gradient, gemm(np.dtype(np.float32)))
    x = np.ones((rows, 13), np.float32)
    x[0, 0] = value
    _, bound = mine.sums(x, np.zeros(rows, np.intp), None)
    assert not bound < SURELY_FINITE


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_bound_by_factors_keeps_what_is_not_finite(value: float) -> None:
    places, work = plan(stack("relu"), 4, Gemm(0, 0))
    work[:] = 1
    x = np.ones((4, 13), np.float32)
    assert bound_by_factors(places, work, x) < SURELY_FINITE
    x[2, 3] = value  # in an input alone
    assert not bound_by_factors(places, work, x) < SURELY_FINITE
    x[2, 3], work[places.deltas[0]] = 1, value  # in an error alone
    assert not bound_by_factors(places, work, x) < SURELY_FINITE


def test_other_networks_are_not_covered() -> None:
    assert not covers(stack("relu", np.float64))
    assert not covers(stack("gelu"))
    assert not covers(Network([Dense(units=3), Dropout(rate=0.5), Dense(units=2)], (4,)))


def over(function: Any) -> Callable[[np.ndarray], np.ndarray]:
    @numba.njit
    def loop(x: np.ndarray, y: np.ndarray) -> None:
        for i in range(x.size):
            y[i] = function(x[i])

    def apply(x: np.ndarray) -> np.ndarray:
        y = np.empty_like(x)
        loop(x, y)
        return y

    return apply


LOGISTIC = (vector_math.logistic, lambda x: 1 / (1 + np.exp(-x)), 3)


@pytest.mark.parametrize(
    ("function", "exact", "ulps"),
    [(vector_math.exp, np.exp, 2), LOGISTIC, (vector_math.tanh, np.tanh, 3)],
    ids=["exp", "logistic", "tanh"],
)
def test_vector_math_to_a_few_units_in_the_last_place(function: Any, exact: Any, ulps: float) -> None:
    small = np.geomspace(1e-20, 1, 10_000)
    x = np.concatenate([np.linspace(-80, 80, 100_001), small, -small]).astype(np.float32)
    expected = exact(x.astype(np.float64))
    unit = np.spacing(np.abs(expected).astype(np.float32))
    assert float((np.abs(over(function)(x) - expected) / unit).max()) < ulps


def test_vector_math_at_the_ends() -> None:
    x = np.array([np.nan, 1e4, -1e4, np.inf, -np.inf, 0, -100], np.float32)
    assert np.isnan([over(f)(x)[0] for f in (vector_math.exp, vector_math.logistic, vector_math.tanh)]).all()
    exp, logistic, tanh = (over(f)(x)[1:] for f in (vector_math.exp, vector_math.logistic, vector_math.tanh))
    assert exp[[1, 3, 5]].tolist() == [0, 0, 0]
    assert exp[[0, 2]].tolist() == [pytest.approx(np.exp(88.0), rel=1e-6)] * 2
    assert logistic[[0, 2]].tolist() == [1, 1]
    assert logistic[4] == 0.5
    assert (logistic[[1, 3]] < 1e-37).all()
    assert tanh.tolist() == [1, -1, 1, -1, 0, -1]
