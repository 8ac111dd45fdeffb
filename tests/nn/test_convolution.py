"""Convolution and pooling: numbers by hand, PyTorch's conventions by loops, its numbers, gradients, the same
bits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nn.lowered import check_compiled, check_same_bits, gradcheck, layer, train_once
from tapes import Rig

from distbp import JobError, TrainingJob
from distbp.core.arrays import Array
from distbp.nn.kernels import NUMPY
from distbp.nn.losses import LOSSES
from distbp.nn.network import Network
from distbp.nn.ops import OPS
from distbp.nn.program import Program

NETS: dict[str, tuple[list[Any], tuple[int, ...]]] = {
    "pools": (
        [
            layer("conv2d", filters=4, kernel_size=3, padding=1, activation="tanh"),
            layer("max_pool2d", kernel_size=2),
            layer("conv2d", filters=3, kernel_size=2),
            layer("average_pool2d", kernel_size=2, stride=1, padding=1),
            layer("flatten"),
            layer("dense", units=2),
        ],
        (2, 7, 6),
    ),
    "groups": (
        [
            layer("conv2d", filters=4, kernel_size=1),
            layer(
                "conv2d", filters=6, kernel_size=(2, 3), stride=(1, 2), dilation=(2, 1), padding=(1, 2),
                groups=2, activation="gelu",
            ),
            layer("conv2d", filters=6, kernel_size=2, groups=6),
            layer("flatten"),
        ],
        (2, 5, 6),
    ),
    "same": (
        [
            layer("conv2d", filters=2, kernel_size=4, padding="same", dilation=(1, 2)),
            layer("conv2d", filters=20, kernel_size=2, padding="valid"),
            layer("max_pool2d", kernel_size=3, stride=2, padding=1),
            layer("flatten"),
            layer("dense", units=2),
        ],
        (3, 5, 6),
    ),
    "both ways of lying": (  # the channels of images last and first, in one network
        [
            layer("conv2d", filters=3, kernel_size=2, name="a"),
            layer("max_pool2d", kernel_size=2, stride=1, name="b"),
            layer("softmax", name="c"),
            layer("dropout", rate=0.0),
            layer("reshape", shape=(3, 2, 4), name="d"),
            layer("multiply", inputs=("b", "c"), name="e"),
            layer("batch_normalization", axis=0, name="f"),
            layer("concatenate", axis=1, inputs=("f", "d"), name="g"),
            layer("concatenate", axis=2, inputs=("g", "g")),
            layer("global_average_pool2d"),
            layer("dense", units=2),
        ],
        (2, 4, 6),
    ),
    "ends in an image": (
        [layer("conv2d", filters=3, kernel_size=2), layer("average_pool2d", kernel_size=2, stride=1)],
        (2, 4, 3),
    ),
    "sequences": (
        [
            layer("conv1d", filters=4, kernel_size=3, padding=2, dilation=2, activation="tanh"),
            layer("max_pool1d", kernel_size=3, stride=2, padding=1),
            layer("conv1d", filters=6, kernel_size=2, stride=2, groups=2, padding=1, activation="silu"),
            layer("average_pool1d", kernel_size=2, stride=1),
            layer("conv1d", filters=2, kernel_size=2, padding="same"),
            layer("average_steps"),
        ],
        (11, 3),
    ),
    "residual": (
        [
            layer("conv2d", filters=3, kernel_size=3, padding="same", activation="silu", name="a"),
            layer("conv2d", filters=3, kernel_size=3, padding="same", name="b"),
            layer("add", inputs=("a", "b"), name="c"),
            layer("concatenate", axis=0, inputs=("c", "input")),
            layer("conv2d", filters=2, kernel_size=(4, 5), stride=3),
            layer("flatten"),
        ],
        (1, 5, 5),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize(("rows", "most"), [(2, 2), (3, 7)])
def test_gradients(name: str, rows: int, most: int) -> None:
    report = gradcheck(*NETS[name], rows, most)
    assert report.passed, str(report)


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize(("rows", "most"), [(6, 6), (3, 20)])
def test_compiled_ops_give_the_same(name: str, rows: int, most: int) -> None:
    check_compiled(*NETS[name], rows, most)


@pytest.mark.parametrize("shards", [2, 3])
def test_same_bits(shards: int) -> None:
    draw = np.random.default_rng(3)
    x, y = draw.normal(size=(50, 2, 7, 6)).astype(np.float32), draw.integers(0, 2, 50)
    check_same_bits(NETS["pools"][0], x, y, shards)


def test_same_bits_in_numpy() -> None:
    draw = np.random.default_rng(3)
    x, y = draw.normal(size=(20, 2, 7, 6)).astype(np.float32), draw.integers(0, 2, 20)
    check_same_bits(NETS["pools"][0], x, y, 3, "numpy")


def outputs(x: Array, one: Any, *parameters: Array) -> Array:
    network = Network([one], x.shape[1:], np.float64)
    vector = np.concatenate([np.zeros(0), *(part.ravel() for part in parameters)])
    assert network.size == len(vector)
    targets = np.zeros((len(x), int(np.prod(network.output_shape))))
    return train_once(network, len(x) + 2, x, targets, vector)[1]


def test_a_convolution_by_hand() -> None:
    """The kernel is not turned over: 1 * 1 + 2 * 2 + 4 * 3 + 5 * 4 = 37."""
    x = np.arange(1.0, 10).reshape(1, 1, 3, 3)
    kernel, bias = np.array([[[[1.0, 2], [3, 4]]]]), np.array([0.5])
    found = outputs(x, layer("conv2d", filters=1, kernel_size=2), kernel, bias)
    assert found.tolist() == [[[[37.5, 47.5], [67.5, 77.5]]]]
    corner = outputs(x, layer("conv2d", filters=1, kernel_size=2, padding="same"), kernel, bias)
    # An even kernel: the odd row and column of zeros stand below and on the right, as in PyTorch.
    assert corner.tolist() == [[[[37.5, 47.5, 21.5], [67.5, 77.5, 33.5], [23.5, 26.5, 9.5]]]]


def test_pools_by_hand() -> None:
    x = np.arange(1.0, 10).reshape(1, 1, 3, 3)
    assert outputs(x, layer("max_pool2d", kernel_size=2)).tolist() == [[[[5.0]]]]
    assert outputs(x, layer("max_pool2d", kernel_size=2, stride=1)).tolist() == [[[[5.0, 6], [8, 9]]]]
    assert outputs(-x, layer("max_pool2d", kernel_size=2, padding=1)).tolist() == [[[[-1.0, -2], [-4, -5]]]]
    assert outputs(x, layer("average_pool2d", kernel_size=2)).tolist() == [[[[3.0]]]]
    # What lies in the padding counts: (0 + 0 + 0 + 1) / 4.
    found = outputs(x, layer("average_pool2d", kernel_size=2, padding=1))
    assert found.tolist() == [[[[0.25, 1.25], [2.75, 7.0]]]]


def by_loops(
    x: Array, weight: Array, bias: Array, stride: Any, padding: Any, dilation: Any, groups: int
) -> Array:
    """What `torch.nn.functional.conv2d` is defined to give, number by number."""
    rows, channels, height, width = x.shape
    filters, depth, kernel_height, kernel_width = weight.shape
    out_height = (height + 2 * padding[0] - dilation[0] * (kernel_height - 1) - 1) // stride[0] + 1
    out_width = (width + 2 * padding[1] - dilation[1] * (kernel_width - 1) - 1) // stride[1] + 1
    y = np.zeros((rows, filters, out_height, out_width))
    for place in np.ndindex(*y.shape):
        n, f, p, q = place
        first = f // (filters // groups) * (channels // groups)
        total = bias[f]
        for c, i, j in np.ndindex(depth, kernel_height, kernel_width):
            down = p * stride[0] - padding[0] + i * dilation[0]
            right = q * stride[1] - padding[1] + j * dilation[1]
            if 0 <= down < height and 0 <= right < width:
                total += x[n, first + c, down, right] * weight[f, c, i, j]
        y[place] = total
    return y


@pytest.mark.parametrize("stride", [(1, 1), (2, 3)])
@pytest.mark.parametrize("padding", [(0, 0), (1, 2), (5, 4)])
@pytest.mark.parametrize(("dilation", "groups"), [((1, 1), 1), ((2, 1), 2), ((1, 3), 1)])
def test_the_conventions_of_pytorch(stride: Any, padding: Any, dilation: Any, groups: int) -> None:
    draw = np.random.default_rng(4)
    x = draw.normal(size=(2, 4, 6, 7))
    weight, bias = draw.normal(size=(6, 4 // groups, 2, 3)), draw.normal(size=6)
    one = layer(
        "conv2d", filters=6, kernel_size=(2, 3), stride=stride, padding=padding, dilation=dilation,
        groups=groups,
    )  # fmt: skip
    found = outputs(x, one, weight, bias)
    np.testing.assert_allclose(
        found, by_loops(x, weight, bias, stride, padding, dilation, groups), atol=1e-12
    )


GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "torch_convolution.json").read_text())


def plain(values: Any) -> Array:
    """Of PyTorch's sequences, (rows, channels, steps), to (rows, steps, features)."""
    array = np.array(values)
    return np.ascontiguousarray(array.swapaxes(1, 2)) if array.ndim == 3 else array


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: f"{case['type']} {case['options']}")
def test_parity_with_pytorch(case: Any) -> None:
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in case["options"].items()}
    x = plain(case["x"])
    rig = Rig(layer(case["type"], **options), x.shape[1:], rows=len(x))
    for own, theirs in zip(rig.parameters.values(), case["parameters"], strict=True):
        own[:] = np.array(theirs).reshape(own.shape)
    y, dx = rig.both(x, plain(case["dy"]))
    near = {"rtol": 1e-10, "atol": 1e-10}
    np.testing.assert_allclose(y, plain(case["outputs"]), **near)
    np.testing.assert_allclose(dx, plain(case["dx"]), **near)
    for own, theirs in zip(rig.gradients.values(), case["gradients"], strict=True):
        np.testing.assert_allclose(own, np.array(theirs).reshape(own.shape), **near)


