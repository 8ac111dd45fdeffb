"""The Elman layer: published numbers, PyTorch's formula, gradients through time, the same bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from kernel_sets import PLAIN
from nn.lowered import check_compiled, check_same_bits, gradcheck, layer, train_once

from distbp.core.arrays import Array
from distbp.nn.lowered import lower
from distbp.nn.network import Network

DENSE = layer("dense", units=2)
NETS: dict[str, tuple[list[Any], tuple[int, ...]]] = {
    "two": ([layer("elman", units=5, return_sequences=True), layer("elman", units=3), DENSE], (4, 3)),
    "wide": ([layer("elman", units=17, return_sequences=True), layer("flatten"), DENSE], (3, 2)),
    "one step": ([layer("elman", units=4), layer("dense", units=2)], (1, 3)),
    "one step of sequences": ([layer("elman", units=4, return_sequences=True), layer("flatten")], (1, 3)),
    "relu": ([layer("elman", units=6, activation="relu"), layer("dense", units=2)], (5, 1)),
    "in a graph": (
        [
            layer("elman", units=3, return_sequences=True, name="a"),
            layer("elman", units=3, return_sequences=True, name="b"),
            layer("add", inputs=("a", "b"), name="sum"),
            layer("elman", units=2, name="last"),
            layer("elman", units=2, inputs=("sum",), name="beside"),
            layer("concatenate", inputs=("last", "beside")),
        ],
        (3, 3),
    ),
}  # fmt: skip


def outputs(units: int, x: Array, weight: Array, recurrent: Array, bias: Array, **options: Any) -> Array:
    network = Network([layer("elman", units=units, **options)], x.shape[1:], np.float64)
    vector = np.concatenate([part.ravel() for part in (weight, recurrent, bias)])
    assert [t.name for t in network.tensors] == ["weight", "recurrent_weight", "bias"]
    targets = np.zeros((len(x), int(np.prod(network.output_shape))))
    return train_once(network, len(x), x, targets, vector)[1]


def space(low: float, high: float, *shape: int) -> Array:
    return np.linspace(low, high, int(np.prod(shape))).reshape(shape)


def test_the_step_of_cs231n() -> None:
    """Its state before is not 0: here four more features make it, in a step before."""
    x, state = space(-0.4, 0.7, 3, 10), space(-0.2, 0.5, 3, 4)
    wx, wh, b = space(-0.1, 0.9, 10, 4), space(-0.3, 0.7, 4, 4), space(-0.2, 0.4, 4)
    steps = np.zeros((3, 2, 14))
    steps[:, 0, 10:] = np.arctanh(state) - b
    steps[:, 1, :10] = x
    found = outputs(4, steps, np.hstack([wx.T, np.eye(4)]), wh.T.copy(), b)
    np.testing.assert_allclose(found[0], [-0.58172089, -0.50182032, -0.41232771, -0.31410098], atol=5e-9)
    np.testing.assert_allclose(found, np.tanh(x @ wx + state @ wh + b), atol=1e-14)


@pytest.mark.parametrize("return_sequences", [False, True])
@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_the_formula_of_pytorch(activation: str, return_sequences: bool) -> None:
    draw = np.random.default_rng(1)
    x, weight, recurrent = draw.normal(size=(3, 5, 2)), draw.normal(size=(4, 2)), draw.normal(size=(4, 4))
    bias, h, every = draw.normal(size=4), np.zeros((3, 4)), []
    for t in range(5):
        z = x[:, t] @ weight.T + h @ recurrent.T + bias
        h = np.tanh(z) if activation == "tanh" else np.maximum(z, 0)
        every.append(h)
    expected = np.stack(every, axis=1) if return_sequences else h
    found = outputs(4, x, weight, recurrent, bias, activation=activation, return_sequences=return_sequences)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize(("rows", "most"), [(5, 5), (3, 8), (1, 1)])
def test_gradients(name: str, rows: int, most: int) -> None:
    report = gradcheck(*NETS[name], rows, most)
    assert report.passed, str(report)


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize(("rows", "most"), [(6, 6), (3, 20)])
def test_compiled_ops_give_the_same(name: str, rows: int, most: int) -> None:
    check_compiled(*NETS[name], rows, most)


def first_number_decides(rows: int, steps: int, features: int) -> tuple[Array, Array]:
    x = np.random.default_rng(2).normal(size=(rows, steps, features)).astype(np.float32)
    return x, (x[:, 0, 0] > 0).astype(np.int64)


@pytest.mark.parametrize("shards", [2, 3])
@pytest.mark.parametrize("kernels", PLAIN)
def test_same_bits(kernels: str, shards: int) -> None:
    layers = [
        layer("elman", units=7, return_sequences=True),
        layer("elman", units=9),
        layer("dense", units=2),
    ]
    check_same_bits(layers, *first_number_decides(50, 5, 3), shards, kernels)


def test_same_bits_where_products_are_deferred() -> None:
    """Many units and few rows: the gradients of weights are computed by who updates them."""
    layers = [layer("elman", units=160), layer("dense", units=2)]
    network = Network(layers, (3, 2), np.float32)
    lowered = lower(network, 8, None, training=False)
    assert lowered.outputs.columns == 2
    check_same_bits(layers, *first_number_decides(50, 3, 2), 2, optimizer={"type": "adam"})


def test_facts() -> None:
    one = layer("elman", units=4)
    assert one.output_shape((7, 3)) == (4,) and layer("elman", units=4, return_sequences=True).output_shape(
        (7, 3)
    ) == (7, 4)
    assert one.flops((7, 3)) == 6 * 7 * 4 * (3 + 4 + 1)
    assert [(spec.name, spec.shape, spec.decays) for spec in one.parameters((7, 3))] == [
        ("weight", (4, 3), True),
        ("recurrent_weight", (4, 4), True),
        ("bias", (4,), False),
    ]
    with pytest.raises(ValueError) as caught:
        one.output_shape((3,))
    assert str(caught.value) == (
        "elman takes steps of features, a shape of two sizes, but is given shape [3]; put a {type: reshape,"
        " shape: [steps, features]} layer before it"
    )


def test_a_unit_is_saturated_where_it_is_so_at_every_step() -> None:
    network = Network([layer("elman", units=4), layer("dense", units=1)], (5, 2), np.float32)
    assert [(one.layer, one.units) for one in lower(network, 3).watched] == [(0, 4)]
