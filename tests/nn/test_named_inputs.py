"""Networks with several inputs: images, rows of numbers, ids, and rows of different lengths side by side."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from nn.lowered import check_compiled, check_same_bits, data, gradcheck, layer, train_once, vector_of

from distbp import JobError, TrainingJob
from distbp.nn.network import Network

IMAGE = layer("input", name="image", shape=(1, 3, 3))
FACTS = layer("input", name="facts", shape=(2,))
WORDS = layer("input", name="words", shape=(3,))
SERIES = layer("input", name="series", shape=(4, 2), ragged=True)
SAID = layer("input", name="said", shape=(6,), ragged=True)
PICTURES = [
    IMAGE,
    FACTS,
    layer("conv2d", filters=2, kernel_size=2, activation="tanh", inputs=("image",)),
    layer("flatten", name="seen"),
    layer("concatenate", inputs=("seen", "facts")),
    layer("dense", units=2),
]
IDS = [
    FACTS,
    WORDS,
    layer("embedding", entries=5, size=3, inputs=("words",)),
    layer("average_steps", name="meant"),
    layer("concatenate", inputs=("facts", "meant")),
    layer("dense", units=2),
]
RAGGED = [
    SERIES,
    FACTS,
    SAID,
    layer("gru", units=3, inputs=("series",), name="heard"),
    layer("embedding", entries=7, size=2, inputs=("said",)),
    layer("lstm", units=2, bidirectional=True, return_sequences=True),
    layer("average_steps", name="read"),
    layer("concatenate", inputs=("heard", "facts", "read")),
    layer("dense", units=2),
]
NETWORKS = {"pictures": (PICTURES, 11), "ids": (IDS, 5), "ragged": (RAGGED, 9 + 2 + 7)}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("rows", "most"), [(5, 5), (3, 8), (1, 1)])
def test_gradients(name: str, rows: int, most: int) -> None:
    layers, numbers = NETWORKS[name]
    report = gradcheck(layers, (numbers,), rows, most)
    assert report.passed, str(report)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("rows", "most"), [(6, 6), (3, 20)])
def test_compiled_ops_give_the_same(name: str, rows: int, most: int) -> None:
    layers, numbers = NETWORKS[name]
    check_compiled(layers, (numbers,), rows, most)


@pytest.mark.parametrize("name", NETWORKS)
def test_any_number_of_workers_gives_the_same_bits(name: str) -> None:
    layers, numbers = NETWORKS[name]
    network = Network(layers, (numbers,))
    x, _ = data(network, 70)
    check_same_bits(layers, x, np.arange(70) % 2, 3)


def test_padding_has_no_influence() -> None:
    network = Network(RAGGED, (18,), np.float64)
    x, targets = data(network, 6)
    other = x.copy()
    for one in network.named_inputs:
        if one.ragged:
            steps = np.prod(one.shape) // one.shape[0]
            past = np.repeat(np.arange(one.shape[0]), steps) >= x[:, [one.end]]
            other[:, one.first : one.end][past] = 3
    assert (x != other).any()
    vector = vector_of(network)
    for first, second in zip(
        train_once(network, 6, x, targets, vector),
        train_once(network, 6, other, targets, vector),
        strict=True,
    ):
        np.testing.assert_array_equal(first, second)


DENSE = {"type": "dense", "units": 2}
ROW = {"type": "input", "name": "row", "shape": [3]}
STEPS = {"type": "input", "name": "steps", "shape": [4, 3], "ragged": True}
MORE = {"type": "input", "name": "more", "shape": [4, 3], "ragged": True}
FAULTS: dict[str, tuple[list[Any], list[str]]] = {
    "takes the data as a whole": (
        [ROW, {**DENSE, "inputs": ["row"], "name": "a"}, {**DENSE, "inputs": ["input"], "name": "b"},
         {"type": "add", "inputs": ["a", "b"]}],
        ["model.layers.2.inputs: the data are inputs with names ('row'); name one of them"],
    ),
    "no name": (
        [{"type": "input", "shape": [3]}, DENSE],
        ["model.layers.0.name: is required: by it the data and other layers name it"],
    ),
    "below another layer": (
        [ROW, {**DENSE, "name": "a"}, {**ROW, "name": "late"},
         {"type": "concatenate", "inputs": ["a", "late"]}],
        ["model.layers.2: inputs stand before all other layers; put it above them"],
    ),
    "has inputs": (
        [ROW, {**ROW, "name": "b", "inputs": ["row"]}, {"type": "add", "inputs": ["row", "b"]}, DENSE],
        ["model.layers.1.inputs: an input takes its part of the data; leave this out"],
    ),
    "not used": (
        [ROW, {**ROW, "name": "rest"}, {**DENSE, "inputs": ["row"]}],
        ["model.layers.1: no layer takes the output of this one ('rest'); name it in the inputs of a later"
         " layer, or take it out"],
    ),
    "misspelled": (
        [ROW, {**DENSE, "inputs": ["rwo"]}],
        ["model.layers.1.inputs.0: 'rwo' is not known; did you mean 'row'? known: input, row"],
    ),
    "ids and numbers": (
        [ROW, {"type": "embedding", "entries": 5, "size": 3, "inputs": ["row"]},
         {"type": "average_steps", "name": "a"}, {"type": "add", "inputs": ["a", "row"]}, DENSE],
        ["model.layers.3: add takes numbers, but the data are ids, as another layer takes them so"],
    ),
    "ids that are not an input": (
        [ROW, {"type": "slice", "start": 0, "stop": 1},
         {"type": "embedding", "entries": 5, "size": 3}, "average_steps", DENSE],
        ["model.layers.2: embedding takes ids, and only the data are ids; give it inputs: [row]"],
    ),
    "ids that are scaled": (
        [{**ROW, "scale": 255}, {"type": "embedding", "entries": 5, "size": 3}, "average_steps", DENSE],
        ["model.layers.0.scale: would change its ids; leave it out"],
    ),
    "lengths dropped": (
        [STEPS, "flatten", DENSE],
        ["model.layers.1: flatten drops the lengths of the rows, so padding would count; put a layer"
         " before it that uses them, as average_steps, last_step, or a recurrent one"],
    ),
    "lengths mixed": (
        [STEPS, MORE, {"type": "add", "inputs": ["steps", "more"]}, "average_steps", DENSE],
        ["model.layers.2: add joins steps of 'steps' and 'more', which have lengths of their own each; use"
         " the steps before, as average_steps, last_step, or a recurrent layer does"],
    ),
    "lengths of numbers without steps": (
        [{"type": "input", "name": "words", "shape": [5], "ragged": True}, "layer_normalization", DENSE],
        ["model.layers.0.shape: lengths are of rows (steps, features), but a row has the shape [5]; write"
         " [5, 1], or give ids to an embedding"],
    ),
    "lengths left for the loss": (
        [STEPS, {"type": "gru", "units": 2, "return_sequences": True}],
        ["model.layers.1: gru gives the steps of rows that have lengths to the loss, so padding would"
         " count; put a layer after it that uses them, as average_steps, last_step, or a recurrent one; or,"
         " where each step has a target, set data.truncated_bptt_steps"],
    ),
    "no size": (
        [{**ROW, "shape": [0]}, DENSE],
        ["model.layers.0.shape: needs sizes of 1 or more, and is [0]"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_faults(name: str) -> None:
    layers, wanted = FAULTS[name]
    with pytest.raises(JobError) as caught:
        TrainingJob(model={"layers": layers}, loss="softmax_cross_entropy", epochs=1)
    assert [f"{fault.path}: {fault.message}" for fault in caught.value.faults] == wanted


def test_a_row_of_another_size_does_not_fit() -> None:
    with pytest.raises(
        ValueError, match=r"has 10 numbers, but the inputs 'image' \[1, 3, 3\], 'facts' \[2\]"
    ):
        Network(PICTURES, (10,))


def test_what_is_scaled_says_so_by_the_input() -> None:
    data_fields = {"scale": 255, "targets": "inputs", "truncated_bptt_steps": 4}
    with pytest.raises(JobError) as caught:
        TrainingJob(model={"layers": [ROW, DENSE]}, loss="mse", epochs=1, data=data_fields)
    found = {fault.path: fault.message for fault in caught.value.faults}
    assert found["data.scale"] == "would change every input; give each input layer a scale"
    assert found["data.targets"] == "has no meaning with several inputs; give the data targets"
    assert found["data.truncated_bptt_steps"] == "is for networks with one input; leave it out"


def test_ids_are_whole_numbers_of_the_dtype() -> None:
    layers = [ROW, {"type": "embedding", "entries": 2**24 + 2, "size": 1}, "average_steps", DENSE]
    with pytest.raises(JobError) as caught:
        TrainingJob(model={"layers": layers}, loss="mse", epochs=1)
    (fault,) = caught.value.faults
    assert fault.path == "model.layers.0"
    assert fault.message == (
        "holds ids up to 16,777,218, but float32 has whole numbers up to 16,777,216; take dtype: float64"
    )
