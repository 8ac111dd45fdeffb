"""Rows of different lengths: a padded row gives what the same row gives alone, whatever its padding is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nn.lowered import check_compiled, gradcheck, layer, vector_of
from nn.test_layers import TABLE
from nn.test_recurrence import GOLDEN, ours
from tapes import Rig, run_op

from distbp.core.arrays import Array, aligned_vector
from distbp.nn.activations import ACTIVATIONS
from distbp.nn.kernels import NUMPY, Kernels
from distbp.nn.layers import LAYERS
from distbp.nn.losses import LOSSES
from distbp.nn.network import Network
from distbp.nn.ops import OPS
from distbp.nn.program import Program

LENGTHS = np.array([5, 0, 1, 3, 5, 2])
SHORTER = np.array([3, 0, 1, 3, 1, 2])
STEPS, FEATURES = 5, 3
DENSE = layer("dense", units=2)
BOTH = {"return_sequences": True, "bidirectional": True}
NETS: dict[str, list[Any]] = {
    **{
        f"{kind} {name}": [layer(kind, units=4, **options), *([layer("average_steps")] * every), DENSE]
        for kind in ("elman", "lstm", "gru")
        for name, options, every in (
            ("last", {}, False),
            ("last both ways", {"bidirectional": True}, False),
            ("sequences", {"return_sequences": True}, True),
            ("sequences both ways", BOTH, True),
        )
    },
    "relu": [layer("elman", units=4, activation="relu", bidirectional=True), DENSE],
    "stacked": [
        layer("lstm", units=2, **BOTH),
        layer("gru", units=1, **BOTH),
        layer("elman", units=2),
        DENSE,
    ],
    "transformer": [
        layer("dense_steps", units=4),
        layer("positional_encoding"),
        layer("positional_embedding", name="x"),
        layer("attention", heads=2, name="found"),
        layer("add", inputs=("x", "found")),
        layer("layer_normalization", name="y"),
        layer("attention", causal=True, name="more"),
        layer("concatenate", inputs=("y", "more")),
        layer("gelu"),
        layer("average_steps"),
        DENSE,
    ],
    "the last step": [
        layer("positional_embedding"),
        layer("attention", causal=True),
        layer("last_step"),
        DENSE,
    ],
    "the last step of the data": [layer("last_step"), DENSE],
}
every_net = pytest.mark.parametrize("name", NETS)
each_lengths = pytest.mark.parametrize(
    "lengths", [LENGTHS, SHORTER, SHORTER.clip(0, 1), 0 * SHORTER], ids=["whole", "shorter", "one", "none"]
)


def packed(x: Array, lengths: Array) -> Array:
    return np.concatenate([x.reshape(len(x), -1), lengths[:, None]], axis=1).astype(x.dtype)


def trained(
    network: Network, vector: Array, x: Array, targets: Array, kernels: Kernels
) -> tuple[Array, Array]:
    """Outputs, and the gradient, of one slice."""
    gradient = aligned_vector(network.size, network.dtype)
    gradient[:] = np.nan
    loss = LOSSES["mse"]()
    program = Program(network, len(x), vector, kernels=kernels, loss=loss, gradient=gradient)
    program.work[:] = np.nan
    program.run(x, targets)
    return program.outputs(len(x)).copy(), gradient


def drawn(dtype: Any, lengths: Array) -> tuple[Array, Array, Array]:
    """Two batches that differ in their padding alone, and targets."""
    draw = np.random.default_rng(0)
    x = draw.normal(size=(len(lengths), STEPS, FEATURES)).astype(dtype)
    other = x.copy()
    past = np.arange(STEPS) >= lengths[:, None]
    other[past] = 1000 * draw.normal(size=other[past].shape)
    return x, other, draw.normal(size=(len(lengths), 2)).astype(dtype)


@each_lengths
@every_net
def test_padding_has_no_influence(name: str, kernels: Kernels, lengths: Array) -> None:
    network = Network(NETS[name], (STEPS, FEATURES), np.float32, lengths=True)
    x, other, targets = drawn(np.float32, lengths)
    one, two = (
        trained(network, vector_of(network), packed(rows, lengths), targets, kernels) for rows in (x, other)
    )
    assert np.isfinite(one[1]).all()
    assert [array.tobytes() for array in one] == [array.tobytes() for array in two]


@each_lengths
@every_net
def test_a_padded_row_gives_what_it_gives_alone(name: str, lengths: Array) -> None:
    whole = Network(NETS[name], (STEPS, FEATURES), np.float64, lengths=True)
    x, _, targets = drawn(np.float64, lengths)
    vector = vector_of(whole)
    outputs, gradient = trained(whole, vector, packed(x, lengths), targets, NUMPY)
    total = np.zeros_like(gradient)
    for row, length in enumerate(lengths):
        if not length:  # there is no network of no steps
            one = Network(NETS[name], (STEPS, FEATURES), np.float64, lengths=True)
            found, part = trained(one, vector, packed(x[[row]], lengths[[row]]), targets[[row]], NUMPY)
            total += part
        else:
            one = Network(NETS[name], (int(length), FEATURES), np.float64)
            own = np.zeros(one.size)
            for mine, theirs in zip(one.tensors, whole.tensors, strict=True):
                own[mine.start : mine.stop] = vector[theirs.start :][: mine.stop - mine.start]
            rows = np.ascontiguousarray(x[[row], :length])
            found, part = trained(one, own, rows, targets[[row]], NUMPY)
            for mine, theirs in zip(one.tensors, whole.tensors, strict=True):
                total[theirs.start :][: mine.stop - mine.start] += part[mine.start : mine.stop]
        np.testing.assert_allclose(found[0], outputs[row], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(gradient, total, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [([2, 5, 0], 5), ([2, 9], 4), ([0, 0], 1), ([-3], 1), ([np.nan, 3], 3), ([np.inf], 4)],
    ids=str,
)
def test_the_longest_row_is_found_within_bounds(
    lengths: list[float], expected: int, kernels: Kernels
) -> None:
    """From 1 to the steps of the inputs, whatever came in: 4 here, or 5."""
    ends, most = np.array(lengths, np.float32)[:, None], 5 if 5 in lengths else 4
    compiled = kernels.gemm is not None
    assert run_op(OPS["longest"], [ends, np.zeros((1, 1), np.int64)], (most, 0), (), compiled)[1] == expected


@every_net
def test_gradients(name: str) -> None:
    assert gradcheck(NETS[name], (4, 2), 3, 5, lengths=True).worst.error < 1e-7


@every_net
def test_compiled_ops_give_the_same(name: str) -> None:
    check_compiled(NETS[name], (STEPS, FEATURES), 6, 9, lengths=True)


def test_ids_with_lengths() -> None:
    layers = [layer("embedding", entries=7, size=3), layer("lstm", units=3, bidirectional=True), DENSE]
    assert gradcheck(layers, (4,), 5, ids=7, lengths=True).worst.error < 1e-7
    check_compiled(layers, (4,), 5, 8, ids=7, lengths=True)


@pytest.mark.parametrize("case", GOLDEN["packed"], ids=lambda case: case["name"])
def test_outputs_and_gradients_are_those_of_packed_sequences(case: dict[str, Any]) -> None:
    x, dy = np.array(case["x"]), np.array(case["dy"])
    one = LAYERS[case["type"]](units=GOLDEN["units"], **case["options"])
    rig = Rig(one, x.shape[1:], rows=len(x), lengths=np.array(GOLDEN["lengths"]))
    for name, values in ours(case["type"], case["parameters"], False).items():
        rig.parameters[name][:] = values
    y, dx = rig.both(x, dy)
    np.testing.assert_allclose(y, case["outputs"], rtol=0, atol=1e-10)
    np.testing.assert_allclose(dx, case["dx"], rtol=0, atol=1e-10)
    for name, values in ours(case["type"], case["gradients"], True).items():
        np.testing.assert_allclose(rig.gradients[name], values, rtol=0, atol=1e-10, err_msg=name)


RECURRENT = {"elman", "lstm", "gru"}  # with return_sequences
OF_STEPS = [row for row, (_, _, shape, _) in TABLE.items() if len(shape) == 2]


@pytest.mark.parametrize(
    "row", [row for row in OF_STEPS if LAYERS[TABLE[row][0]](**TABLE[row][1]).lengths != "drop"]
)
def test_a_layer_does_with_lengths_what_it_states(row: str, kernels: Kernels) -> None:
    """What it gives for steps before the end depends on no others; what has no steps on no padding."""
    kind, options, shape, _ = TABLE[row]
    one, draw = LAYERS[kind](**options), np.random.default_rng(3)
    lengths = np.array([shape[0], 0, 1, 2])
    rig = Rig(one, shape, rows=4, dtype=np.float32, kernels=kernels, training=False, lengths=lengths)
    x = draw.normal(size=(4, *shape)).astype(np.float32)
    past = np.arange(shape[0]) >= lengths[:, None]
    other = np.where(past[..., None], np.float32(50), x)
    y, changed = rig.forward(x).copy(), rig.forward(other)
    if one.lengths == "keep":
        assert y.shape[:2] == past.shape
        y, changed = y[~past], changed[~past]
    assert y.tobytes() == changed.tobytes()


def test_the_page_names_the_layers_that_keep_lengths() -> None:
    page = (Path(__file__).parents[2] / "docs" / "sequences.md").read_text("utf-8")
    table = page.split("### What layers do with them", 1)[1].split("\n\n", 2)[1]
    told = {name for row in table.splitlines() if "eep" in row for name in re.findall(r"`(\w+)`", row)}
    made = {kind: LAYERS[kind](**options) for kind, options, *_ in TABLE.values()}
    made |= {kind: LAYERS[kind]() for kind in ("add", "multiply", "concatenate")}
    made["embedding"] = LAYERS["embedding"](entries=2, size=2)
    assert made.keys() == LAYERS.keys()
    keeping = {kind for kind, one in made.items() if one.lengths == "keep"}
    assert told - {"return_sequences"} == keeping - ACTIVATIONS.keys() - {"activation"} - RECURRENT


def test_the_last_step_of_a_row_is_the_last_of_its_own(kernels: Kernels) -> None:
    x, dy = np.arange(18.0).reshape(3, 3, 2), np.arange(1.0, 7).reshape(3, 2)
    rig = Rig(LAYERS["last_step"](), (3, 2), rows=3, kernels=kernels, lengths=np.array([2, 0, 3]))
    y, dx = rig.both(x, dy)
    assert y.tolist() == [[2, 3], [0, 0], [16, 17]]
    assert dx is not None
    expected = np.zeros_like(x)
    expected[0, 1], expected[2, 2] = [1, 2], [5, 6]
    assert dx.tolist() == expected.tolist()


def test_length_zero_gives_zero(kernels: Kernels) -> None:
    x, zero = np.ones((2, 3, 4), np.float32), np.array([0, 3])
    for kind, options in (
        ("elman", {}),
        ("lstm", {}),
        ("gru", {}),
        ("average_steps", None),
        ("last_step", None),
    ):
        one = LAYERS[kind]() if options is None else LAYERS[kind](units=2, bidirectional=True, **options)
        y = Rig(one, (3, 4), rows=2, dtype=np.float32, kernels=kernels, lengths=zero).forward(x)
        assert not y[0].any(), kind
        assert y[1].any(), kind
    attention = LAYERS["attention"](bias=False)
    y = Rig(attention, (3, 4), rows=2, dtype=np.float32, kernels=kernels, lengths=zero).forward(x)
    assert not y[0].any()


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (
            [layer("flatten"), DENSE],
            r"layer 0: flatten drops the lengths of the rows, so padding would count",
        ),
        (
            [layer("lstm", units=2, return_sequences=True), layer("reshape", shape=(10,))],
            "layer 1: reshape drops",
        ),
        (
            [
                layer("lstm", units=2, return_sequences=True),
                layer("batch_normalization"),
                layer("average_steps"),
            ],
            "layer 1: batch_normalization drops the lengths .* put a layer before it that uses them",
        ),
        (
            [
                layer("relu", name="a"),
                layer("tanh", name="b", inputs=("input",)),
                layer("concatenate", inputs=("a", "b"), axis=0),
                layer("elman", units=2),
            ],
            "layer 2: concatenate drops",
        ),
    ],
)
def test_dropping_lengths_is_a_fault(layers: list[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Network(layers, (STEPS, FEATURES), lengths=True)


def test_rows_of_numbers_have_no_steps() -> None:
    with pytest.raises(
        ValueError, match=r"lengths are of rows \(steps, features\), but a row has the shape \(5,\)"
    ):
        Network([layer("relu"), layer("tanh")], (5,), lengths=True)
