"""States that recurrent layers carry from window to window: windows give what their whole series gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from kernel_sets import PLAIN
from lowered import compiled_kernels, layer, vector_of

from distbp.core.arrays import Array, aligned_vector
from distbp.nn.gradcheck import check
from distbp.nn.kernels import NUMPY, Kernels
from distbp.nn.losses import LOSSES
from distbp.nn.network import Carry, Network
from distbp.nn.program import Program

FEATURES, UNITS, OUTPUTS = 3, 4, 2
KINDS: dict[str, dict[str, Any]] = {
    "elman": {},
    "elman relu": {"activation": "relu"},
    "gru": {},
    "lstm": {},
}


def layers(kind: str) -> list[Any]:
    name, options = kind.split()[0], KINDS[kind]
    return [
        layer(name, units=UNITS, return_sequences=True, **options),
        layer("layer_normalization"),
        layer(name, units=3, return_sequences=True, **options),
        layer("dense_steps", units=OUTPUTS),
    ]


def windows(x: Array, steps: int) -> list[Array]:
    """Series (rows, steps of all, features) as the rows of one window after the other: numbers, length, and
    whether a series begins."""
    found = []
    for first in range(0, x.shape[1], steps):
        part = x[:, first : first + steps]
        row = np.zeros((len(x), steps * x.shape[2] + 2), x.dtype)
        row[:, : part[0].size] = part.reshape(len(x), -1)
        row[:, -2:] = part.shape[1], first == 0
        found.append(row)
    return found


def trained(
    network: Network, vector: Array, x: Array, targets: Array, kernels: Kernels = NUMPY, shard: int = 0
) -> tuple[Program, Array]:
    gradient = aligned_vector(network.size, network.dtype)
    gradient[:] = np.nan  # whatever is not written shows
    program = Program(network, len(x), vector, kernels=kernels, loss=LOSSES["mse"](), gradient=gradient)
    program.work[:] = np.nan
    program.run(x, targets, shard=shard)
    return program, gradient


@pytest.mark.parametrize("steps", [1, 5, 6, 17])
@pytest.mark.parametrize("kind", KINDS)
def test_windows_with_carried_states_give_what_one_pass_gives(kind: str, steps: int) -> None:
    x = np.random.default_rng(1).normal(size=(3, 17, FEATURES))
    whole = Network(layers(kind), (17, FEATURES), np.float64)
    cut = Network(layers(kind), (steps, FEATURES), np.float64, carry=Carry())
    vector = vector_of(whole)
    one = Program(whole, 3, vector, kernels=NUMPY)
    one.run(x)
    program, found = Program(cut, 3, vector, kernels=NUMPY), []
    for _ in range(2):  # the second time the series begin from nothing again
        found = []
        for row in windows(x, steps):
            program.run(row)
            found.append(program.outputs(3).copy())
        together = np.concatenate(found, axis=1)[:, :17]
        np.testing.assert_allclose(together, one.outputs(3), rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_a_series_does_not_depend_on_the_one_before_it(kind: str) -> None:
    network = Network(layers(kind), (5, FEATURES), np.float64, carry=Carry())
    draw = np.random.default_rng(2)
    (second,) = windows(draw.normal(size=(2, 5, FEATURES)), 5)
    found, vector = [], vector_of(network)
    for series in draw.normal(size=(2, 2, 5, FEATURES)):
        program = Program(network, 2, vector, kernels=NUMPY)
        program.run(windows(series, 5)[0])
        program.run(second)
        found.append(program.outputs(2).copy())
    assert found[0].tobytes() == found[1].tobytes()
    second[:, -1] = 0  # as if it went on
    program.run(second)
    assert np.abs(program.outputs(2) - found[0]).max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_from_a_state_that_is_not_zero(kind: str) -> None:
    """With padding, and with a series that begins beside others that go on."""
    network = Network(layers(kind), (4, FEATURES), np.float64, carry=Carry(2, 5))
    draw, vector = np.random.default_rng(3), vector_of(network)
    vector[network.parameter_count :] = draw.normal(size=network.size - network.parameter_count)
    x = draw.normal(size=(4, 4 * FEATURES + 2))
    x[:, -2:] = [[4, 0], [3, 0], [1, 1], [4, 0]]
    targets = draw.normal(size=(4, 4 * OUTPUTS))
    program, gradient = trained(network, vector, x, targets, shard=1)

    def loss(_: Array) -> float:
        program.run(x, targets, shard=1)
        return float(program.totals[0])

    parts = {t.path: slice(t.start, t.stop) for t in network.tensors}
    report = check(loss, vector, gradient.copy(), parts, np.arange(network.parameter_count))
    assert report.worst.error < 1e-7, report
    before = loss(vector)
    vector[network.states[0].start + 5 * UNITS] += 1  # of the first row of the second shard
    assert loss(vector) != before


@pytest.mark.parametrize("kernels", PLAIN)
@pytest.mark.parametrize("kind", KINDS)
def test_where_states_are_left(kind: str, kernels: str) -> None:
    """Of each row after its last step, at the places of its shard; all other places are 0."""
    dtype = np.float64 if kernels == "numpy" else np.float32
    chosen = NUMPY if kernels == "numpy" else compiled_kernels()
    network = Network(layers(kind), (4, FEATURES), dtype, carry=Carry(3, 5))
    draw, vector = np.random.default_rng(4), vector_of(network)
    vector[network.parameter_count :] = draw.normal(size=network.size - network.parameter_count)
    x = draw.normal(size=(4, 4 * FEATURES + 2)).astype(dtype)
    x[:, -2:] = [[4, 0], [3, 0], [1, 1], [4, 0]]
    targets = draw.normal(size=(4, 4 * OUTPUTS)).astype(dtype)
    program, gradient = trained(network, vector, x, targets, chosen, shard=1)
    assert np.isfinite(gradient).all()
    assert program.totals[2] >= np.abs(gradient).max()  # the bound holds for states, too
    held = {t.path: gradient[t.start : t.stop].reshape(t.shape) for t in network.states}
    for states in held.values():
        assert not states[[0, 2]].any() and not states[1, 4].any()
        assert states[1, :4].all() or kind == "elman relu"
    alone = Network(layers(kind), (3, FEATURES), dtype, carry=Carry(3, 5))  # row 1 has three steps
    row = np.concatenate([x[1:2, : 3 * FEATURES], [[3, 0]]], axis=1).astype(dtype)
    moved = vector.copy()
    for state in network.states:  # as the first row
        places = moved[state.start : state.stop].reshape(state.shape)
        places[1, 0] = places[1, 1]
    _, other = trained(alone, moved, row, targets[1:2, : 3 * OUTPUTS], chosen, shard=1)
    for state in alone.states:
        found = other[state.start : state.stop].reshape(state.shape)
        np.testing.assert_allclose(found[1, 0], held[state.path][1, 1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("longest", [2, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_compiled_windows(kind: str, longest: int) -> None:
    """Also where no row has the last steps of a window."""
    network = Network(layers(kind), (4, FEATURES), np.float32, carry=Carry(2, 6))
    draw, vector = np.random.default_rng(5), vector_of(network)
    vector[network.parameter_count :] = draw.normal(size=network.size - network.parameter_count)
    x = draw.normal(size=(6, 4 * FEATURES + 2)).astype(np.float32)
    x[:, -2:] = [[4, 0], [3, 0], [1, 1], [4, 0], [4, 1], [2, 0]]
    x[:, -2] = np.minimum(x[:, -2], longest)
    targets = draw.normal(size=(6, 4 * OUTPUTS)).astype(np.float32)
    program, gradient = trained(network, vector, x, targets, shard=1)
    other, found = trained(network, vector, x, targets, compiled_kernels(), shard=1)
    np.testing.assert_allclose(other.totals[0], program.totals[0], rtol=1e-4)
    np.testing.assert_allclose(found, gradient, rtol=1e-3, atol=2e-5 * np.abs(gradient).max())


def test_ids_in_windows() -> None:
    made = [
        layer("embedding", entries=7, size=3),
        layer("gru", units=UNITS, return_sequences=True),
        layer("dense_steps", units=OUTPUTS),
    ]
    whole = Network(made, (8,), np.float64)
    cut = Network(made, (4,), np.float64, carry=Carry())
    ids, vector = np.random.default_rng(6).integers(0, 7, (2, 8)), vector_of(whole)
    one, program = (Program(each, 2, vector, kernels=NUMPY) for each in (whole, cut))
    one.run(ids)
    found = []
    for row in windows(ids[:, :, None], 4):
        program.run(row)
        found.append(program.outputs(2).copy())
    np.testing.assert_allclose(np.concatenate(found, axis=1), one.outputs(2), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (
            [layer("gru", units=2)],
            "layer 0: gru gives the state after a window alone; set return_sequences: true",
        ),
        (
            [layer("lstm", units=2, return_sequences=True, bidirectional=True)],
            "layer 0: lstm with bidirectional: true takes a series from its end, too, and no state comes from"
            " there into a window; leave bidirectional out",
        ),
        (
            [layer("attention")],
            "layer 0: attention finds nothing before a window of a series; use recurrent layers alone",
        ),
        (
            [layer("positional_encoding")],
            "layer 0: positional_encoding counts the steps of a window, not those of its series; leave it"
            " out",
        ),
        (
            [layer("positional_embedding")],
            "layer 0: positional_embedding counts the steps of a window, not those of its series; leave it"
            " out",
        ),
        (
            [layer("elman", units=2, return_sequences=True), layer("flatten")],
            "layer 1: flatten gives no output for each step, which windows of a series need",
        ),
    ],
)
def test_layers_that_cannot_take_windows(made: list[Any], message: str) -> None:
    with pytest.raises(ValueError) as error:
        Network(made, (4, FEATURES), carry=Carry())
    assert str(error.value) == message