def test_the_first_of_equal_numbers_takes_the_derivative_and_nan_wins() -> None:
    whole = (1, 1, 4, 1, 1, 2, 1, 2, 0, 0, 1, 1, 1, 2)  # windows of two numbers in a row of four
    x, dx = np.array([[3.0, 3, np.nan, 1]]), np.empty((1, 4))
    y = np.empty((1, 2))
    OPS["max_pool"].define(x, y, whole, ())
    assert y[0, 0] == 3 and np.isnan(y[0, 1])
    OPS["max_pool_backward"].define(x, np.array([[5.0, 7]]), dx, whole, ())
    assert dx.tolist() == [[5, 0, 7, 0]]


def test_what_layers_give_is_read_channels_first() -> None:
    """By `distbp diagnose`, whatever way it lies inside."""
    draw = np.random.default_rng(4)
    x, weight, bias = draw.normal(size=(2, 4, 6, 7)), draw.normal(size=(3, 4, 2, 3)), draw.normal(size=3)
    network = Network(
        [layer("conv2d", filters=3, kernel_size=(2, 3)), layer("flatten")], (4, 6, 7), np.float64
    )
    vector, gradient = np.concatenate([weight.ravel(), bias]), np.empty(network.size)
    program = Program(
        network, 2, vector, kernels=NUMPY, loss=LOSSES["mse"](), gradient=gradient, forward_only=True
    )
    program.run(x, np.zeros((2, network.output_shape[0])))
    expected = by_loops(x, weight, bias, (1, 1), (0, 0), (1, 1), 1).reshape(2, -1)
    for number in range(2):
        np.testing.assert_allclose(program.activations(number, 2), expected, atol=1e-12)


