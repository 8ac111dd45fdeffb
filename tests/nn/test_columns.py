"""The entry of a table's columns: worked by hand, its gradient, both executors, the same bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from nn.lowered import compiled_kernels, layer, train_once, vector_of

from distbp.core.arrays import aligned_vector
from distbp.engine.blueprint import group_of
from distbp.job.realmlp import GROUPS
from distbp.nn.gradcheck import check
from distbp.nn.kernels import NUMPY, Kernels
from distbp.nn.layers.columns import Columns, EmbeddingCell, NumberCell, OneHotCell, TableCell
from distbp.nn.layers.periodic import Periodic
from distbp.nn.losses import LOSSES
from distbp.nn.network import Network
from distbp.nn.ops.columns import MISSING
from distbp.nn.program import Program
from distbp.nn.tape import ENTRY

ENTERING = Columns(
    cells=(
        NumberCell((-1.0, 0.0, 2.0), 0.5, True),
        OneHotCell(2, True),
        EmbeddingCell("bias", 4, 3),
        NumberCell(),
        TableCell(((0.0, 1.0), (-1.0, 0.0), (1.0, 0.0))),
        OneHotCell(2, False),
        EmbeddingCell("city", 3, 2),
    ),
    names=("n", "c", "bias", "m", "t", "d", "city"),
)
CELLS = np.array([[1, 1, 3, -4, 2, 0, 0], [MISSING, 0, 0, 7, 0, 2, 2], [-0.25, 2, 3, 0, 1, 1, 1]])
WIDTH = 17


PERIODIC = Columns(
    cells=(
        NumberCell((-1.0, 0.0, 2.0), 0.5, True, "a", Periodic(3, 3, 0.7)),
        EmbeddingCell("city", 3, 2, 1.0),
        NumberCell(name="b", periodic=Periodic(2, 2, 0.7)),
    ),
    names=("a", "city", "b"),
)
NUMBERS = np.array([[1, 1, -4], [MISSING, 0, 7], [-0.25, 2, 0.5], [0.3, 1, -1]])


@pytest.mark.parametrize("name", ["a", "a.periodic_embedding", "periodic_embedding.a"])
def test_no_name_of_a_category_makes_its_tensor_that_of_a_number(name: str) -> None:
    how = Periodic(3, 2, 0.1)
    cells = (NumberCell(name="a", periodic=how), EmbeddingCell(name, 3, 2))
    layers = [layer("periodic_embedding"), layer("dense", units=1)]
    net = Network(layers, (2,), np.float64, entry=Columns(cells=cells, names=("a", name)))
    *of_number, of_category = [tensor.path for tensor in net.tensors if tensor.layer == ENTRY]
    assert len({*of_number, of_category}) == 5
    slow = {tensor.path for tensor in net.tensors if group_of(GROUPS, tensor.path) is not None}
    of_layer = [tensor.path for tensor in net.tensors if tensor.layer == 0]
    assert {*of_number, *of_layer} <= slow and of_category not in slow


def test_periodic_embeddings_of_cells() -> None:
    """Beside the number, its bins and its indicator; a missing one counts as its fill."""
    net = Network((), (3,), np.float64, entry=PERIODIC)
    assert [(t.path, t.shape, t.decays) for t in net.tensors[:4]] == [
        ("input.columns.periodic_embedding.a.frequency", (1, 3), True),
        ("input.columns.periodic_embedding.a.phase", (1, 3), False),
        ("input.columns.periodic_embedding.a.weight", (1, 2, 3), True),
        ("input.columns.periodic_embedding.a.bias", (1, 2), False),
    ]
    vector = net.initialize(1)
    program = Program(net, 4, vector, kernels=NUMPY)
    program.run(NUMBERS)
    y = program.outputs(4)
    f, phase, w, b = vector[:3], vector[3:6], vector[6:12].reshape(2, 3), vector[12:14]
    for row, x in enumerate([1, 0.5, -0.25, 0.3]):
        assert y[row, 0] == x
        np.testing.assert_allclose(y[row, 4:6], w @ np.cos(2 * np.pi * f * x + phase) + b, rtol=1e-12)
    assert y.shape == (4, 6 + 2 + 2)
    assert y[:, 3].tolist() == [0, 1, 0, 0]


@pytest.mark.parametrize("rows", [4, 3])
def test_gradients_of_periodic_cells(rows: int) -> None:
    layers = [layer("dense", units=5, activation="tanh"), layer("dense", units=2)]
    net = Network(layers, (3,), np.float64, entry=PERIODIC)
    vector, targets = net.initialize(3), np.random.default_rng(1).normal(size=(rows, 2))
    gradient = aligned_vector(net.size, np.float64)
    program = Program(net, 4, vector, kernels=NUMPY, loss=LOSSES["mse"](), gradient=gradient)

    def loss(_: np.ndarray) -> float:
        program.run(np.ascontiguousarray(NUMBERS[:rows]), targets)
        return float(program.totals[0])

    loss(vector)
    report = check(loss, vector, gradient.copy(), {t.path: slice(t.start, t.stop) for t in net.tensors})
    assert report.worst.error < 1e-7, str(report)


def network(dtype: Any = np.float32, layers: Any = None) -> Network:
    chosen = (
        [layer("dense", units=5, activation="tanh"), layer("dense", units=2)] if layers is None else layers
    )
    return Network(chosen, (7,), dtype, entry=ENTERING)


def entered(kernels: Kernels, dtype: Any, vector: np.ndarray) -> np.ndarray:
    program = Program(network(dtype, ()), 5, vector, kernels=kernels)
    program.work[:] = np.nan
    program.run(np.ascontiguousarray(CELLS, dtype))
    return program.outputs(3).copy()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_values_by_hand(dtype: Any) -> None:
    vector = np.arange(18, dtype=dtype)
    first, second = vector[:12].reshape(4, 3).tolist(), vector[12:].reshape(3, 2).tolist()
    assert entered(NUMPY, dtype, vector).tolist() == [
        [1, 1, 0.5, 0, *(1, 0, 0), *first[3], -4, 1, 0, *(0, 0), *second[0]],
        [0.5, 1, 0.25, 1, *(0, 0, 1), *first[0], 7, 0, 1, *(0, 1), *second[2]],
        [-0.25, 0.75, 0, 0, *(0, 1, 0), *first[3], 0, -1, 0, *(1, 0), *second[1]],
    ]


@pytest.mark.parametrize("kernels", [NUMPY, compiled_kernels()], ids=["NumPy", "compiled"])
def test_codes_of_bins_around_zero(kernels: Kernels) -> None:
    """A bin that is too narrow for the dtype counts as one that no number reaches."""
    edges = (-1.0, 0.0, 2.0, np.nextafter(2.0, 3))
    entry = Columns(cells=(NumberCell(edges, 0.5, bin_height=0.25),), names=("n",))
    net = Network((), (1,), np.float32, entry=entry)
    program = Program(net, 5, net.initialize(0), kernels=kernels)
    program.run(np.array([[-2], [-0.25], [1], [2], [MISSING]], np.float32))
    assert program.outputs(5).tolist() == [
        [-2, -0.25, -0.25, -0.25],
        [-0.25, 0.125, -0.25, -0.25],
        [1, 0.25, 0, -0.25],
        [2, 0.25, 0.25, -0.25],
        [0.5, 0.25, -0.125, -0.25],
    ]


def test_compiled_ops_give_the_same_bits() -> None:
    vector = vector_of(network())
    assert (
        entered(compiled_kernels(), np.float32, vector).tobytes()
        == entered(NUMPY, np.float32, vector).tobytes()
    )
    targets = np.ones((3, 2), np.float32)
    x = CELLS.astype(np.float32)
    (_, _, one), (_, _, other) = (
        train_once(network(), 6, x, targets, vector, kernels) for kernels in (NUMPY, compiled_kernels())
    )
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("most", [3, 8])
def test_gradients(most: int) -> None:
    net = network(np.float64)
    vector, gradient = vector_of(net), aligned_vector(net.size, np.float64)
    targets = np.random.default_rng(1).normal(size=(3, 2))
    program = Program(net, most, vector, kernels=NUMPY, loss=LOSSES["mse"](), gradient=gradient)

    def loss(_: Any) -> float:
        program.run(CELLS, targets)
        return float(program.totals[0])

    loss(vector)
    parts = {tensor.path: slice(tensor.start, tensor.stop) for tensor in net.tensors}
    assert list(parts)[:2] == ["input.columns.embedding.bias.weight", "input.columns.embedding.city.weight"]
    report = check(loss, vector, gradient.copy(), parts, np.arange(net.parameter_count))
    assert report.passed, str(report)
    assert gradient[:18].any()
    assert not gradient[3:9].any()  # codes that the rows do not have


def test_facts() -> None:
    net = network()
    assert (net.input_shape, net.shapes[0], net.output_shape) == ((7,), (WIDTH,), (2,))
    assert net.parameters_by_layer == {ENTRY: 18, 0: 90, 1: 12}
    assert net.parameter_count == 120
    first = net.initialize(3)[:12].reshape(4, 3)
    assert not first[0].any()  # of a code that training may never meet
    assert first[1:].all()
    with pytest.raises(ValueError, match=r"takes rows of 7 cells, not of the shape \[3\]"):
        Network((), (3,), entry=ENTERING)


def test_edges_that_are_one_in_float32() -> None:
    edges = (0.0, 1.0, 1.0 + 1e-12, 2.0)
    x = np.array([[0.5], [3.0]])
    for dtype, wanted in (
        (np.float64, [[0.5, 0.5, 0, 0], [3, 1, 1, 1]]),
        (np.float32, [[0.5, 0.5, 0, 0], [3, 1, 1, 0]]),
    ):
        net = Network((), (1,), dtype, entry=Columns(cells=(NumberCell(edges),), names=("n",)))
        program = Program(net, 2, net.initialize(0), kernels=NUMPY)
        program.run(x.astype(dtype))
        assert program.outputs(2).tolist() == wanted
