"""Attention and the layers beside it in a transformer: PyTorch's numbers, gradients, the same bits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kernel_sets import PLAIN
from nn.lowered import check_compiled, check_same_bits, gradcheck, layer, train_once
from tapes import Rig, run_op

from distbp.core.arrays import Array
from distbp.core.options import OptionError
from distbp.nn.kernels import Kernels
from distbp.nn.layers import LAYERS
from distbp.nn.losses import LOSSES
from distbp.nn.lowered import lower
from distbp.nn.network import Network
from distbp.nn.ops import OPS

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "torch_attention.json").read_text())
FLAT = [layer("flatten"), layer("dense", units=2)]
NAMES = {
    "in_proj_weight": "in_proj_weight",
    "in_proj_bias": "in_proj_bias",
    "out_proj_weight": "out_proj.weight",
    "out_proj_bias": "out_proj.bias",
}


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: case["name"])
def test_outputs_and_gradients_are_those_of_pytorch(case: dict[str, Any]) -> None:
    x, dy = np.array(case["x"]), np.array(case["dy"])
    rig = Rig(LAYERS["attention"](**case["options"]), x.shape[1:], rows=len(x))
    assert {NAMES[name] for name in rig.parameters} == case["parameters"].keys()
    for name, array in rig.parameters.items():
        array[:] = case["parameters"][NAMES[name]]
    y, dx = rig.both(x, dy)
    np.testing.assert_allclose(y, case["outputs"], rtol=0, atol=1e-10)
    np.testing.assert_allclose(dx, case["dx"], rtol=0, atol=1e-10)
    for name, found in rig.gradients.items():
        expected = case["gradients"][NAMES[name]]
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10, err_msg=name)


def block(features: int, wide: int, heads: int, start: str, end: str, **options: Any) -> list[Any]:
    """An encoder block on the output that is named `start`, as in examples/transformer.yaml."""
    return [
        layer("layer_normalization", inputs=(start,)),
        layer("attention", heads=heads, name=f"{end} found", **options),
        layer("add", inputs=(start, f"{end} found"), name=f"{end} half"),
        layer("layer_normalization"),
        layer("dense_steps", units=wide, activation="gelu"),
        layer("dense_steps", units=features, name=f"{end} made"),
        layer("add", inputs=(f"{end} half", f"{end} made"), name=end),
    ]


def test_a_graph_is_the_encoder_layer_of_pytorch() -> None:
    case = GOLDEN["encoder"]
    x, dy = np.array(case["x"]), np.array(case["dy"])
    shape: tuple[int, ...] = x.shape[1:]
    network = Network(block(shape[1], case["wide"], case["heads"], "input", "end"), shape, np.float64)
    names = {
        "0.scale": "norm1.weight", "0.shift": "norm1.bias",
        "1.in_proj_weight": "self_attn.in_proj_weight", "1.in_proj_bias": "self_attn.in_proj_bias",
        "1.out_proj_weight": "self_attn.out_proj.weight", "1.out_proj_bias": "self_attn.out_proj.bias",
        "3.scale": "norm2.weight", "3.shift": "norm2.bias",
        "4.weight": "linear1.weight", "4.bias": "linear1.bias",
        "5.weight": "linear2.weight", "5.bias": "linear2.bias",
    }  # fmt: skip
    vector = network.initialize(1)
    for t in network.tensors:
        vector[t.start : t.stop] = np.ravel(case["parameters"][names[f"{t.layer}.{t.name}"]])
    outputs = np.array(case["outputs"]).reshape(len(x), -1)
    targets = outputs - dy.reshape(outputs.shape) * outputs.shape[1] / 2  # so dy is the derivative of MSE
    _, found, gradient = train_once(network, len(x), x, targets, vector)
    np.testing.assert_allclose(found.reshape(outputs.shape), outputs, rtol=0, atol=1e-10)
    for t in network.tensors:
        expected = np.ravel(case["gradients"][names[f"{t.layer}.{t.name}"]])
        np.testing.assert_allclose(gradient[t.start : t.stop], expected, rtol=0, atol=1e-10, err_msg=t.path)


NETS: dict[str, tuple[list[Any], tuple[int, ...]]] = {
    "alone": ([layer("attention", heads=2), *FLAT], (4, 6)),
    "causal": ([layer("attention", heads=2, causal=True), *FLAT], (5, 4)),
    "stacked": (
        [layer("attention", heads=3, units=6), layer("attention", bias=False, causal=True), *FLAT],
        (3, 2),
    ),
    "one step": ([layer("attention", heads=2), *FLAT], (1, 4)),
    "one step of one feature": ([layer("attention"), layer("attention", causal=True), *FLAT], (1, 1)),
    "odd sizes": ([layer("attention", heads=3), layer("average_steps"), layer("dense", units=2)], (11, 9)),
    "wide": ([layer("attention", heads=2, causal=True), layer("average_steps")], (19, 10)),
    "read from the last step": ([layer("attention", heads=2, causal=True), layer("last_step")], (6, 4)),
    "of the data twice": (
        [
            layer("attention", inputs=("input",), name="a"),
            layer("attention", inputs=("input",), name="b"),
            layer("multiply", inputs=("a", "b")),
            *FLAT,
        ],
        (3, 2),
    ),
    "steps alone": (
        [
            layer("positional_encoding", base=50.0),
            layer("dense_steps", units=3, activation="tanh"),
            layer("positional_embedding"),
            layer("average_steps"),
        ],
        (4, 3),
    ),
    "encoder": (
        [
            layer("dense_steps", units=4),
            layer("positional_encoding", name="x"),
            *block(4, 7, 2, "x", "y"),
            *block(4, 5, 4, "y", "z", causal=True),
            layer("layer_normalization"),
            layer("average_steps"),
            layer("dense", units=3),
        ],
        (5, 3),
    ),
}
every_net = pytest.mark.parametrize("net", NETS)


@every_net
@pytest.mark.parametrize(("rows", "most"), [(5, 5), (3, 8), (1, 1)])
def test_gradients(net: str, rows: int, most: int) -> None:
    report = gradcheck(*NETS[net], rows, most)
    assert report.tolerance == 1e-7
    assert report.passed, str(report)


@every_net
@pytest.mark.parametrize(("rows", "most"), [(6, 6), (3, 20)])
def test_compiled_ops_give_the_same(net: str, rows: int, most: int) -> None:
    check_compiled(*NETS[net], rows, most)


def first_number_decides(rows: int, steps: int, features: int) -> tuple[Array, Array]:
    x = np.random.default_rng(2).normal(size=(rows, steps, features)).astype(np.float32)
    return x, (x[:, 0, 0] > 0).astype(np.int64)


@pytest.mark.parametrize("shards", [2, 3])
@pytest.mark.parametrize("kernels", PLAIN)
def test_same_bits(kernels: str, shards: int) -> None:
    layers = [*NETS["encoder"][0][:-1], layer("dense", units=2)]
    check_same_bits(layers, *first_number_decides(50, 5, 3), shards, kernels)


def test_same_bits_where_products_are_deferred() -> None:
    """Many units and few rows: the gradients of weights are computed by who updates them."""
    layers = [layer("dense_steps", units=90), layer("attention", heads=5), *FLAT]
    rows = lower(Network(layers, (3, 2), np.float32), 8, LOSSES["mse"](), training=True).rows
    assert sum(row.deferred for row in rows) == 2
    check_same_bits(layers, *first_number_decides(50, 3, 2), 2, optimizer={"type": "adam"})


def test_attention_by_hand(kernels: Kernels) -> None:
    """One head of one column; the scores of step 1 are 0 and log 3, so its shares are 1/4 and 3/4."""
    rig = Rig(LAYERS["attention"](causal=True, bias=False), (2, 1), rows=1, kernels=kernels)
    rig.parameters["in_proj_weight"][:], rig.parameters["out_proj_weight"][:] = [[1], [1], [10]], [[2]]
    root = np.sqrt(np.log(3))
    y = rig.forward(np.array([[[0.0], [root]]]))
    np.testing.assert_allclose(y, [[[0], [2 * 10 * root * 3 / 4]]], rtol=1e-6)


@pytest.mark.parametrize("compiled", [False, True])
def test_a_step_with_nothing_to_attend_to_gives_zero(compiled: bool) -> None:
    if compiled:
        pytest.importorskip("numba", reason="Numba is not installed: nothing is compiled")
    draw = np.random.default_rng(0)
    qkv, dy = draw.normal(size=(3, 12)).astype(np.float32), draw.normal(size=(3, 4)).astype(np.float32)
    out = [np.full(shape, np.nan, np.float32) for shape in ((6, 3), (3, 4), (3, 3), (3, 12))]
    _, p, y, _ = run_op(OPS["attention"], [qkv, *out[:2], np.empty((0, 1))], (2, 3, -1), (), compiled)
    assert not p[[0, 3]].any() and not y[0].any()
    np.testing.assert_allclose(p.sum(axis=1), [0, 1, 1] * 2, atol=1e-6)
    *_, found = run_op(OPS["attention_backward"], [qkv, p, dy, *out[2:]], (2, 3, -1), (), compiled)
    assert np.isfinite(found).all()
    assert not found[0, :4].any()  # of its query
    assert not found[2, 4:].any()  # of the last step's key and value, which nobody sees


def test_a_causal_step_knows_nothing_of_later_ones(kernels: Kernels) -> None:
    rig = Rig(LAYERS["attention"](heads=2, causal=True), (5, 4), kernels=kernels)
    x = np.random.default_rng(0).normal(size=(6, 5, 4))
    before = rig.forward(x).copy()
    x[:, 3:] += 1
    after = rig.forward(x)
    np.testing.assert_array_equal(after[:, :3], before[:, :3])
    assert (after[:, 3:] != before[:, 3:]).all()


def test_without_positions_the_order_of_steps_does_not_matter() -> None:
    rig, x = Rig(LAYERS["attention"](heads=2), (5, 4)), np.random.default_rng(0).normal(size=(6, 5, 4))
    order = [3, 0, 4, 1, 2]
    there = rig.forward(x)[:, order].copy()
    np.testing.assert_allclose(rig.forward(x[:, order].copy()), there, rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", [(7, 6), (3, 5), (1, 1)], ids=str)
def test_the_waves_of_positional_encoding(shape: tuple[int, int], kernels: Kernels) -> None:
    y = Rig(LAYERS["positional_encoding"](), shape, rows=2, kernels=kernels).forward(np.ones((2, *shape)))
    for t in range(shape[0]):
        for j in range(shape[1]):
            a = t / 10000 ** ((j - j % 2) / shape[1])
            np.testing.assert_allclose(y[:, t, j], 1 + (np.cos(a) if j % 2 else np.sin(a)), rtol=1e-6)


def test_dense_steps_is_dense_on_each_step(kernels: Kernels) -> None:
    steps = Rig(LAYERS["dense_steps"](units=3, activation="tanh"), (4, 2), rows=5, kernels=kernels)
    plain = Rig(LAYERS["dense"](units=3, activation="tanh"), (2,), rows=20, kernels=kernels)
    plain.vector[:] = steps.vector
    draw = np.random.default_rng(0)
    x, dy = draw.normal(size=(5, 4, 2)), draw.normal(size=(5, 4, 3))
    y, dx = steps.both(x, dy)
    expected = plain.both(x.reshape(20, 2), dy.reshape(20, 3))
    for one, other in zip((y, dx, steps.gradient), (*expected, plain.gradient), strict=True):
        assert one is not None and other is not None
        np.testing.assert_array_equal(one.ravel(), other.ravel())


def test_average_steps_by_hand(kernels: Kernels) -> None:
    rig = Rig(LAYERS["average_steps"](), (2, 3), rows=1, kernels=kernels)
    y, dx = rig.both(np.array([[[1.0, 2, 3], [5, 8, 4]]]), np.array([[2.0, 4, 6]]))
    assert y.tolist() == [[3, 5, 3.5]]
    assert dx is not None
    assert dx.tolist() == [[[1, 2, 3], [1, 2, 3]]]


def test_last_step_by_hand(kernels: Kernels) -> None:
    rig = Rig(LAYERS["last_step"](), (2, 3), rows=1, kernels=kernels)
    y, dx = rig.both(np.array([[[1.0, 2, 3], [5, 8, 4]]]), np.array([[2.0, 4, 6]]))
    assert y.tolist() == [[5, 8, 4]]
    assert dx is not None
    assert dx.tolist() == [[[0, 0, 0], [2, 4, 6]]]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("units", [None, 8])
def test_facts(units: int | None, bias: bool) -> None:
    one, wide = layer("attention", heads=2, units=units, bias=bias), units or 6
    assert one.output_shape((7, 6)) == (7, wide)
    specs = [("in_proj_weight", (3 * wide, 6), True), ("in_proj_bias", (3 * wide,), False)]
    specs += [("out_proj_weight", (wide, wide), True), ("out_proj_bias", (wide,), False)]
    assert [(s.name, s.shape, s.decays) for s in one.parameters((7, 6))] == (specs if bias else specs[::2])
    count = sum(int(np.prod(s.shape)) for s in one.parameters((7, 6)))
    assert one.flops((7, 6)) == 6 * 7 * count + 12 * 7 * 7 * wide  # and two products of P, three times each
    assert layer("dense_steps", units=3).flops((7, 6)) == 7 * layer("dense", units=3).flops((6,))


def test_p_is_kept_for_the_backward_pass_only() -> None:
    """So prediction needs no memory for it in each layer."""
    layers = [layer("attention", heads=2), layer("attention", heads=2)]
    network = Network(layers, (50, 4), np.float32)
    p = 2 * 50 * 50 * 3
    work = [lower(network, 3, LOSSES["mse"](), training=training).work for training in (False, True)]
    assert p < work[0] < 2 * p < work[1]


KINDS = ("attention", "positional_encoding", "positional_embedding", "average_steps", "last_step")


@pytest.mark.parametrize("kind", [*KINDS, "dense_steps"])
@pytest.mark.parametrize("shape", [(), (3,), (2, 3, 4)], ids=str)
def test_other_shapes_are_refused(kind: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError) as caught:
        layer(kind, **({} if kind in KINDS else {"units": 3})).output_shape(shape)
    assert str(caught.value) == (
        f"{kind} takes steps of features, a shape of two sizes, but is given shape {list(shape)}; put a"
        " {type: reshape, shape: [steps, features]} layer before it"
    )


def test_heads_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError) as caught:
        layer("attention", heads=4).output_shape((5, 6))
    assert str(caught.value) == (
        "heads is 4, but must divide the features of a step, 6, into equal parts; choose other heads, or give"
        " units"
    )
    with pytest.raises(OptionError) as wrong:
        layer("attention", heads=4, units=6)
    assert (wrong.value.field, str(wrong.value)) == (
        "heads",
        "must divide units, 6, into equal parts, not 4",
    )