def test_facts_of_sequences() -> None:
    one = layer("conv1d", filters=6, kernel_size=3, stride=2, padding=1, groups=2)
    assert one.output_shape((7, 4)) == (4, 6)
    weight, bias = one.parameters((7, 4))
    assert (weight.shape, weight.fan_in, weight.fan_out, weight.decays) == ((6, 2, 3), 6, 18, True)
    assert (bias.shape, bias.decays) == ((6,), False)
    assert layer("max_pool1d", kernel_size=3).output_shape((7, 4)) == (2, 4)


def test_facts() -> None:
    one = layer("conv2d", filters=6, kernel_size=(2, 3), groups=2)
    assert one.output_shape((4, 5, 5)) == (6, 4, 3)
    weight, bias = one.parameters((4, 5, 5))
    assert (weight.shape, weight.fan_in, weight.fan_out, weight.decays) == ((6, 2, 2, 3), 12, 36, True)
    assert (bias.shape, bias.decays) == ((6,), False)
    assert one.flops((4, 5, 5)) == 6 * 12 * 6 * (12 + 1)
    assert layer("max_pool2d", kernel_size=3).output_shape((4, 7, 8)) == (4, 2, 2)


@pytest.mark.parametrize(
    ("one", "shape", "message"),
    [
        (
            layer("conv2d", filters=2, kernel_size=3), (5,),
            "conv2d takes images, a shape of (channels, height, width), but is given shape [5]; put a {type:"
            " reshape, shape: [channels, height, width]} layer before it",
        ),
        (
            layer("conv2d", filters=2, kernel_size=(3, 2), padding=(0, 1)), (1, 2, 9),
            "a window of 3 x 2 does not fit into images of 2 x 9 with 0 and 2 of padding; make kernel_size"
            " smaller, or padding larger",
        ),
        (
            layer("conv2d", filters=4, kernel_size=1, groups=2), (3, 2, 2),
            "groups is 2, which does not divide the 3 channels of the input",
        ),
        (
            layer("conv1d", filters=2, kernel_size=3, dilation=2), (4, 7),
            "a window of 5 steps does not fit into 4 steps with 0 of padding; make kernel_size smaller, or"
            " padding larger",
        ),
        (
            layer("max_pool1d", kernel_size=3), (1, 4, 7),
            "max_pool1d takes steps of features, a shape of two sizes, but is given shape [1, 4, 7]; put a"
            " {type: reshape, shape: [steps, features]} layer before it",
        ),
        (
            layer("global_average_pool2d"), (4,),
            "global_average_pool2d takes images, a shape of (channels, height, width), but is given shape"
            " [4]; put a {type: reshape, shape: [channels, height, width]} layer before it",
        ),
        (
            layer("batch_normalization", axis=1), (1, 4, 7),
            "axis is 1, but must be -1, the last axis, or 0, the channels of images; the input has shape [1,"
            " 4, 7]",
        ),
        (
            layer("max_pool2d", kernel_size=3), (4,),
            "max_pool2d takes images, a shape of (channels, height, width), but is given shape [4]; put a {"
            "type: reshape, shape: [channels, height, width]} layer before it",
        ),
    ],
)  # fmt: skip
def test_shapes_that_do_not_fit(one: Any, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        one.output_shape(shape)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("options", "faults"),
    [
        ({"kernel_size": 0},
         ["kernel_size: must be a whole number or a pair of them, each at least 1, not 0"]),
        (
            {"kernel_size": [3, 0]},
            ["kernel_size: must be a whole number or a pair of them, each at least 1, not [3, 0]"],
        ),
        (
            {"kernel_size": "three"},
            ["kernel_size: must be a whole number, or a list of 2: a whole number, a whole number,"
             " not 'three'"],
        ),
        ({"kernel_size": 2, "padding": -1},
         ["padding: must be a whole number or a pair of them, each at least 0, not -1"]),
        (
            {"kernel_size": 2, "padding": "some"},
            [
                "padding: must be a whole number, or a list of 2: a whole number, a whole number, or 'same'"
                " or 'valid', not 'some'"
            ],
        ),
        (
            {"kernel_size": 2, "padding": "same", "stride": 2},
            ["padding: may be 'same' with stride 1 only; give numbers"],
        ),
        (
            {"type": "conv1d", "kernel_size": 2, "padding": -1},
            ["padding: must be at least 0, 'same' or 'valid', not -1"],
        ),
        ({"kernel_size": 2, "groups": 2}, ["groups: must divide filters (3), but is 2"]),
    ],
)  # fmt: skip
def test_faults_of_a_job(options: Any, faults: list[str]) -> None:
    layers = [{"type": "conv2d", "filters": 3, **options}, "flatten", {"type": "dense", "units": 1}]
    with pytest.raises(JobError) as caught:
        TrainingJob(model={"layers": layers}, loss="mse")
    assert [str(fault) for fault in caught.value.faults] == [f"model.layers.0.{fault}" for fault in faults]


@pytest.mark.parametrize("kind", ["max_pool2d", "average_pool1d"])
def test_a_pool_is_not_padded_by_more_than_half(kind: str) -> None:
    layers = [
        {"type": kind, "kernel_size": 3, "padding": 2},
        "flatten",
        {"type": "dense", "units": 1},
    ]
    with pytest.raises(JobError) as caught:
        TrainingJob(model={"layers": layers}, loss="mse")
    assert [str(fault) for fault in caught.value.faults] == [
        "model.layers.0.padding: must be at most half of kernel_size, not 2, else a window holds nothing"
    ]


def test_pairs_and_numbers_mean_the_same() -> None:
    def job(size: Any) -> TrainingJob:
        layers = [
            {"type": "conv2d", "filters": 1, "kernel_size": size},
            "flatten",
            {"type": "dense", "units": 1},
        ]
        return TrainingJob(model={"layers": layers}, loss="mse")

    assert job(3).model.layers[0].kernel_size == 3
    assert job([3, 2]).model.layers[0].kernel_size == (3, 2)
