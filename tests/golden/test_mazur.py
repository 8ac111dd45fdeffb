"""GOLDEN.md, case 1: M. Mazur, "A Step by Step Backpropagation Example" (2015), in float64.

A 2-2-2 network of sigmoids, half the sum of squared errors, learning rate 0.5; the biases are not trained.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from distbp.core.arrays import Array
from distbp.engine.totals import LOSS
from distbp.nn import kernels
from distbp.nn.layers import Dense
from distbp.nn.losses import Quadratic
from distbp.nn.network import Network
from distbp.nn.program import Program
from distbp.optim import Step, Updater
from distbp.optim.recipes import SGD

RATE = 0.5
X, T = np.array([[0.05, 0.10]]), np.array([[0.01, 0.99]])
W1, B1 = [0.15, 0.20, 0.25, 0.30], [0.35, 0.35]  # row = hidden unit
W2, B2 = [0.40, 0.45, 0.50, 0.55], [0.60, 0.60]
START = np.array([*W1, *B1, *W2, *B2])


@dataclass
class Example:
    """The network at work. `trained`: 1 for what is trained, 0 for what is held, (12,)."""

    vector: Array
    trained: Array

    def __post_init__(self) -> None:
        layer = Dense(units=2, activation="sigmoid")
        network = Network([layer, layer], (2,), np.float64)
        assert [(t.path, t.start) for t in network.tensors] == [
            ("layers.0.dense.weight", 0),
            ("layers.0.dense.bias", 4),
            ("layers.1.dense.weight", 6),
            ("layers.1.dense.bias", 10),
        ]
        self.gradient = np.zeros(12)
        options = {"kernels": kernels.NUMPY, "loss": Quadratic()}
        self.training = Program(network, 1, self.vector, gradient=self.gradient, **options)
        self.program = Program(network, 1, self.vector, forward_only=True, **options)
        self.updater = Updater(SGD(learning_rate=RATE).parts(), self.vector, network.decays)

    def hidden(self) -> Array:
        self.program.run(X, T)
        return self.program.activations(0, 1).copy()

    def outputs(self) -> Array:
        self.program.run(X, T)
        return self.program.outputs(1).copy()

    def error(self) -> float:
        self.program.run(X, T)
        return float(self.program.totals[LOSS])

    def differentiate(self) -> None:
        self.training.run(X, T)
        self.gradient *= self.trained

    def train(self, steps: int) -> None:
        for number in range(1, steps + 1):
            self.differentiate()
            self.updater.apply([self.gradient], [], Step(number, RATE), 1.0)


def example(biases: bool = False) -> Example:
    return Example(START.copy(), np.array([1] * 4 + [biases] * 2 + [1] * 4 + [biases] * 2, float))


def test_forward() -> None:
    net = example()
    hidden = net.hidden()
    np.testing.assert_allclose(hidden, [[0.593269992, 0.596884378]], atol=5e-10)
    assert hidden[0] @ W2[:2] + 0.60 == pytest.approx(1.105905967, abs=5e-10)
    np.testing.assert_allclose(net.outputs(), [[0.75136507, 0.772928465]], atol=5e-9)
    halves = (net.outputs() - T)[0] ** 2 / 2
    np.testing.assert_allclose(halves, [0.274811083, 0.023560026], atol=5e-10)
    assert net.error() == pytest.approx(0.29837110876000269, rel=1e-15)


def test_gradient() -> None:
    net = example()
    net.differentiate()
    assert net.gradient[6] == pytest.approx(0.082167041, abs=5e-10)  # dE/dw5
    assert net.gradient[0] == pytest.approx(0.000438568, abs=5e-10)  # dE/dw1


def test_one_step() -> None:
    net = example()
    net.train(1)
    printed = {
        6: "0.35891648", 7: "0.408666186", 8: "0.511301270", 9: "0.561370121",
        0: "0.149780716", 1: "0.19956143", 2: "0.24975114", 3: "0.29950229",
    }  # fmt: skip
    for place, text in printed.items():
        assert f"{net.vector[place]:.{len(text) - 2}f}" == text
    np.testing.assert_array_equal(net.vector[4:6], B1)
    np.testing.assert_array_equal(net.vector[10:], B2)
    assert net.error() == pytest.approx(0.29102777369359935, rel=1e-15)


@pytest.mark.heavy
def test_ten_thousand_steps() -> None:
    net = example()
    net.train(10_000)
    assert net.error() == pytest.approx(3.51018778298e-5, abs=5e-17)
    np.testing.assert_allclose(net.outputs(), [[0.0159136204, 0.9840642735]], atol=5e-11)


def mistaken_step(vector: Array) -> None:
    """What the page's program did: the hidden deltas are taken through output weights already updated."""
    w1, b1, w2, b2 = vector[:4].reshape(2, 2), vector[4:6], vector[6:10].reshape(2, 2), vector[10:]
    hidden = 1 / (1 + np.exp(-(w1 @ X[0] + b1)))
    out = 1 / (1 + np.exp(-(w2 @ hidden + b2)))
    delta = (out - T[0]) * out * (1 - out)
    w2 -= RATE * np.outer(delta, hidden)
    w1 -= RATE * np.outer(w2.T @ delta * hidden * (1 - hidden), X[0])


@pytest.mark.heavy
def test_the_printed_error_comes_from_a_mistake_that_is_not_ours() -> None:
    right, wrong = example(), example()
    right.train(1)
    mistaken_step(wrong.vector)
    assert wrong.error() == pytest.approx(0.291027924, abs=5e-10)
    assert abs(right.error() - 0.291027924) > 1e-7
    right.train(9_999)
    for _ in range(9_999):
        mistaken_step(wrong.vector)
    np.testing.assert_allclose(wrong.outputs(), [[0.015912196, 0.984065734]], atol=5e-10)
    assert np.abs(right.outputs() - [[0.015912196, 0.984065734]]).min() > 1e-6


def test_trained_biases() -> None:
    net = example(biases=True)
    net.train(1)
    assert net.error() == pytest.approx(0.28047144679143016, rel=1e-15)
    np.testing.assert_allclose(net.vector[4:6], [0.345614322655, 0.345022872647], atol=5e-13)
    np.testing.assert_allclose(net.vector[10:], [0.530750719186, 0.619049118258], atol=5e-13)
