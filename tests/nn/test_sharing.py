"""Tensors that several layers use (`shares`): one place, one gradient that is the sum of their parts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kernel_sets import PLAIN
from lowered import check_compiled, check_same_bits, data, gradcheck, layer, train_once, vector_of

import distbp
from distbp.core.arrays import Shape
from distbp.core.errors import JobError
from distbp.job import TrainingJob
from distbp.nn.layers.base import Layer
from distbp.nn.losses import LOSSES
from distbp.nn.lowered import lower
from distbp.nn.network import Network
from distbp.nn.tape import Space

# Layers, the shape of a sample, the ids.
CASES: dict[str, tuple[Sequence[Layer], Shape, int]] = {
    "dense, twice": (
        [
            layer("dense", units=4, activation="tanh", name="a"),
            layer("dense", units=4, activation="tanh", shares=("a.weight", "a.bias")),
            layer("dense", units=2),
        ],
        (4,),
        0,
    ),
    "three users, the last has it": (
        [
            layer("dense", units=3, shares="c.weight", name="x"),
            layer("dense", units=3, activation="relu", shares="c.weight"),
            layer("dense", units=3, name="c"),
        ],
        (3,),
        0,
    ),
    "two ways with one set of weights": (
        [
            layer("dense", units=3, activation="sigmoid", name="left"),
            layer("dense", units=3, inputs=("input",), shares=("left.weight",), name="right"),
            layer("multiply", inputs=("left", "right")),
        ],
        (5,),
        0,
    ),
    "tied embedding": (
        [
            layer("embedding", entries=7, size=4, shares="out.weight"),
            layer("lstm", units=4, bidirectional=False),
            layer("dense", units=7, name="out"),
        ],
        (5,),
        7,
    ),
    "convolution in groups": (
        [
            layer("conv2d", filters=4, kernel_size=3, padding="same", groups=2, name="first"),
            layer("conv2d", filters=4, kernel_size=3, groups=2, activation="gelu", shares="first.weight"),
            layer("flatten"),
            layer("dense", units=2),
        ],
        (4, 5, 4),
        0,
    ),
    "both directions and attention": (
        [
            layer("gru", units=2, return_sequences=True, bidirectional=True, name="g"),
            layer(
                "gru", units=2, return_sequences=True, bidirectional=True,
                shares=("g.recurrent_weight", "g.recurrent_weight_reverse", "g.recurrent_bias"),
            ),
            layer("attention", heads=2, name="at"),
            layer("attention", heads=2, shares=("at.in_proj_weight", "at.out_proj_bias")),
            layer("layer_normalization", name="n"),
            layer("positional_embedding", name="p"),
            layer("layer_normalization", shares=("n.scale",)),
            layer("positional_embedding", shares="p.weight"),
            layer("average_steps"),
        ],
        (2, 4),
        0,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_gradients(name: str) -> None:
    layers, shape, ids = CASES[name]
    report = gradcheck(layers, shape, 2, 5, ids)
    assert report.worst.error < 1e-7, report


@pytest.mark.parametrize("name", CASES)
def test_compiled(name: str) -> None:
    layers, shape, ids = CASES[name]
    check_compiled(layers, shape, 5, 8, ids)


def test_the_sum_of_the_parts_is_the_gradient_of_layers_of_their_own() -> None:
    layers = [layer("dense", units=4, activation="tanh", name="a"), layer("dense", units=4)]
    apart = Network(layers, (4,), np.float64)
    one = Network([layers[0], layer("dense", units=4, shares="a.weight")], (4,), np.float64)
    x, targets = data(apart, 5)
    vector, alone = vector_of(apart), vector_of(one)
    alone[:20], vector[20:36], vector[36:] = vector[:20], vector[:16], alone[20:]
    loss, outputs, gradient = train_once(one, 5, x, targets, alone)
    found = train_once(apart, 5, x, targets, vector)
    assert (loss, outputs.tobytes()) == (found[0], found[1].tobytes())
    np.testing.assert_allclose(gradient[:16], found[2][:16] + found[2][20:36], rtol=1e-14)
    assert np.array_equal(gradient[16:], np.concatenate([found[2][16:20], found[2][36:]]))


def test_one_tensor_is_held_once() -> None:
    layers, shape, _ = CASES["tied embedding"]
    network = Network(layers, shape)
    assert [t.path for t in network.tensors] == [
        "layers.1.lstm.weight", "layers.1.lstm.recurrent_weight", "layers.1.lstm.bias",
        "layers.2.dense.weight", "layers.2.dense.bias",
    ]  # fmt: skip
    assert network.users == {(2, "weight"): [2, 0]} and network.shared == 2 * 7 * 4
    rows = lower(network, 4, LOSSES["mse"](), training=True).rows
    (weight,) = (t for t in network.tensors if t.path == "layers.2.dense.weight")
    written = [
        row.op.name
        for row in rows
        for ref, letter in zip(row.refs, row.op.operands, strict=True)
        if letter == "F" and ref.space == Space.GRADIENT and ref.start == weight.start
    ]
    assert written == ["add"], "nothing but the sum of the parts is written there, and nothing is deferred"


@pytest.mark.parametrize("kernels", PLAIN)
def test_the_same_bits(kernels: str) -> None:
    draw = np.random.default_rng(4)
    x = draw.integers(0, 9, (50, 5))
    check_same_bits(
        [
            {"type": "embedding", "entries": 9, "size": 4, "shares": "wide.weight"}, "average_steps",
            {"type": "dense", "units": 4, "activation": "tanh", "name": "one"},
            {"type": "dense", "units": 4, "shares": ["one.weight", "one.bias"]},
            {"type": "dense", "units": 9, "name": "wide"}, {"type": "dense", "units": 3},
        ],
        x, x[:, 0] % 3, 3, kernels,
    )  # fmt: skip


def test_a_model_of_it_is_saved_read_and_begun_with(tmp_path: Path) -> None:
    layers = [
        {"type": "embedding", "entries": 9, "size": 4, "shares": "out.weight"},
        "average_steps",
        {"type": "dense", "units": 9, "name": "out"},
    ]
    x = np.random.default_rng(1).integers(0, 9, (30, 4))
    fields = {"model": {"layers": layers}, "loss": "softmax_cross_entropy", "workers": 0, "max_steps": 4}
    result = distbp.train(TrainingJob.from_mapping(fields), data=(x, x[:, 0]), output=tmp_path / "run")
    model = distbp.load_model(tmp_path / "run" / "model")
    assert len(model.vector) == 9 * 4 + 9
    assert np.array_equal(model.predict(x), result.model().predict(x))
    assert "9 x 4" not in model.summary() and "45" in model.summary()
    further = TrainingJob.from_mapping({**fields, "init": "run"})
    again = distbp.train(further, data=(x, x[:, 0]), output=tmp_path / "further", folder=tmp_path)
    assert not np.array_equal(again.model().vector, model.vector)


# Faults ------------------------------------------------------------------------------------------------

A: dict[str, Any] = {"type": "dense", "units": 4, "name": "a"}
FAULTS: list[tuple[list[Any], str, str]] = [
    ([A, {**A, "name": "b", "shares": "c.weight"}], "1.shares", "'c' is not known; known: a, b"),
    ([A, {**A, "name": "b", "shares": ["a.weight", "a.wait"]}], "1.shares.1",
     "of layer 1 (dense), 'wait' is not known; did you mean 'weight'? known: bias, weight"),
    ([A, "relu", {"type": "tanh", "shares": "a.weight"}], "2.shares",
     "layer 2 (tanh) has no parameters"),
    ([A, {**A, "name": "b", "units": 5, "shares": "a.weight"}], "1.shares",
     "layer 0 has 'weight' of shape [4, 4], but here it is of shape [5, 4]"),
    ([A, {**A, "name": "b", "shares": "weight"}], "1.shares",
     "'weight' must be the name of a layer and of its tensor, such as out.weight"),
    ([A, {**A, "name": "b", "shares": "b.weight"}], "1.shares", "names the layer itself; name another one"),
    ([A, {**A, "name": "b", "shares": "a.weight"}, {**A, "name": "c", "shares": "b.weight"}], "2.shares",
     "layer 1 shares its 'weight' too; name the layer that has it"),
    ([A, {**A, "name": "c"}, {**A, "name": "b", "shares": ["a.weight", "c.weight"]}], "2.shares.1",
     "'weight' is shared twice; name it once"),
]  # fmt: skip


@pytest.mark.parametrize(("layers", "path", "message"), FAULTS, ids=[message for *_, message in FAULTS])
def test_faults(layers: list[Any], path: str, message: str) -> None:
    first = {"type": "reshape", "shape": [4]}  # so that all shapes are known
    with pytest.raises(JobError) as caught:
        TrainingJob.from_mapping({"model": {"layers": [first, *layers]}, "loss": "mse"})
    number, _, rest = path.partition(".")
    (fault,) = caught.value.faults
    assert fault.path == f"model.layers.{int(number) + 1}.{rest}"
    numbered = message
    for digit in "210":
        numbered = numbered.replace(f"layer {digit}", f"layer {int(digit) + 1}")
    assert fault.message == numbered


def test_a_shape_that_the_data_decide_is_checked_with_them(tmp_path: Path) -> None:
    job = TrainingJob.from_mapping(
        {"model": {"layers": [A, {**A, "name": "b", "shares": "a.weight"}]}, "loss": "mse"}
    )
    with pytest.raises(JobError) as caught:
        distbp.train(job, data=(np.ones((4, 3)), np.ones((4, 4))), output=tmp_path / "run")
    (fault,) = caught.value.faults
    assert str(fault) == (
        "model.layers.1.shares: layer 0 has 'weight' of shape [4, 3], but here it is of shape [4, 4]"
    )
    with pytest.raises(ValueError, match=r"layer 1.shares: layer 0 has 'weight'"):
        Network(job.model.layers, (3,))
