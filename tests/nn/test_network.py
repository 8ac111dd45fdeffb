"""Networks: places in the flat vector, initialization, and programs that share buffers."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distbp.nn import kernels as kernel_sets
from distbp.nn.activations import ACTIVATIONS
from distbp.nn.arrays import Array, Shape
from distbp.nn.initializers import Constant, Normal, Orthogonal
from distbp.nn.kernels import Kernels
from distbp.nn.layers import LAYERS
from distbp.nn.layers import Dense as _Dense
from distbp.nn.layers.base import Layer, Position
from distbp.nn.network import Arena, Network, Program, aligned_bytes, aligned_vector

NUMPY = kernel_sets.NUMPY
FEATURES = (2, 3)
# Every layer, each between others: (type, options). Shapes (2, 3) go in and out, but for the reshaping ones.
EVERY: list[tuple[str, dict[str, Any]]] = [
    *(("activation", {"function": f}) for f in sorted(ACTIVATIONS) if ACTIVATIONS[f].trainable),
    ("dropout", {"rate": 0.3}),
    ("batch_normalization", {}),
    ("layer_normalization", {}),
    ("reshape", {"shape": (3, 2)}),
    ("flatten", {}),
]
WITH_INNER = [(kind, fields) for kind, fields in EVERY if kind not in ("reshape", "flatten")]


def dense(units: int, activation: str = "tanh") -> Layer:
    return _Dense(units=units, activation=activation)


def chain(*middle: tuple[str, dict[str, Any]]) -> list[Layer]:
    """Dense, then `middle`, then dense: every layer between has parameters before and after it."""
    inner = [LAYERS[kind](**fields) for kind, fields in middle]
    return [dense(6), LAYERS["reshape"](shape=FEATURES), *inner, LAYERS["flatten"](), dense(4)]


def run(program: Program, x: Array, seed: int = 0) -> Array:
    y = program.forward(x).copy()
    program.backward(np.random.default_rng(seed).normal(size=y.shape).astype(y.dtype))
    return y


@pytest.fixture(params=["numpy", "numba", "fma", "mkl", "amx"])
def kernels(request: pytest.FixtureRequest) -> Kernels:
    return kernel_sets.load(request.param)


def test_tensors_fill_the_vector_and_statistics_come_last() -> None:
    network = Network([dense(4), LAYERS["batch_normalization"](), dense(2)], (3,))
    assert [(t.path, t.shape, t.start, t.stop, t.decays) for t in network.tensors] == [
        ("layers.0.dense.weight", (4, 3), 0, 12, True),
        ("layers.0.dense.bias", (4,), 12, 16, False),
        ("layers.1.batch_normalization.scale", (4,), 16, 20, False),
        ("layers.1.batch_normalization.shift", (4,), 20, 24, False),
        ("layers.2.dense.weight", (2, 4), 24, 32, True),
        ("layers.2.dense.bias", (2,), 32, 34, False),
    ]
    assert [(t.path, t.start, t.stop, t.rate) for t in network.statistics] == [
        ("layers.1.batch_normalization.mean", 34, 38, 0.1),
        ("layers.1.batch_normalization.variance", 38, 42, 0.1),
    ]
    assert (network.parameter_count, network.size) == (34, 42)
    assert network.decays == [(0, 12), (24, 32)]
    assert (network.input_shape, network.output_shape) == ((3,), (2,))


def test_a_shape_that_does_not_fit_names_the_layer() -> None:
    with pytest.raises(ValueError, match=r"^layer 1 \(dense\): a dense layer takes one row of numbers"):
        Network([LAYERS["reshape"](shape=(2, 2)), dense(3)], (4,))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_initialization_draws_each_tensor_from_its_own_stream(dtype: type) -> None:
    network = Network([dense(4), LAYERS["batch_normalization"](), dense(2)], (3,), dtype)
    vector = network.initialize(3)
    assert vector.dtype == dtype
    assert vector.ctypes.data % 64 == 0
    np.testing.assert_array_equal(vector, network.initialize(3))
    assert not np.array_equal(vector, network.initialize(4))
    views = network.views(vector, 1, network.statistics)
    np.testing.assert_array_equal(views["mean"], np.zeros(4))
    np.testing.assert_array_equal(views["variance"], np.ones(4))
    # The first layer's numbers do not depend on what follows it.
    alone = Network([dense(4)], (3,), dtype).initialize(3)
    np.testing.assert_array_equal(alone, vector[:16])


def test_float32_is_the_rounded_float64() -> None:
    layers = [_Dense(units=4, initializer=Orthogonal()), _Dense(units=3, bias_initializer=Normal())]
    narrow, wide = Network(layers, (5,)).initialize(1), Network(layers, (5,), np.float64).initialize(1)
    np.testing.assert_array_equal(narrow, wide.astype(np.float32))


def test_initializers_of_a_layer_are_used() -> None:
    layer = _Dense(units=2, initializer=Constant(value=3.0), bias_initializer=Constant(value=-1.0))
    np.testing.assert_array_equal(Network([layer], (2,)).initialize(0), [3, 3, 3, 3, -1, -1])


@pytest.mark.parametrize("size", [1, 63, 64, 1000])
def test_memory_is_aligned(size: int) -> None:
    assert aligned_bytes(size).ctypes.data % 64 == 0
    assert len(aligned_bytes(size)) == size
    vector = aligned_vector(size, np.float32)
    assert vector.ctypes.data % 64 == 0
    assert not vector.any()


def test_forward_and_backward_by_hand() -> None:
    # y = W2 relu(W1 x + b1) + b2, x = (1, 2): hidden (5 + 1, -1 - 1) -> (6, 0), y = 2 * 6 + 3 * 0 + 1 = 13.
    network = Network([dense(2, "relu"), dense(1, "linear")], (2,), np.float64)
    vector = np.array([1.0, 2, 1, -1, 1, -1, 2, 3, 1])
    gradient = np.full(9, np.nan)
    program = network.bind(1, vector, gradient, kernels=NUMPY)
    np.testing.assert_array_equal(program.forward(np.array([[1.0, 2]])), [[13]])
    # dy = 1: dW2 = hidden, db2 = 1; delta = W2 * relu' = (2, 0); dW1 = delta x^T, db1 = delta.
    program.backward(np.array([[1.0]]))
    np.testing.assert_array_equal(gradient, [2, 4, 0, 0, 2, 0, 6, 0, 1])


def test_bound_for_evaluation_there_is_no_backward_and_nothing_is_written() -> None:
    network = Network(chain(("batch_normalization", {}), ("dropout", {})), (5,))
    vector = network.initialize(0)
    vector.flags.writeable = False
    program = network.bind(3, vector, kernels=NUMPY)
    program.forward(np.ones((3, 5), np.float32))
    assert program.backwards == ()


def test_layers_before_the_first_trained_one_are_left_out_of_backward() -> None:
    layers = [LAYERS["reshape"](shape=(4,)), LAYERS["dropout"](rate=0.5), dense(2), dense(1)]
    network = Network(layers, (2, 2))
    vector = network.initialize(0)
    program = network.bind(3, vector, np.zeros_like(vector), kernels=NUMPY)
    assert (len(program.forwards), len(program.backwards)) == (4, 2)
    run(program, np.ones((3, 2, 2), np.float32))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("middle", EVERY, ids=lambda m: "-".join(map(str, (m[0], *m[1].values()))))
def test_programs_that_share_an_arena_do_not_disturb_each_other(
    middle: tuple[str, dict[str, Any]], dtype: type, kernels: Kernels
) -> None:
    # A full batch, the smaller last one, and back again; and a second gradient, as in a tree within a worker.
    network = Network(chain(middle), (5,), dtype)
    vector = network.initialize(1)
    rng = np.random.default_rng(2)
    batches = {rows: rng.normal(size=(rows, 5)).astype(dtype) for rows in (4, 9, 2)}
    position = Position(step=3, shard=1)

    def bound(rows: int, arena: Arena | None) -> tuple[Program, Array]:
        gradient = np.full_like(vector, np.nan)
        program = network.bind(
            rows, vector, gradient, kernels=kernels, arena=arena, position=position, seed=6
        )
        return program, gradient

    arena = Arena()
    shared = [(rows, *bound(rows, arena)) for rows in (4, 9, 2, 4)]
    for place in (0, 1, 2, 1, 3, 0, 0, 2, 3, 1):
        rows, program, gradient = shared[place]
        own, own_gradient = bound(rows, None)
        np.testing.assert_array_equal(run(program, batches[rows]), run(own, batches[rows]))
        np.testing.assert_array_equal(gradient, own_gradient)
        assert np.isfinite(gradient).all()


def test_programs_of_the_same_rows_share_their_memory() -> None:
    network = Network([dense(50), dense(50)], (50,))
    vector = network.initialize(0)
    arena = Arena()
    first = network.bind(64, vector, np.zeros_like(vector), kernels=NUMPY, arena=arena)
    again = network.bind(64, vector, np.zeros_like(vector), kernels=NUMPY, arena=arena)
    x = np.ones((64, 50), np.float32)
    assert np.shares_memory(first.forward(x), again.forward(x))


@settings(max_examples=40)
@given(st.lists(st.sampled_from(WITH_INNER), max_size=4), st.integers(1, 5), st.integers(0, 99))
def test_evaluation_of_rows_does_not_depend_on_the_other_rows(
    middle: list[tuple[str, dict[str, Any]]], rows: int, seed: int
) -> None:
    network = Network(chain(*middle), (5,), np.float64)
    vector = network.initialize(seed)
    x = np.random.default_rng(seed).normal(size=(rows, 5))
    together = network.bind(rows, vector, kernels=NUMPY).forward(x)
    one = network.bind(1, vector, kernels=NUMPY)
    for row in range(rows):
        np.testing.assert_allclose(one.forward(x[row : row + 1])[0], together[row], rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("shape", [(5,), (2, 3)])
def test_gradients_are_sums_over_the_rows(shape: Shape) -> None:
    flat = [] if len(shape) == 1 else [LAYERS["flatten"]()]
    network = Network([*flat, dense(4), LAYERS["layer_normalization"](), dense(2)], shape, np.float64)
    vector = network.initialize(0)
    rng = np.random.default_rng(0)
    x, d = rng.normal(size=(6, *shape)), rng.normal(size=(6, 2))
    gradient, one = np.zeros_like(vector), np.zeros_like(vector)
    program = network.bind(6, vector, gradient, kernels=NUMPY)
    program.forward(x)
    program.backward(d.copy())
    total = np.zeros_like(vector)
    single = network.bind(1, vector, one, kernels=NUMPY)
    for row in range(6):
        single.forward(x[row : row + 1])
        single.backward(d[row : row + 1].copy())
        total += one
    np.testing.assert_allclose(gradient, total, rtol=1e-12, atol=1e-14)


def test_a_bound_program_allocates_nothing_that_stays(kernels: Kernels) -> None:
    network = Network(chain(*((k, f) for k, f in WITH_INNER)), (5,))
    vector = network.initialize(0)
    program = network.bind(8, vector, np.zeros_like(vector), kernels=kernels)
    x, d = np.ones((8, 5), np.float32), np.ones((8, 4), np.float32)

    def steps(count: int) -> None:
        for _ in range(count):
            program.forward(x)
            program.backward(d)

    steps(5)
    tracemalloc.start()
    try:
        steps(5)
        before = tracemalloc.get_traced_memory()[0]
        steps(50)
        assert tracemalloc.get_traced_memory()[0] - before < 512
    finally:
        tracemalloc.stop()
