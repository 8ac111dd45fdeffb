"""Networks with several outputs: the sum of their losses, its gradient, and where everything lies."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from nn.lowered import compiled_kernels, layer, vector_of

from distbp import JobError
from distbp.core.arrays import Array, aligned_vector
from distbp.nn.gradcheck import check
from distbp.nn.head_metrics import metrics_of
from distbp.nn.kernels import NUMPY, Kernels
from distbp.nn.losses import LOSSES
from distbp.nn.losses.several import Heads, Losses, OutputLoss, heads_of
from distbp.nn.metrics import frame_of
from distbp.nn.network import Network
from distbp.nn.program import Program
from distbp.nn.wiring import places_of, unknown_name, wire

TRUNK = layer("dense", units=5, activation="tanh", name="trunk")


def heads(**losses: tuple[str, float]) -> Losses:
    return Losses(tuple(OutputLoss(name, LOSSES[kind](), factor) for name, (kind, factor) in losses.items()))


# Layers, and losses in the order of the names.
GRAPHS: dict[str, tuple[list[Any], Losses]] = {
    "two heads": (
        [
            TRUNK,
            layer("dense", units=3, inputs=("trunk",), name="kind"),
            layer("dense", units=2, inputs=("trunk",), name="size"),
        ],
        heads(kind=("softmax_cross_entropy", 1), size=("mse", 0.3)),
    ),
    "an output that others take": (
        [
            layer("dense", units=4, activation="tanh", name="low"),
            layer("dense", units=4, activation="gelu", name="high"),
            layer("add", inputs=("low", "high"), name="sum"),
            layer("dense", units=2, name="end"),
        ],
        heads(end=("softmax_cross_entropy", 0.5), high=("huber", 2), low=("sigmoid_cross_entropy", 1)),
    ),
    "two labels": (
        [
            layer("dense", units=4, name="a"),
            layer("layer_normalization", name="b"),
            layer("dense", units=3, name="c"),
        ],
        heads(b=("hinge", 0.7), c=("softmax_cross_entropy", 1.5)),
    ),
    "an image and its flat self": (
        [
            layer("reshape", shape=(1, 2, 2)),
            layer("conv2d", filters=2, kernel_size=1, name="seen"),
            layer("flatten", name="flat"),
            layer("dense", units=2),
            layer("softmax", name="shares"),
        ],
        heads(flat=("mse", 0.25), shares=("nll", 1)),
    ),
}


def made(name: str, dtype: Any) -> tuple[Network, Heads]:
    layers, losses = GRAPHS[name]
    network = Network(layers, (4,), dtype, outputs=losses.names)
    return network, heads_of(losses, network.output_shapes)


def rows_of(network: Network, every: Heads, rows: int) -> tuple[Array, Array, Array]:
    """Inputs, the targets of all outputs, and weights."""
    draw = np.random.default_rng(rows)
    parts = {
        head.name: draw.integers(0, head.outputs[1], rows)
        if head.is_label
        else draw.uniform(0.1, 0.9, (rows, head.outputs[1]))
        for head in every
    }
    x = draw.normal(size=(rows, 4)).astype(network.dtype)
    return x, every.join(parts, network.dtype), draw.uniform(0.5, 2, rows).astype(network.dtype)


def trained(
    name: str, dtype: Any, rows: int, most: int, kernels: Kernels = NUMPY, weighted: bool = True
) -> tuple[Program, Array, tuple[Array, Array, Array | None]]:
    network, every = made(name, dtype)
    gradient = aligned_vector(network.size, network.dtype)
    gradient[:] = np.nan
    program = Program(
        network, most, vector_of(network), kernels=kernels, loss=GRAPHS[name][1], gradient=gradient
    )
    program.work[:] = np.nan
    x, targets, weights = rows_of(network, every, rows)
    slices = (x, targets, weights if weighted else None)
    program.run(*slices)
    return program, gradient, slices


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize(("rows", "most", "weighted"), [(5, 5, True), (3, 8, False)])
def test_gradients(name: str, rows: int, most: int, weighted: bool) -> None:
    program, gradient, slices = trained(name, np.float64, rows, most, weighted=weighted)
    vector = program._executor._spaces[0]  # type: ignore[attr-defined]

    def loss(_: Array) -> float:
        program.run(*slices)
        return float(program.totals[0])

    found = gradient.copy()
    parts = {t.path: slice(t.start, t.stop) for t in program.network.tensors}
    report = check(loss, vector, found, parts, np.arange(program.network.parameter_count))
    assert report.passed, str(report)


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize(("rows", "most"), [(6, 6), (3, 20)])
def test_compiled_ops_give_the_same(name: str, rows: int, most: int) -> None:
    program, gradient, _ = trained(name, np.float32, rows, most)
    other, found, _ = trained(name, np.float32, rows, most, compiled_kernels())
    np.testing.assert_allclose(found, gradient, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(other.totals[:2], program.totals[:2], rtol=1e-5)
    np.testing.assert_allclose(other.own_losses(), program.own_losses(), rtol=1e-5)
    np.testing.assert_allclose(other.outputs(rows), program.outputs(rows), rtol=1e-4, atol=1e-5)


def test_losses_and_gradients_by_hand() -> None:
    """Two linear outputs of one number x: y = a x and z = b x + c, with 3 (y - t)^2 and the cross-entropy."""
    layers = [
        layer("dense", units=1, name="y", inputs=("input",)),
        layer("dense", units=2, name="z", inputs=("input",)),
    ]
    losses = heads(y=("mse", 3), z=("softmax_cross_entropy", 1))
    network = Network(layers, (1,), np.float64, outputs=losses.names)
    vector = np.array([2.0, 0.0, 1.0, -1.0, 0.5, 0.0])  # a, its bias, b (two rows), c
    gradient = aligned_vector(network.size, np.float64)
    program = Program(network, 2, vector, kernels=NUMPY, loss=losses, gradient=gradient)
    x, t, label, w = np.array([1.0, 3.0]), np.array([5.0, 4.0]), np.array([1, 0]), np.array([1.0, 0.5])
    program.run(x[:, None], np.stack([t, label], axis=1), w)

    y, z = 2 * x, np.outer(x, [1.0, -1.0]) + np.array([0.5, 0.0])
    shares = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    own = [float(w @ (y - t) ** 2), float(w @ -np.log(shares[[0, 1], label]))]
    np.testing.assert_allclose(program.own_losses(), own, rtol=1e-12)
    np.testing.assert_allclose(program.totals[:2], [3 * own[0] + own[1], 1.5], rtol=1e-12)
    dy, dz = 3 * w * 2 * (y - t), w[:, None] * (shares - np.eye(2)[label])
    np.testing.assert_allclose(gradient, [dy @ x, dy.sum(), *(dz.T @ x), *dz.sum(axis=0)], rtol=1e-12)
    np.testing.assert_allclose(program.outputs(2), np.column_stack([y, z]), rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("compiled", [False, True])
def test_a_factor_of_one_and_one_of_zero_are_the_job_with_one_loss(dtype: Any, compiled: bool) -> None:
    kernels = compiled_kernels() if compiled else NUMPY
    layers, _ = GRAPHS["two heads"]
    both = heads(kind=("softmax_cross_entropy", 1), size=("mse", 0))
    network, alone = Network(layers, (4,), dtype, outputs=both.names), Network(layers[:2], (4,), dtype)
    x, targets, weights = rows_of(network, heads_of(both, network.output_shapes), 9)
    vector, found = vector_of(network), []
    for net, loss, t in (
        (network, both, targets),
        (alone, LOSSES["softmax_cross_entropy"](), targets[:, 0].astype(np.int64)),
    ):
        gradient = aligned_vector(net.size, dtype)
        own = aligned_vector(net.size, dtype)
        own[:] = vector[: net.size]
        program = Program(net, 9, own, kernels=kernels, loss=loss, gradient=gradient)
        program.run(x, t, weights)
        found.append((gradient[: alone.size].copy(), program.totals[:2].copy()))
    np.testing.assert_array_equal(found[0][0], found[1][0])
    np.testing.assert_array_equal(found[0][1], found[1][1])


def test_labels_stay_whole_in_float32() -> None:
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 2**24, 1000)
    every = heads_of(heads(a=("nll", 1), b=("mse", 1)), [(2**24,), (1,)])
    joined = every.join({"a": labels, "b": draw.normal(size=(1000, 1))}, np.dtype(np.float32))
    assert joined.shape == (1000, 2) and joined.dtype == np.float32
    np.testing.assert_array_equal(every.all[0].targets_of(joined), labels)


def test_metrics_are_those_of_each_output() -> None:
    _, every = made("two heads", np.float64)
    draw = np.random.default_rng(1)
    y = draw.normal(size=(20, 5))
    labels, values = draw.integers(0, 3, 20), draw.normal(size=(20, 2))
    targets = every.join({"kind": labels, "size": values}, np.dtype(np.float64))
    names = ["size.mae", "kind.accuracy", "kind.auc"]
    mae, accuracy, auc = metrics_of(every, names, frame_of(targets))
    assert [mae.name, accuracy.name, auc.name] == names
    for metric, wanted in (
        (mae, np.abs(y[:, 3:] - values).mean()),
        (accuracy, (y[:, :3].argmax(axis=1) == labels).mean()),
    ):
        sums = np.zeros(metric.size)
        metric.accumulate(y, targets, None, sums)
        assert metric.finish(sums) == pytest.approx(wanted)
    (alone,) = metrics_of(heads_of(every.all[0].loss, [(3,)]), ["auc"])
    assert auc.finish_collected(y, targets, None) == alone.finish_collected(y[:, :3], labels, None)
    assert [metric.name for metric in metrics_of(every)] == ["kind.accuracy", "size.rmse", "size.r2"]


def test_the_frame_of_an_output_is_its_part_of_all() -> None:
    values = np.random.default_rng(2).normal(3, 2, (50, 2))
    _, every = made("two heads", np.float64)
    targets = every.join({"kind": np.zeros(50, np.int64), "size": values}, np.dtype(np.float64))
    assert frame_of(targets).part(every.all[1].targets) == frame_of(values)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["accuracy"], "'accuracy' names no output; write output.metric, with an output of kind, size"),
        (["kind.acuracy"], "'acuracy' is not known; did you mean 'accuracy'?"),
        (["size.accuracy"], "'accuracy' does not apply to a regression loss"),
    ],
)
def test_metrics_that_no_output_has(names: list[str], message: str) -> None:
    _, every = made("two heads", np.float64)
    with pytest.raises(JobError, match=r"metrics\.1") as refused:
        metrics_of(every, ["kind.accuracy", *names])
    assert message in str(refused.value)


def test_wiring_with_outputs() -> None:
    layers, losses = GRAPHS["an output that others take"]
    assert wire(layers, outputs=losses.names)[1] == []
    assert places_of(layers, losses.names, unknown_name) == ((3, 1, 0), [])
    (unused,) = wire(layers, outputs=("low",))[1]
    assert unused.place == "3" and unused.message.startswith(
        "no layer takes the output of this one ('end'), and it has no loss; name it in loss, or in the"
    )
    with pytest.raises(ValueError, match="'lwo' is not known; known: end, high, low, sum"):
        Network(layers, (4,), outputs=("lwo", "end"))
