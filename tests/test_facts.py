"""What layers state of themselves is true, and what is decided by it."""

from __future__ import annotations

import random
from typing import Any, get_args

import numpy as np
import pytest

from distbp.core.arrays import aligned_vector
from distbp.job.shards import automatic_shards, least_slice_rows
from distbp.nn.activations import ACTIVATIONS
from distbp.nn.kernels import NUMPY
from distbp.nn.layers import LAYERS
from distbp.nn.layers.base import Takes
from distbp.nn.losses import LOSSES
from distbp.nn.network import Network
from distbp.nn.program import Program
from distbp.nn.wiring import entering


def test_shards_of_networks_are_those_that_the_number_of_parameters_gave() -> None:
    def before(batch_size: int, parameters: int) -> int:
        shards = 1
        while (
            shards < 8
            and batch_size // (2 * shards) >= 32
            and 6.0 * parameters * batch_size / (2 * shards) >= 4e6
        ):
            shards *= 2
        return shards

    draw, found = random.Random(7), set()
    for _ in range(400):
        layers = []
        for _ in range(draw.randint(1, 4)):
            layers.append(LAYERS["dense"](units=round(2 ** draw.uniform(0, 9))))
            layers += [
                LAYERS[name]()
                for name in ("batch_normalization", "relu", "layer_normalization")
                if draw.random() < 0.2
            ]
        network = Network(layers, (round(2 ** draw.uniform(0, 9)),))
        batch_size = round(2 ** draw.uniform(0, 12))
        assert network.flops == 6 * network.parameter_count
        shards = automatic_shards(batch_size, network.flops, least_slice_rows(network))
        assert shards == before(batch_size, network.parameter_count)
        found.add(shards)
    assert found == {1, 2, 4, 8}


DENSE = LAYERS["dense"](units=64)
STEPS = LAYERS["dense_steps"](units=64)
POOL = LAYERS["max_pool2d"](kernel_size=2)
CONV = LAYERS["conv2d"](filters=8, kernel_size=5)
NORMALIZATION = LAYERS["batch_normalization"]


@pytest.mark.parametrize(
    ("layers", "shape", "rows"),
    [
        ([DENSE], (28,), 32),
        ([NORMALIZATION(), DENSE], (28,), 32),
        ([STEPS], (50, 8), 4),  # steps bring rows to a product
        ([STEPS], (3, 8), 11),
        ([CONV, POOL, LAYERS["flatten"](), DENSE], (1, 28, 28), 13),  # most weights are the dense layer's
        ([CONV], (1, 28, 28), 4),
        ([CONV, NORMALIZATION(axis=0)], (1, 28, 28), 32),  # has statistics of every slice
        ([LAYERS["elman"](units=64)], (50, 8), 16),  # takes the steps one by one
        ([LAYERS["lstm"](units=8, bidirectional=True)], (50, 8), 16),
        ([LAYERS["embedding"](entries=10_000, size=32)], (32,), 32),
        ([LAYERS["embedding"](entries=10_000, size=32), LAYERS["attention"](heads=2)], (32,), 4),
    ],
)
def test_heavy_samples_need_fewer_rows_in_a_slice(
    layers: list[Any], shape: tuple[int, ...], rows: int
) -> None:
    assert least_slice_rows(Network(layers, shape)) == rows


@pytest.mark.parametrize("layer", [NORMALIZATION(axis=0), NORMALIZATION(), LAYERS["layer_normalization"]()])
def test_normalization_works_at_every_place(layer: Any) -> None:
    assert layer.flops((3, 4, 5)) == 12 * 3 * 4 * 5


OPTIONS: dict[str, dict[str, Any]] = {
    "dense": {"units": 3},
    "reshape": {"shape": (2, 3)},
    "activation": {"function": "relu"},
    "conv2d": {"filters": 2, "kernel_size": 2},
    "max_pool2d": {"kernel_size": 2},
    "average_pool2d": {"kernel_size": 2},
    "conv1d": {"filters": 2, "kernel_size": 2},
    "max_pool1d": {"kernel_size": 2},
    "average_pool1d": {"kernel_size": 2},
    "elman": {"units": 2},
    "lstm": {"units": 2},
    "gru": {"units": 2, "bidirectional": True},
    "embedding": {"entries": 5, "size": 2},
    "dense_steps": {"units": 3},
    "parametric_activation": {"function": "mish"},
    "attention": {"heads": 2},
    "slice": {"start": 1, "stop": 4},
    "input": {"name": "x", "shape": (6,)},
}
INPUT_SHAPES = {
    **dict.fromkeys(("conv2d", "max_pool2d", "average_pool2d", "global_average_pool2d"), (1, 2, 3)),
    **dict.fromkeys(("conv1d", "max_pool1d", "average_pool1d"), (3, 2)),
    **dict.fromkeys(("elman", "lstm", "gru", "attention", "dense_steps"), (3, 2)),
    **dict.fromkeys(("positional_encoding", "positional_embedding", "average_steps", "last_step"), (3, 2)),
}


@pytest.mark.parametrize("name", sorted(LAYERS))
def test_facts_of_layers_that_need_no_run(name: str) -> None:
    layer = LAYERS[name](**OPTIONS.get(name, {}))
    shapes = [INPUT_SHAPES.get(name, (6,))] * (2 if layer.joins else 1)
    assert layer.trains == bool(layer.parameters(*shapes)) == bool(layer.flops(*shapes))
    assert layer.own_shape in (None, layer.output_shape(*shapes))
    assert layer.takes in get_args(Takes)
    assert (layer.ids_below is not None) == (layer.takes == "ids")
    if layer.ends_in is not None:
        assert layer.ends_in in ACTIVATIONS


OF_ANY_NUMBERS = [n for n, kind in LAYERS.items() if not kind.joins and n not in INPUT_SHAPES]


@pytest.mark.parametrize("name", sorted({*OF_ANY_NUMBERS} - {"embedding"}))
def test_facts_of_layers_are_true(name: str) -> None:
    layer = LAYERS[name](**OPTIONS.get(name, {}))
    shape = (6,)
    if layer.takes == "row":
        with pytest.raises(ValueError, match="flatten"):
            layer.output_shape((2, 3))
        assert layer.output_shape(entering([layer], (2, 3))) == layer.output_shape((6,))
    else:
        assert layer.output_shape(entering([layer], (1, 6))) in ((1, 6), (6,), (2, 3), (1, 3))
    x = np.linspace(-40.0, 70.0, 24, dtype=np.float32).reshape(4, 6)
    network = Network([layer], shape)
    program = Program(network, 4, network.initialize(1), kernels=NUMPY)
    program.run(x)
    y = program.outputs(4).reshape(4, -1)
    if layer.keeps_values:
        np.testing.assert_array_equal(y, x[:, np.isin(x[0], y[0])])  # perhaps not all
    if layer.rescales:  # in training, where batch normalization has its statistics of the slice
        outputs = []
        for factor in (1, 64):
            gradient = aligned_vector(network.size, np.float32)
            trained = Program(
                network, 4, network.initialize(1), kernels=NUMPY, loss=LOSSES["mse"](), gradient=gradient,
                forward_only=True,
            )  # fmt: skip
            trained.run(x * factor, np.zeros((4, 6), np.float32))
            outputs.append(trained.outputs(4).copy())
        np.testing.assert_allclose(*outputs, rtol=1e-4, atol=1e-5)
