"""Networks: places in the flat vector, initialization, and programs that share buffers."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distbp.core.arrays import Array, Shape, aligned_bytes, aligned_vector
from distbp.engine.totals import SURELY_FINITE
from distbp.nn.activations import ACTIVATIONS
from distbp.nn.initializers import Constant, Normal, Orthogonal
from distbp.nn.kernels import NUMPY, Kernels
from distbp.nn.layers import LAYERS
from distbp.nn.layers import Dense as _Dense
from distbp.nn.layers.base import Layer
from distbp.nn.losses import MSE, Quadratic, SoftmaxCrossEntropy
from distbp.nn.network import Network
from distbp.nn.program import Program
from distbp.nn.tape import Space

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


def trains(network: Network, rows: int, vector: Array, **options: Any) -> tuple[Program, Array]:
    """A program with the quadratic loss, whose gradient is the difference to the targets; and its
    gradient."""
    gradient = np.full_like(vector, np.nan)
    options = {"kernels": NUMPY, "loss": Quadratic(), **options}
    return Program(network, rows, vector, gradient=gradient, **options), gradient


def targets_of(network: Network, rows: int, seed: int = 0) -> Array:
    shape = (rows, *network.output_shape)
    return np.random.default_rng(seed).normal(size=shape).astype(network.dtype)


def writes(program: Program, space: Space) -> list[int]:
    """The layers that write to a space."""
    return sorted(
        {
            row.layer
            for row in program.lowered.rows
            for letter, ref in zip(row.op.operands, row.refs, strict=True)
            if letter.isupper() and ref.space == space
        }
    )


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
    mean, variance = (vector[t.start : t.stop] for t in network.statistics)
    np.testing.assert_array_equal(mean, np.zeros(4))
    np.testing.assert_array_equal(variance, np.ones(4))
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
    program, gradient = trains(network, 1, np.array([1.0, 2, 1, -1, 1, -1, 2, 3, 1]))
    program.run(np.array([[1.0, 2]]), np.array([[12.0]]))
    np.testing.assert_array_equal(program.outputs(1), [[13]])
    # dy = 1: dW2 = hidden, db2 = 1; delta = W2 * relu' = (2, 0); dW1 = delta x^T, db1 = delta.
    np.testing.assert_array_equal(gradient, [2, 4, 0, 0, 2, 0, 6, 0, 1])
    assert program.totals[:2].tolist() == [0.5, 1]
    assert program.totals[2] >= 6  # a bound of the gradient


def test_for_evaluation_there_is_no_backward_and_nothing_is_written_but_work() -> None:
    network = Network(chain(("batch_normalization", {}), ("dropout", {})), (5,))
    vector = network.initialize(0)
    vector.flags.writeable = False
    program = Program(network, 3, vector, kernels=NUMPY, loss=Quadratic())
    program.run(np.ones((3, 5), np.float32), targets_of(network, 3))
    assert writes(program, Space.PARAMETERS) == writes(program, Space.GRADIENT) == []
    assert not [row for row in program.lowered.rows if row.op.name.endswith("_backward")]


def test_layers_before_the_first_trained_one_are_left_out_of_backward() -> None:
    layers = [LAYERS["reshape"](shape=(4,)), LAYERS["dropout"](rate=0.5), dense(2), dense(1)]
    network = Network(layers, (2, 2))
    program, gradient = trains(network, 3, network.initialize(0))
    assert writes(program, Space.GRADIENT) == [2, 3]
    backward = [row.layer for row in program.lowered.rows if row.op.name.endswith("_backward")]
    assert backward == [3, 2]
    assert [row.op.name for row in program.lowered.rows if row.layer == 1] == ["dropout"]
    program.run(np.ones((3, 2, 2), np.float32), targets_of(network, 3))
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("middle", EVERY, ids=lambda m: "-".join(map(str, (m[0], *m[1].values()))))
def test_programs_that_share_their_work_do_not_disturb_each_other(
    middle: tuple[str, dict[str, Any]], dtype: type, kernels: Kernels
) -> None:
    # A full batch, the smaller last one, and back again; and a second gradient, as in a tree within a worker.
    network = Network(chain(middle), (5,), dtype)
    vector = network.initialize(1)
    rng = np.random.default_rng(2)
    batches = {rows: rng.normal(size=(rows, 5)).astype(dtype) for rows in (4, 9, 2)}
    work = aligned_vector(100_000, dtype)
    work[:] = np.nan

    def prepared(rows: int, work: Array | None) -> tuple[Program, Array]:
        return trains(network, rows, vector, kernels=kernels, work=work, seed=6)

    shared = [(rows, *prepared(rows, work)) for rows in (4, 9, 2, 4)]
    assert all(program.work is work for _, program, _ in shared)
    for place in (0, 1, 2, 1, 3, 0, 0, 2, 3, 1):
        rows, program, gradient = shared[place]
        own, own_gradient = prepared(rows, None)
        for one in (program, own):
            one.run(batches[rows], targets_of(network, rows), step=3, shard=1)
        np.testing.assert_array_equal(program.outputs(rows), own.outputs(rows))
        np.testing.assert_array_equal(gradient, own_gradient)
        assert np.isfinite(gradient).all()


def test_work_that_is_too_small_is_not_used() -> None:
    network = Network([dense(50), dense(50)], (50,))
    program, _ = trains(network, 64, network.initialize(0), work=aligned_vector(10, np.float32))
    assert len(program.work) >= program.lowered.work > 10


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("rows", [1, 10, 50])
@pytest.mark.parametrize("activation", ["linear", "relu", "leaky_relu", "sigmoid", "tanh", "gelu"])
def test_sums_of_every_kernel_set_are_those_of_the_definitions_in_float64(
    kernels: Kernels, activation: str, rows: int, weighted: bool
) -> None:
    layers = [dense(21, activation), dense(9, activation), dense(4, "linear")]
    network, wide = Network(layers, (13,)), Network(layers, (13,), np.float64)
    rng = np.random.default_rng(3)
    vector = network.initialize(1)
    x = rng.normal(size=(rows, 13)).astype(np.float32)
    labels = rng.integers(0, 4, rows)
    weights = rng.uniform(0.5, 2, rows).astype(np.float32) if weighted else None
    options: dict[str, Any] = {"loss": SoftmaxCrossEntropy()}
    mine, gradient = trains(network, rows, vector, kernels=kernels, **options)
    plain, expected = trains(wide, rows, vector.astype(np.float64), **options)
    mine.run(x, labels, weights)
    plain.run(x.astype(np.float64), labels, None if weights is None else weights.astype(np.float64))
    largest = float(np.abs(expected).max())
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-5 * largest)
    np.testing.assert_allclose(mine.totals[:2], plain.totals[:2], rtol=1e-5)
    assert float(np.abs(gradient).max()) * (1 - 1e-5) <= mine.totals[2] < 1e6
    np.testing.assert_array_equal(mine.totals[3:], plain.totals[3:])  # the live rows of the units
    assert len(mine.totals) == 3 + (21 + 9 if ACTIVATIONS[activation].flat else 0)


@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38])
@pytest.mark.parametrize("rows", [1, 50])  # whichever is fewer is looked at: the factors or the gradient
def test_the_bound_is_not_finite_where_a_gradient_may_not_be(
    kernels: Kernels, rows: int, value: float
) -> None:
    network = Network([dense(21, "relu"), dense(9, "relu"), dense(4, "linear")], (13,))
    program, _ = trains(network, rows, network.initialize(1), kernels=kernels, loss=SoftmaxCrossEntropy())
    x = np.ones((rows, 13), np.float32)
    x[0, 0] = value
    with np.errstate(all="ignore"):
        program.run(x, np.zeros(rows, np.int64))
    assert not program.totals[2] < SURELY_FINITE


def test_forward_only_can_be_read_layer_by_layer(kernels: Kernels) -> None:
    network = Network([dense(6), LAYERS["batch_normalization"](), dense(3, "linear")], (5,))
    vector = network.initialize(1)
    options: dict[str, Any] = {"kernels": kernels, "loss": MSE()}
    program, _ = trains(network, 4, vector, forward_only=True, **options)
    whole, _ = trains(network, 4, vector, **options)
    x, targets = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32), targets_of(network, 4)
    for one in (program, whole):
        one.run(x, targets)
    np.testing.assert_array_equal(program.activations(2, 4), whole.outputs(4))
    np.testing.assert_array_equal(program.losses(4), whole.losses(4))
    np.testing.assert_allclose(program.loss_gradient(4), 2 / 3 * (whole.outputs(4) - targets), rtol=1e-6)
    hidden = Program(Network([dense(6)], (5,)), 4, vector[:36], kernels=kernels)
    hidden.run(x)
    np.testing.assert_array_equal(program.activations(0, 4), hidden.outputs(4))
    np.testing.assert_allclose(program.activations(1, 4).mean(axis=0), 0, atol=1e-6)


def test_without_a_trained_layer_the_input_comes_back() -> None:
    network = Network([LAYERS["flatten"]()], (2, 3))
    program = Program(network, 4, network.initialize(0), kernels=NUMPY)
    x = np.random.default_rng(0).normal(size=(4, 2, 3)).astype(np.float32)
    program.run(x)
    np.testing.assert_array_equal(program.outputs(4), x.reshape(4, 6))


@settings(max_examples=40)
@given(st.lists(st.sampled_from(WITH_INNER), max_size=4), st.integers(1, 5), st.integers(0, 99))
def test_evaluation_of_rows_does_not_depend_on_the_other_rows(
    middle: list[tuple[str, dict[str, Any]]], rows: int, seed: int
) -> None:
    network = Network(chain(*middle), (5,), np.float64)
    vector = network.initialize(seed)
    x = np.random.default_rng(seed).normal(size=(rows, 5))
    together = Program(network, rows, vector, kernels=NUMPY)
    together.run(x)
    one = Program(network, 1, vector, kernels=NUMPY)
    for row in range(rows):
        one.run(x[row : row + 1])
        np.testing.assert_allclose(one.outputs(1)[0], together.outputs(rows)[row], rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("shape", [(5,), (2, 3)])
def test_gradients_are_sums_over_the_rows(shape: Shape) -> None:
    flat = [] if len(shape) == 1 else [LAYERS["flatten"]()]
    network = Network([*flat, dense(4), LAYERS["layer_normalization"](), dense(2)], shape, np.float64)
    vector = network.initialize(0)
    rng = np.random.default_rng(0)
    x, targets = rng.normal(size=(6, *shape)), rng.normal(size=(6, 2))
    program, gradient = trains(network, 6, vector)
    program.run(x, targets)
    total = np.zeros_like(vector)
    single, one = trains(network, 1, vector)
    for row in range(6):
        single.run(x[row : row + 1], targets[row : row + 1])
        total += one
    np.testing.assert_allclose(gradient, total, rtol=1e-12, atol=1e-14)


def test_a_program_allocates_nothing_that_stays(kernels: Kernels) -> None:
    network = Network(chain(*((k, f) for k, f in WITH_INNER)), (5,))
    program, _ = trains(network, 8, network.initialize(0), kernels=kernels)
    x, targets = np.ones((8, 5), np.float32), targets_of(network, 8)

    def steps(count: int) -> None:
        for _ in range(count):
            program.run(x, targets)

    steps(5)
    tracemalloc.start()
    try:
        steps(5)
        before = tracemalloc.get_traced_memory()[0]
        steps(50)
        assert tracemalloc.get_traced_memory()[0] - before < 512
    finally:
        tracemalloc.stop()
