"""Convolution and pooling over the steps of sequences: images of one row, whose channels are the features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from distbp.run.explain.kinds.dense import (
    activation_back_columns,
    activation_columns,
    after,
    below,
    delta_of,
    delta_rule,
    read,
)
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
    Grid,
    chosen_place,
    convolution,
    convolution_back,
    grid_of,
    pool,
    pool_back,
)
from distbp.run.explain.words import MOST_TERMS, Place, at, plain, short, total


def _options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the layer over images that does the same."""
    found = dict(options)
    for name, of_rows in (("kernel_size", 1), ("stride", 1), ("padding", 0), ("dilation", 1)):
        if isinstance(options.get(name), int):
            found[name] = [of_rows, options[name]]
    return found


def _image(values: Values) -> Values:
    """(steps, features) -> (features, 1, steps)."""
    return values.T[:, np.newaxis]


def _sequence(values: Values) -> Values:
    return values[:, 0].T


def _grid(step: LayerStep) -> Grid:
    return grid_of(_options(step.options))


# Convolution ------------------------------------------------------------------------------------------


def _forward(spec: Spec, own: Tensors, inputs: Sequence[Values]) -> Numbers:
    (steps, filters), w = spec["shape"], own["weight"][:, :, np.newaxis]
    shape = (filters, 1, steps)
    z = _sequence(convolution(_options(spec["options"]), w, own["bias"], _image(inputs[0]), shape))
    return {"z": z, "a": activate(spec, z)}


def _backward(spec: Spec, own: Tensors, inputs: Sequence[Values], numbers: Numbers, d: Values) -> Back:
    z, a, w = numbers["z"], numbers["a"], own["weight"][:, :, np.newaxis]
    assert z is not None and a is not None
    delta = through(spec, z, a, d)
    found, d_x = convolution_back(_options(spec["options"]), w, _image(inputs[0]), _image(delta))
    gradients = {**found, "weight": found["weight"][:, :, 0]}
    return Back({"f_prime": slope(spec, z), "delta": delta}, gradients, [_sequence(d_x)])


def _first(step: LayerStep, f: int) -> int:
    """The first feature that a filter looks at."""
    w = step.tensor("weight")
    return int(f // (w.shape[0] // step.options["groups"]) * w.shape[1])


def _made(step: LayerStep, place: Place) -> list[str]:
    (t, f), w, x = place, step.tensor("weight"), step.x
    window = [
        (w[f, c, v], x[s, _first(step, f) + c])
        for c in range(w.shape[1])
        for _, v, _, s in _grid(step).places((1, len(x)), 0, t)
    ]
    terms = total(window, [step.tensor("bias")[f]])
    return [f"z{at(place)} = {terms} = {plain(step.get('z')[place])}", after(step, place)]


def _hands(step: LayerStep, which: int, place: Place) -> str:
    (s, k), w, delta = place, step.tensor("weight"), step.get("delta")
    return total(
        (delta[t, f], w[f, k - _first(step, f), v])
        for f in range(w.shape[0])
        if 0 <= k - _first(step, f) < w.shape[1]
        for _, v, _, t in _grid(step).around((1, len(delta)), 0, s)
    )


def _weight(step: LayerStep, place: Place) -> str:
    (f, c, v), x, delta = place, step.x, step.get("delta")
    return total(
        (delta[t, f], x[s, _first(step, f) + c])
        for t in range(len(delta))
        for _, b, _, s in _grid(step).places((1, len(x)), 0, t)
        if b == v
    )


def _bias(step: LayerStep, place: Place) -> str:
    return total([], [float(one) for one in step.get("delta")[:, place[0]]])


def _weights(step: LayerStep) -> Mapping[str, Weight]:
    rule = "dE/dw[f, c, v] = sum over the steps of delta[t, f] * (the number there)"
    return {
        "weight": Weight("w", rule, _weight),
        "bias": Weight("b", "dE/db[f] = the sum of delta over the steps", _bias, "BP3"),
    }


CONVOLUTION_1D = Kind(
    read=read,
    forward=_forward,
    backward=_backward,
    rule=lambda step: f"z[t, f] = sum over the window of w[f, c, v] * x + b[f],  a = {step.activation}(z)",
    back_rules=delta_rule,
    tables=activation_columns,
    back_tables=activation_back_columns,
    made=_made,
    brought=delta_of,
    hands_rule=below,
    hands=_hands,
    weights=_weights,
    drawn=lambda step: ("a", "delta"),
)


# Pooling ----------------------------------------------------------------------------------------------


def _pool(largest: bool, spec: Spec, own: Tensors, inputs: Sequence[Values]) -> Numbers:
    steps, features = spec["shape"]
    shape = (features, 1, steps)
    return {"a": _sequence(pool(largest, _options(spec["options"]), _image(inputs[0]), shape))}


def _pool_back(
    largest: bool, spec: Spec, own: Tensors, inputs: Sequence[Values], numbers: Numbers, d: Values
) -> Back:
    d_x = pool_back(largest, _options(spec["options"]), _image(inputs[0]), _image(d))
    return Back({}, {}, [_sequence(d_x)])


def _window(step: LayerStep, place: Place) -> str:
    t, k = place
    values = [short(float(step.x[s, k])) for *_, s in _grid(step).places((1, len(step.x)), 0, t)]
    return ", ".join(values[:MOST_TERMS]) + (", ..." if len(values) > MOST_TERMS else "")


def _chosen(step: LayerStep, t: int, k: int) -> int:
    """The step that has the largest number of a window."""
    return chosen_place(_grid(step), _image(step.x), k, 0, t)[1]


def _largest(step: LayerStep, place: Place) -> list[str]:
    where = at((_chosen(step, *place), place[1]))
    return [f"a{at(place)} = max({_window(step, place)}) = {plain(step.a[place])}, which is x{where}"]


def _average(step: LayerStep, place: Place) -> list[str]:
    summed = _window(step, place).replace(", ", " + ")
    return [f"a{at(place)} = ({summed}) / {step.options['kernel_size']} = {plain(step.a[place])}"]


def _largest_hands(step: LayerStep, which: int, place: Place) -> str:
    (s, k), d = place, step.get("dE_da")
    around = _grid(step).around((1, len(d)), 0, s)
    parts = [short(float(d[t, k])) for *_, t in around if _chosen(step, t, k) == s]
    return " + ".join(parts) if parts else "0 (it is the largest of no window)"


def _average_hands(step: LayerStep, which: int, place: Place) -> str:
    (s, k), d, size = place, step.get("dE_da"), step.options["kernel_size"]
    parts = [f"{short(float(d[t, k]))} / {size}" for *_, t in _grid(step).around((1, len(d)), 0, s)]
    return " + ".join(parts) if parts else "0 (it stands in no window)"


MAX_POOL_1D = Kind(
    read=unread,
    forward=partial(_pool, True),
    backward=partial(_pool_back, True),
    rule=lambda step: "a = the largest number of each window of steps, feature by feature",
    made=_largest,
    hands_rule=lambda step: "dE/da comes from the windows above: to the largest number of each",
    hands=_largest_hands,
)
AVERAGE_POOL_1D = Kind(
    read=unread,
    forward=partial(_pool, False),
    backward=partial(_pool_back, False),
    rule=lambda step: "a = the average of each window of steps (padding counts as 0), feature by feature",
    made=_average,
    hands_rule=lambda step: "dE/da comes from the windows above: an equal part to each number",
    hands=_average_hands,
)
