"""Convolution and pooling."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from distbp.run.explain.kinds.dense import activating, after, below
from distbp.run.explain.loops import activate, slope, through
from distbp.run.explain.numbers import (
    Back,
    Kind,
    LayerStep,
    Numbers,
    Spec,
    Tensors,
    Values,
    Weight,
    unread,
)
from distbp.run.explain.window_loops import (
    chosen_place,
    convolution,
    convolution_back,
    grid_of,
    pool,
    pool_back,
)
from distbp.run.explain.words import MOST_TERMS, Place, at, plain, short, total


def _forward(spec: Spec, own: Tensors, inputs: Sequence[Values]) -> Numbers:
    z = convolution(spec["options"], own["weight"], own["bias"], inputs[0], spec["shape"])
    return {"z": z, "a": activate(spec, z)}


def _backward(spec: Spec, own: Tensors, inputs: Sequence[Values], numbers: Numbers, d: Values) -> Back:
    z, a = numbers["z"], numbers["a"]
    assert z is not None and a is not None
    delta = through(spec, z, a, d)
    gradients, d_x = convolution_back(spec["options"], own["weight"], inputs[0], delta)
    return Back({"f_prime": slope(spec, z), "delta": delta}, gradients, [d_x])


def _first(step: LayerStep, f: int) -> int:
    """The first channel of a filter's group."""
    w = step.tensor("weight")
    return int(f // (w.shape[0] // step.options["groups"]) * w.shape[1])


def window_terms(step: LayerStep, place: Place) -> str:
    """The sum of weight * number over a window, as text."""
    w, x, (f, i, j), grid = step.tensor("weight"), step.x, place, grid_of(step.options)
    window = [
        (w[f, c, u, v], x[_first(step, f) + c, row, column])
        for c in range(w.shape[1])
        for u, v, row, column in grid.places(x.shape[1:], i, j)
    ]
    return total(window, [step.tensor("bias")[f]])


def convolved(step: LayerStep, place: Place, terms: str) -> list[str]:
    return [f"z{at(place)} = {terms} = {plain(step.get('z')[place])}", after(step, place)]


def convolution_hands(step: LayerStep, which: int, place: Place) -> str:
    """The sum of delta * weight over all windows that contain a number, as text."""
    w, delta, (channel, row, column) = step.tensor("weight"), step.get("delta"), place
    many = w.shape[0] // step.options["groups"]
    group = channel // w.shape[1]
    return total(
        (delta[f, i, j], w[f, channel - group * w.shape[1], u, v])
        for f in range(group * many, (group + 1) * many)
        for u, v, i, j in grid_of(step.options).around(delta.shape[1:], row, column)
    )


def weight_terms(step: LayerStep, place: Place) -> str:
    (f, c, u, v), x, delta = place, step.x, step.get("delta")
    grid = grid_of(step.options)
    return total(
        (delta[f, i, j], x[_first(step, f) + c, row, column])
        for i, j in np.ndindex(*delta.shape[1:])
        for a, b, row, column in grid.places(x.shape[1:], i, j)
        if (a, b) == (u, v)
    )


def bias_terms(step: LayerStep, place: Place) -> str:
    return total([], [float(v) for v in step.get("delta")[place[0]].ravel()])


def _weights(step: LayerStep) -> Mapping[str, Weight]:
    rule = "dE/dw[f, c, u, v] = sum over the places of delta * (the number there)"
    return {
        "weight": Weight("w", rule, weight_terms),
        "bias": Weight("b", "dE/db[f] = the sum of delta over the places", bias_terms, "BP3"),
    }


CONVOLUTION = activating(
    forward=_forward,
    backward=_backward,
    rule=lambda step: (
        f"z[f, y, x] = sum over the window of w[f, c, u, v] * x + b[f],  a = {step.activation}(z)"
    ),
    made=lambda step, place: convolved(step, place, window_terms(step, place)),
    hands_rule=lambda step: f"{below(step)}, summed over the windows",
    hands=convolution_hands,
    weights=_weights,
)


# Pooling ----------------------------------------------------------------------------------------------


def _pool(largest: bool, spec: Spec, own: Tensors, inputs: Sequence[Values]) -> Numbers:
    return {"a": pool(largest, spec["options"], inputs[0], spec["shape"])}


def _pool_backward(
    largest: bool, spec: Spec, own: Tensors, inputs: Sequence[Values], numbers: Numbers, d: Values
) -> Back:
    return Back({}, {}, [pool_back(largest, spec["options"], inputs[0], d)])


def window_numbers(step: LayerStep, place: Place) -> list[str]:
    x, grid, (c, i, j) = step.x, grid_of(step.options), place
    values = [short(float(x[c, row, column])) for _, _, row, column in grid.places(x.shape[1:], i, j)]
    return [*values[:MOST_TERMS], *(["..."] if len(values) > MOST_TERMS else [])]


def largest_place(step: LayerStep, place: Place) -> Place:
    """The place of the largest number in a window."""
    return place[0], *chosen_place(grid_of(step.options), step.x, *place)


def largest(step: LayerStep, place: Place, numbers: list[str], where: Place) -> list[str]:
    return [f"a{at(place)} = max({', '.join(numbers)}) = {plain(step.a[place])}, which is x{at(where)}"]


def average(step: LayerStep, place: Place, numbers: list[str], size: int) -> list[str]:
    return [f"a{at(place)} = ({' + '.join(numbers)}) / {size} = {plain(step.a[place])}"]


def _size(step: LayerStep) -> int:
    return math.prod(grid_of(step.options).kernel)


def largest_hands(step: LayerStep, which: int, place: Place) -> str:
    (c, row, column), d = place, step.get("dE_da")
    around = grid_of(step.options).around(d.shape[1:], row, column)
    parts = [short(float(d[c, i, j])) for _, _, i, j in around if largest_place(step, (c, i, j)) == place]
    return " + ".join(parts) if parts else "0 (it is the largest of no window)"


def average_hands(step: LayerStep, which: int, place: Place) -> str:
    (c, row, column), d = place, step.get("dE_da")
    around = grid_of(step.options).around(d.shape[1:], row, column)
    parts = [f"{short(float(d[c, i, j]))} / {_size(step)}" for _, _, i, j in around]
    return " + ".join(parts) if parts else "0 (it stands in no window)"


MAX_POOL = Kind(
    read=unread,
    forward=partial(_pool, True),
    backward=partial(_pool_backward, True),
    rule=lambda step: "a = the largest number of each window",
    made=lambda step, place: largest(step, place, window_numbers(step, place), largest_place(step, place)),
    hands_rule=lambda step: "dE/da comes from the windows above: to the largest number of each",
    hands=largest_hands,
)
AVERAGE_POOL = Kind(
    read=unread,
    forward=partial(_pool, False),
    backward=partial(_pool_backward, False),
    rule=lambda step: "a = the average of each window (padding counts as 0)",
    made=lambda step, place: average(step, place, window_numbers(step, place), _size(step)),
    hands_rule=lambda step: "dE/da comes from the windows above: an equal part to each number",
    hands=average_hands,
)


def _whole_back(spec: Spec, own: Tensors, inputs: Sequence[Values], numbers: Numbers, d: Values) -> Back:
    (x,) = inputs
    return Back({}, {}, [np.broadcast_to(d[:, np.newaxis, np.newaxis] / x[0].size, x.shape).copy()])


GLOBAL_AVERAGE_POOL = Kind(
    read=unread,
    forward=lambda spec, own, inputs: {"a": inputs[0].mean(axis=(1, 2))},
    backward=_whole_back,
    rule=lambda step: "a[c] = the average of channel c",
    made=lambda step, place: [
        f"a{at(place)} = ({total([], [float(v) for v in step.x[place].ravel()])}) / {step.x[0].size}"
        f" = {plain(step.a[place])}"
    ],
    hands_rule=lambda step: (
        f"dE/da = dE/da of layer {step.number}, an equal part to each number of a channel"
    ),
    hands=lambda step, which, place: f"{short(float(step.get('dE_da')[place[0]]))} / {step.x[0].size}",
)
