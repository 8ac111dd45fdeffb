"""Networks that are graphs: names and inputs of layers, sums of gradients, layers with several inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from kernel_sets import PLAIN
from nn.lowered import check_compiled, check_same_bits, gradcheck, layer, train_once
from rigs import classes

from distbp import JobError, TrainingJob
from distbp.nn.layers.base import Layer
from distbp.nn.network import Network
from distbp.nn.wiring import wiring_of

RESIDUAL = [
    layer("dense", units=4, activation="tanh", name="a"),
    layer("dense", units=4, activation="gelu"),
    layer("dropout", rate=0.2, name="b"),
    layer("add", inputs=("a", "b", "a", "input"), name="sum"),
    layer("layer_normalization"),
    layer("dense", units=2),
]
GATE = [
    layer("dense", units=4, name="a"),
    layer("dense", units=4, activation="sigmoid", name="gate", inputs=("input",)),
    layer("multiply", inputs=("a", "gate", "a"), name="c"),
    layer("concatenate", inputs=("c", "gate", "input")),
    layer("dense", units=2),
]
STACKED = [  # beside each other along the first of two axes, and values used in other shapes
    layer("dense", units=6, name="a"),
    layer("reshape", shape=(2, 3), name="left"),
    layer("tanh", name="right"),
    layer("concatenate", axis=0, inputs=("left", "right", "left"), name="six"),
    layer("softmax"),
    layer("flatten"),
    layer("dense", units=2),
]
FROZEN_FIRST = [  # the data go through a layer without parameters, and several ways
    layer("tanh", name="t"),
    layer("add", inputs=("t", "input"), name="s"),
    layer("multiply", inputs=("s", "t")),
    layer("dense", units=3),
]
GRAPHS = {"residual": RESIDUAL, "gate": GATE, "stacked": STACKED, "frozen first": FROZEN_FIRST}


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize(("rows", "most"), [(5, 5), (3, 8), (1, 1)])
def test_gradients(name: str, rows: int, most: int) -> None:
    report = gradcheck(GRAPHS[name], (4,), rows, most)
    assert report.passed, str(report)


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize(("rows", "most"), [(6, 6), (3, 20)])
def test_compiled_ops_give_the_same(name: str, rows: int, most: int) -> None:
    check_compiled(GRAPHS[name], (4,), rows, most)


@pytest.mark.parametrize("shards", [2, 3])
@pytest.mark.parametrize("kernels", PLAIN)
@pytest.mark.parametrize("name", ["residual", "gate"])
def test_same_bits(name: str, kernels: str, shards: int) -> None:
    x, y = classes(50, features=4)
    layers = [*GRAPHS[name][:-1], layer("dense", units=3)]
    check_same_bits(layers, x.astype(np.float32), y, shards, kernels)


def test_a_chain_is_the_default() -> None:
    layers = [layer("dense", units=3), layer("tanh"), layer("dense", units=2)]
    assert wiring_of(layers) == ((-1,), (0,), (1,))
    assert wiring_of(GATE) == ((-1,), (-1,), (0, 1, 0), (2, 1, -1), (3,))


def test_wiring_may_be_given_as_numbers() -> None:
    layers: list[Layer] = [
        layer("dense", units=4),
        layer("dense", units=4),
        layer("add"),
        layer("dense", units=1),
    ]
    network = Network(layers, (4,), np.float64, ((-1,), (0,), (0, 1), (2,)))
    x, vector = np.ones((2, 4)), np.zeros(network.size)
    vector[16:20], vector[36:40] = 2.0, 3.0  # the biases of the first two, whose weights are 0
    weight = next(t for t in network.tensors if t.path == "layers.3.dense.weight")
    vector[weight.start : weight.stop] = 1.0
    _, outputs, gradient = train_once(network, 2, x, np.zeros((2, 1)), vector)
    assert outputs.tolist() == [[20.0], [20.0]]
    bias = next(t for t in network.tensors if t.path == "layers.0.dense.bias")
    assert gradient[bias.start : bias.stop].tolist() == [80.0] * 4  # 2 rows of d = 2 * 20


def test_values_and_gradients_by_hand() -> None:
    """y = (w x) (w x) + w x for one number: dy/dw = 2 w x^2 + x."""
    layers = [
        layer("dense", units=1, name="a"),
        layer("multiply", inputs=("a", "a"), name="square"),
        layer("add", inputs=("square", "a")),
    ]
    network = Network(layers, (1,), np.float64)
    vector = np.array([3.0, 0.0])  # the weight and the bias
    loss, outputs, gradient = train_once(network, 1, np.array([[2.0]]), np.array([[0.0]]), vector)
    assert outputs.tolist() == [[42.0]] and loss == 42.0**2
    assert gradient.tolist() == [2 * 42.0 * (2 * 3 * 4 + 2), 2 * 42.0 * (2 * 6 + 1)]


def test_shapes() -> None:
    concatenate = layer("concatenate", axis=0)
    assert concatenate.output_shape((2, 3, 4), (5, 3, 4)) == (7, 3, 4)
    assert layer("concatenate").output_shape((2, 3), (2, 4)) == (2, 7)
    assert layer("add").output_shape((2, 3), (2, 3)) == (2, 3)


@pytest.mark.parametrize(
    ("kind", "options", "shapes", "message"),
    [
        ("add", {}, [(3,), (4,)], "the inputs must have one shape, but have [3] and [4]"),
        ("multiply", {}, [(2, 3), (6,)], "the inputs must have one shape, but have [2, 3] and [6]"),
        (
            "concatenate", {"axis": 1}, [(2, 3), (4, 3)],
            "the inputs must have one shape but for axis 1, but have [2, 3] and [4, 3]",
        ),
        (
            "concatenate", {"axis": 2}, [(2, 3), (2, 3)],
            "axis is 2, but the inputs have 2 axes: their shapes are [2, 3] and [2, 3]",
        ),
    ],
)  # fmt: skip
def test_shapes_that_clash(kind: str, options: Any, shapes: Sequence[Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        layer(kind, **options).output_shape(*shapes)
    assert str(caught.value) == message


DENSE = {"type": "dense", "units": 4}


@pytest.mark.parametrize(
    ("layers", "faults"),
    [
        (
            [{**DENSE, "name": "encoder"}, {**DENSE, "inputs": ["encodr"]}],
            ["model.layers.1.inputs.0: 'encodr' is not known; did you mean 'encoder'? known: encoder, input"],
        ),
        (
            [DENSE, {**DENSE, "inputs": ["c"]}, {**DENSE, "name": "c"}],
            ["model.layers.1.inputs.0: 'c' is layer 2; a layer takes the outputs of layers before it"],
        ),
        (
            [{**DENSE, "name": "a", "inputs": ["a"]}, DENSE],
            ["model.layers.0.inputs.0: 'a' is layer 0; a layer takes the outputs of layers before it"],
        ),
        (
            [{**DENSE, "name": "a"}, {**DENSE, "name": "a"}, DENSE],
            ["model.layers.1.name: 'a' is the name of layer 0; give each layer a name of its own"],
        ),
        (
            [{**DENSE, "name": "input"}, DENSE],
            ["model.layers.0.name: 'input' is the name of the data; choose another"],
        ),
        (
            [{**DENSE, "name": "a"}, {**DENSE, "name": "b"}, {**DENSE, "inputs": ["a"]}],
            [
                "model.layers.1: no layer takes the output of this one ('b'); name it in the inputs of a"
                " later layer, or take it out"
            ],
        ),
        (
            [{**DENSE, "name": "a"}, {**DENSE, "name": "b"}, {**DENSE, "inputs": ["a", "b"]}],
            [
                "model.layers.2.inputs: dense takes 1 input, not 2; join them in a layer first (add,"
                " multiply, concatenate)"
            ],
        ),
        (
            [DENSE, {"type": "add"}, DENSE],
            ["model.layers.1.inputs: add takes two or more inputs, not 1; name them, as inputs: [a, b]"],
        ),
        (
            [
                {**DENSE, "name": "a"},
                {**DENSE, "units": 3, "name": "b"},
                {"type": "add", "inputs": ["a", "b"]},
            ],
            ["model.layers.2: the inputs must have one shape, but have [4] and [3]"],
        ),
        (
            [DENSE, {**DENSE, "inputs": []}],
            ["model.layers.1.inputs: must be a list of at least 1, not of 0"],
        ),
        (
            [DENSE, {**DENSE, "name": 3}],
            ["model.layers.1.name: must be text that is not empty, not 3"],
        ),
        (
            [{**DENSE, "activation": "step", "name": "a"}, {"type": "add", "inputs": ["a", "input"]}],
            [
                "model.layers.0.activation: 'step' has a derivative of zero, so nothing before it can learn;"
                " train with 'sigmoid', or a single layer as 'linear' with the loss 'perceptron', or use the"
                " optimizer 'evolution'"
            ],
        ),
    ],
)
def test_faults_of_a_job(layers: list[Any], faults: list[str]) -> None:
    with pytest.raises(JobError) as caught:
        TrainingJob(model={"layers": layers}, loss="mse")
    assert [str(fault) for fault in caught.value.faults] == faults


def test_an_unfit_network_says_why() -> None:
    with pytest.raises(ValueError, match=r"layer 0\.inputs\.0: 'x' is not known; known: input"):
        Network([layer("dense", units=1, inputs=("x",))], (2,))


def test_the_loss_sees_through_what_keeps_values() -> None:
    layers = [
        {"type": "dense", "units": 4, "activation": "softmax", "name": "a"},
        {"type": "dense", "units": 4, "name": "b"},
        {"type": "dropout", "inputs": ["a"], "name": "c"},
        {"type": "add", "inputs": ["b", "c"]},
    ]
    TrainingJob(model={"layers": layers}, loss="softmax_cross_entropy")
    with pytest.raises(JobError, match="but the last layer ends in 'softmax'"):
        TrainingJob(
            model={"layers": [layers[0], {"type": "dropout", "inputs": ["a"]}]}, loss="softmax_cross_entropy"
        )


def test_other_names_of_the_same_graph_have_the_same_digest() -> None:
    def job(first: str, second: list[str] | None) -> TrainingJob:
        layers = [{**DENSE, "name": first}, {**DENSE, "inputs": second}]
        return TrainingJob(model={"layers": layers}, loss="mse")

    chain = TrainingJob(model={"layers": [DENSE, DENSE]}, loss="mse")
    assert job("a", ["a"]).digest == job("b", None).digest == chain.digest
    graph = [{**DENSE, "name": "a"}, {**DENSE, "name": "b"}]
    one = TrainingJob(model={"layers": [*graph, {"type": "add", "inputs": ["a", "b"]}]}, loss="mse")
    other = TrainingJob(model={"layers": [*graph, {"type": "add", "inputs": ["input", "b"]}]}, loss="mse")
    assert one.digest != other.digest
