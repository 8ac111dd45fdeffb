"""Layers over steps without a state: embeddings of ids, positions, the average, the last step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from distbp.run.explain.numbers import (
    Back,
    Kind,
    LayerStep,
    Numbers,
    Spec,
    Tensors,
    Values,
    Weight,
    one_of,
    same,
    unread,
)
from distbp.run.explain.words import Place, at, plain, short, total


def _passes(step: LayerStep) -> str:
    return f"dE/da = dE/da of layer {step.number}"


# Embedding --------------------------------------------------------------------------------------------


def _vectors_back(spec: Spec, own: Tensors, inputs: Sequence[Values], numbers: Numbers, d: Values) -> Back:
    gradient = np.zeros_like(own["weight"])
    for place, number in np.ndenumerate(inputs[0].astype(int)):
        gradient[number] += d[place]
    return Back({}, {"weight": gradient}, [np.zeros(inputs[0].shape)])


def _vector(step: LayerStep, place: Place) -> list[str]:
    number = int(step.x[place[:-1]])
    return [f"a{at(place)} = w{at((number, place[-1]))} = {plain(step.a[place])}, as the id is {number}"]


def _where(step: LayerStep, place: Place) -> str:
    (number, k), d = place, step.get("dE_da")
    found = [float(d[(*there, k)]) for there, one in np.ndenumerate(step.x) if int(one) == number]
    return total([], found)


def _vector_weights(step: LayerStep) -> Mapping[str, Weight]:
    rule = "dE/dw[id, k] = the sum of dE/da[t, k] over all t where x[t] is this id"
    return {
        "weight": Weight("w", rule, _where, rows=tuple(dict.fromkeys(step.x.astype(int).ravel().tolist())))
    }


EMBEDDING = Kind(
    read=unread,
    forward=lambda spec, own, inputs: {"a": own["weight"][inputs[0].astype(int)]},
    backward=_vectors_back,
    rule=lambda step: "a[t, k] = w[x[t], k]: the row of the table for each id",
    made=_vector,
    hands_rule=lambda step: "",
    hands=same,
    weights=_vector_weights,
)

# Places -----------------------------------------------------------------------------------------------


def _waves(spec: Spec, own: Tensors, inputs: Sequence[Values]) -> Numbers:
    (x,), waves = inputs, np.zeros_like(inputs[0])
    for t, j in np.ndindex(*x.shape):
        angle = t / spec["options"]["base"] ** (j // 2 * 2 / x.shape[1])
        waves[t, j] = np.cos(angle) if j % 2 else np.sin(angle)
    return {"waves": waves, "a": x + waves}


def _plus(step: LayerStep, place: Place) -> list[str]:
    more = step.get("waves")[place] if step.has("waves") else step.tensor("weight")[place]
    return [f"a{at(place)} = {total([], [step.x[place], more])} = {plain(step.a[place])}"]


ENCODING = Kind(
    read=lambda spec, ops: {"waves": one_of(ops.after("waves", 0))},
    forward=_waves,
    backward=lambda spec, own, inputs, numbers, d: Back({}, {}, [d]),
    rule=lambda step: (
        "a = x + wave;  wave[t, 2 i] = sin and wave[t, 2 i + 1] = cos of t /"
        f" {step.options['base']:g}^(2 i / features)"
    ),
    tables=lambda step: ((("wave", "waves"), ("a", "a")),),
    made=_plus,
    hands_rule=_passes,
    hands=same,
)


def _places_back(spec: Spec, own: Tensors, inputs: Sequence[Values], numbers: Numbers, d: Values) -> Back:
    gradient = np.zeros_like(own["weight"])
    gradient[: len(d)] = d
    return Back({}, {"weight": gradient}, [d])


PLACES = Kind(
    read=unread,
    forward=lambda spec, own, inputs: {"a": inputs[0] + own["weight"][: len(inputs[0])]},
    backward=_places_back,
    rule=lambda step: "a = x + w: each step has a vector of its own",
    made=_plus,
    hands_rule=_passes,
    hands=same,
    weights=lambda step: {
        "weight": Weight("w", "dE/dw[t, k] = dE/da[t, k]", lambda step, place: same(step, 0, place))
    },
)

# The average ------------------------------------------------------------------------------------------


def _average_back(spec: Spec, own: Tensors, inputs: Sequence[Values], numbers: Numbers, d: Values) -> Back:
    (x,) = inputs
    return Back({}, {}, [np.array([d / len(x) for _ in x])])


AVERAGE = Kind(
    read=unread,
    forward=lambda spec, own, inputs: {"a": np.add.reduce(inputs[0], axis=0) / len(inputs[0])},
    backward=_average_back,
    rule=lambda step: "a[k] = the average of x[t, k] over the steps",
    made=lambda step, place: [
        f"a{at(place)} = ({total([], [float(one) for one in step.x[:, place[0]]])}) / {len(step.x)}"
        f" = {plain(step.a[place])}"
    ],
    hands_rule=lambda step: f"dE/da = dE/da of layer {step.number}, an equal part to each step",
    hands=lambda step, which, place: f"{short(float(step.get('dE_da')[place[1]]))} / {len(step.x)}",
)

# The last step ----------------------------------------------------------------------------------------


def _last_back(spec: Spec, own: Tensors, inputs: Sequence[Values], numbers: Numbers, d: Values) -> Back:
    d_x = np.zeros_like(inputs[0])
    d_x[-1] = d
    return Back({}, {}, [d_x])


def _last_hands(step: LayerStep, which: int, place: Place) -> str:
    t, k = place
    return short(float(step.get("dE_da")[k])) if t == len(step.x) - 1 else "0 (it is not the last step)"


LAST = Kind(
    read=unread,
    forward=lambda spec, own, inputs: {"a": inputs[0][-1]},
    backward=_last_back,
    rule=lambda step: f"a[k] = x[{len(step.x) - 1}, k], of the last step",
    made=lambda step, place: [f"a{at(place)} = x{at((len(step.x) - 1, *place))} = {plain(step.a[place])}"],
    hands_rule=lambda step: f"dE/da = dE/da of layer {step.number} to the last step, 0 to the others",
    hands=_last_hands,
)
