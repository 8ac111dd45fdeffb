"""Recurrent layers: PyTorch's numbers, published ones, gradients through time, the same bits.

What the Elman layer alone has is in test_elman.py.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kernel_sets import PLAIN
from nn.lowered import check_compiled, check_same_bits, gradcheck, layer
from tapes import Rig, run_op

from distbp.core.arrays import Array
from distbp.nn.initializers import Normal
from distbp.nn.kernels import NUMPY
from distbp.nn.layers import LAYERS
from distbp.nn.losses import LOSSES
from distbp.nn.lowered import lower
from distbp.nn.network import Network
from distbp.nn.ops import OPS

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "torch_recurrence.json").read_text())
KINDS = ("elman", "lstm", "gru")
GATES = {"elman": 1, "lstm": 4, "gru": 3}
WAYS = [{}, {"bidirectional": True}, {"return_sequences": True}]
WAYS.append({"bidirectional": True, "return_sequences": True})
DENSE = layer("dense", units=2)


def ours(kind: str, theirs: dict[str, Any], gradient: bool) -> dict[str, Array]:
    """PyTorch's tensors by the names here. Of two biases that are one here, values add up; their gradients
    are the same."""
    found = {}
    for end in ("", "_reverse"):
        if f"weight_ih_l0{end}" not in theirs:
            continue
        found[f"weight{end}"], found[f"recurrent_weight{end}"], outer, inner = (
            np.array(theirs[f"{name}_l0{end}"]) for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        apart = len(inner) * 2 // 3 if kind == "gru" else len(inner)
        if kind == "gru":
            found[f"recurrent_bias{end}"] = inner[apart:].copy()
        inner[apart:] = 0
        found[f"bias{end}"] = outer if gradient else outer + inner
    return found


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: case["name"])
def test_outputs_and_gradients_are_those_of_pytorch(case: dict[str, Any]) -> None:
    x, dy = np.array(case["x"]), np.array(case["dy"])
    one = LAYERS[case["type"]](units=GOLDEN["units"], **case["options"])
    rig = Rig(one, x.shape[1:], rows=len(x))
    for name, values in ours(case["type"], case["parameters"], False).items():
        rig.parameters[name][:] = values
    y, dx = rig.both(x, dy)
    gradients = ours(case["type"], case["gradients"], True)
    assert gradients.keys() == rig.gradients.keys()
    np.testing.assert_allclose(y, case["outputs"], rtol=0, atol=1e-10)
    np.testing.assert_allclose(dx, case["dx"], rtol=0, atol=1e-10)
    for name, values in gradients.items():
        np.testing.assert_allclose(rig.gradients[name], values, rtol=0, atol=1e-10, err_msg=name)


def space(low: float, high: float, *shape: int) -> Array:
    return np.linspace(low, high, int(np.prod(shape))).reshape(shape)


def test_the_lstm_step_of_cs231n() -> None:
    """Its gates are i, f, o, g."""
    x, h, c = space(-0.4, 1.2, 3, 4), space(-0.3, 0.7, 3, 5), space(-0.4, 0.9, 3, 5)
    wx, wh, b = space(-2.1, 1.3, 4, 20), space(-0.7, 2.2, 5, 20), space(0.3, 0.7, 20)
    i, f, o, g = np.split(np.arange(20), 4)
    order = np.concatenate([i, f, g, o])
    out = np.full((3, 5), np.nan)
    found = run_op(OPS["lstm_step"], [(x @ wx + h @ wh)[:, order], b[None, order], c, out, out])
    np.testing.assert_allclose(
        found[4][0], [0.24635157, 0.28610883, 0.32240467, 0.35525807, 0.38474904], atol=5e-9
    )
    np.testing.assert_allclose(
        found[3][0], [0.32986176, 0.39145139, 0.451556, 0.51014116, 0.56717407], atol=5e-9
    )


def nets(kind: str) -> dict[str, tuple[list[Any], tuple[int, ...]]]:
    def many(units: int, **options: Any) -> Any:
        return layer(kind, units=units, return_sequences=True, **options)

    def last(units: int, **options: Any) -> Any:
        return layer(kind, units=units, **options)

    return {
        "last": ([last(5), DENSE], (4, 3)),
        "stacked": ([many(3, bidirectional=True), many(2), last(2, bidirectional=True), DENSE], (4, 3)),
        "wide": ([many(17), layer("flatten"), DENSE], (3, 2)),
        "one step": ([last(4, bidirectional=True), DENSE], (1, 3)),
        "one step of sequences": ([many(4, bidirectional=True), many(1), layer("flatten")], (1, 1)),
        "one unit, one feature": ([many(1, bidirectional=True), last(1)], (7, 1)),
        "in a graph": (
            [
                many(3, name="a"),
                many(3, name="b"),
                layer("add", inputs=("a", "b"), name="sum"),
                last(2, bidirectional=True, name="end"),
                last(2, inputs=("sum",), name="beside"),
                layer("concatenate", inputs=("end", "beside")),
            ],
            (3, 3),
        ),
    }


NETS = {(kind, name): net for kind in KINDS for name, net in nets(kind).items()}
every_net = pytest.mark.parametrize("net", NETS, ids=" ".join)


@every_net
@pytest.mark.parametrize(("rows", "most"), [(5, 5), (3, 8), (1, 1)])
def test_gradients(net: tuple[str, str], rows: int, most: int) -> None:
    report = gradcheck(*NETS[net], rows, most)
    assert report.tolerance == 1e-7
    assert report.passed, str(report)


@every_net
@pytest.mark.parametrize(("rows", "most"), [(6, 6), (3, 20)])
def test_compiled_ops_give_the_same(net: tuple[str, str], rows: int, most: int) -> None:
    check_compiled(*NETS[net], rows, most)


def first_number_decides(rows: int, steps: int, features: int) -> tuple[Array, Array]:
    x = np.random.default_rng(2).normal(size=(rows, steps, features)).astype(np.float32)
    return x, (x[:, 0, 0] > 0).astype(np.int64)


@pytest.mark.parametrize("shards", [2, 3])
@pytest.mark.parametrize("kernels", PLAIN)
@pytest.mark.parametrize("kind", KINDS)
def test_same_bits(kind: str, kernels: str, shards: int) -> None:
    layers = [
        layer(kind, units=7, return_sequences=True, bidirectional=True),
        layer(kind, units=9, bidirectional=True),
        DENSE,
    ]
    check_same_bits(layers, *first_number_decides(50, 5, 3), shards, kernels)


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_same_bits_where_products_are_deferred(kind: str) -> None:
    """Many units and few rows: the gradients of weights are computed by who updates them."""
    layers = [layer(kind, units=90, bidirectional=True), DENSE]
    rows = lower(Network(layers, (3, 2), np.float32), 8, LOSSES["mse"](), training=True).rows
    assert sum(row.deferred for row in rows) == 2
    check_same_bits(layers, *first_number_decides(50, 3, 2), 2, optimizer={"type": "adam"})


@pytest.mark.parametrize("options", WAYS, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_the_second_direction_is_the_first_one_over_turned_steps(kind: str, options: dict[str, Any]) -> None:
    both = {**options, "bidirectional": True}
    alone = {**options, "bidirectional": False}
    x = np.random.default_rng(0).normal(size=(6, 5, 3))
    rig, there, back = (
        Rig(LAYERS[kind](units=4, **one), (5, 3), rows=6, kernels=NUMPY) for one in (both, alone, alone)
    )
    for name in there.parameters:
        there.parameters[name][:] = rig.parameters[name]
        back.parameters[name][:] = rig.parameters[f"{name}_reverse"]
    turned = back.forward(x[:, ::-1].copy())
    if "return_sequences" in options:
        turned = turned[:, ::-1]
    np.testing.assert_allclose(
        rig.forward(x), np.concatenate([there.forward(x), turned], axis=-1), rtol=0, atol=1e-13
    )


@pytest.mark.parametrize("options", WAYS, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_facts(kind: str, options: dict[str, Any]) -> None:
    one = layer(kind, units=4, **options)
    ways = 2 if "bidirectional" in options else 1
    expected = (7, 4 * ways) if "return_sequences" in options else (4 * ways,)
    assert one.output_shape((7, 3)) == expected
    assert one.own_shape == (None if "return_sequences" in options else expected)
    units = 4 * GATES[kind]
    specs = [("weight", (units, 3), True), ("recurrent_weight", (units, 4), True), ("bias", (units,), False)]
    if kind == "gru":
        specs.append(("recurrent_bias", (4,), False))
    if ways == 2:
        specs += [(f"{name}_reverse", shape, decays) for name, shape, decays in specs]
    assert [(spec.name, spec.shape, spec.decays) for spec in one.parameters((7, 3))] == specs
    assert one.flops((7, 3)) == 6 * 7 * sum(int(np.prod(shape)) for _, shape, _ in specs)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(), (3,), (2, 3, 4)], ids=str)
def test_other_shapes_are_refused(kind: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError) as caught:
        layer(kind, units=4).output_shape(shape)
    assert str(caught.value) == (
        f"{kind} takes steps of features, a shape of two sizes, but is given shape {list(shape)}; put a"
        " {type: reshape, shape: [steps, features]} layer before it"
    )


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_each_gate_is_drawn_on_its_own(kind: str) -> None:
    network = Network([layer(kind, units=6, bidirectional=True)], (5, 3), np.float64)
    vector = network.initialize(1)
    tensors = {t.name: vector[t.start : t.stop].reshape(t.shape) for t in network.tensors}
    seen = set()
    for end in ("", "_reverse"):
        for gate in np.split(tensors[f"recurrent_weight{end}"], GATES[kind]):
            np.testing.assert_allclose(gate @ gate.T, np.eye(6), atol=1e-13)
            seen.add(gate.tobytes())
        assert np.abs(tensors[f"weight{end}"]).max() <= np.sqrt(6 / (3 + 6))  # Glorot's, of one gate
        forget = np.repeat([0.0, 1.0 if kind == "lstm" else 0.0, 0.0, 0.0], 6)[: 6 * GATES[kind]]
        np.testing.assert_array_equal(tensors[f"bias{end}"], forget)
    assert len(seen) == 2 * GATES[kind]


def test_the_forget_bias_is_added_to_what_is_drawn() -> None:
    plain, more = (
        Network(
            [layer("lstm", units=3, forget_bias=f, bias_initializer=Normal())], (2, 2), np.float64
        ).initialize(5)
        for f in (0.0, 2.5)
    )
    assert sorted(np.round(more - plain, 12)) == [0.0] * (len(plain) - 3) + [2.5] * 3


def test_units_that_saturate_are_those_of_both_directions() -> None:
    for options in WAYS:
        one = layer("elman", units=4, **options)
        units = 8 if "bidirectional" in options else 4
        watched = lower(Network([one], (5, 2), np.float32), 3).watched
        assert [(each.layer, each.units) for each in watched] == [(0, units)]
    for kind in ("lstm", "gru"):
        assert lower(Network([layer(kind, units=4)], (5, 2), np.float32), 3).watched == []
