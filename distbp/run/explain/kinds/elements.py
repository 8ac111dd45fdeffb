"""Layers that work number by number: dropout, sums, products, concatenation, changes of shape."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from distbp.run.explain.numbers import (
    Back,
    Columns,
    Kind,
    LayerStep,
    Numbers,
    Ops,
    Spec,
    Tensors,
    Values,
    one_of,
    same,
    unread,
)
from distbp.run.explain.words import Place, at, plain, short, total

# Dropout ----------------------------------------------------------------------------------------------

_LEVELS, _PURPOSE = 1 << 16, 4  # of 16-bit random numbers; the purpose of dropout's random stream


def _dropped(spec: Spec) -> int:
    return min(round(float(spec["options"]["rate"]) * _LEVELS), _LEVELS - 1)


def _read_mask(spec: Spec, ops: Ops) -> Numbers:
    factors = one_of(ops.after("dropout", 2))
    return {"factors": None if factors is None else factors.reshape(spec["shape"])}


def _mask(spec: Spec, own: Tensors, inputs: Sequence[Values]) -> Numbers:
    """Draws the mask again from 16-bit parts of Philox words. The key is (seed, purpose), and the counter has
    (layer, shard, step); steps before the job count."""
    (x,), dropped = inputs, _dropped(spec)
    if not dropped:
        return {"factors": None, "a": x}
    if spec["options"]["schedule"] is not None:
        part = max(0.0, 2.0 * spec["step"] / spec["steps"] - 1.0)
        dropped = int(dropped * (1 + math.cos(math.pi * part)) / 2 + 0.5)
    counter = np.array([0, spec["number"], 0, spec["past"] + spec["step"]], np.uint64)
    key = np.array([spec["seed"], _PURPOSE], np.uint64)
    words = np.random.Philox(key=key, counter=counter).random_raw(-(-x.size // 4))
    levels = words.view(np.uint16)[: x.size].reshape(x.shape)
    factors = np.where(levels >= dropped, _LEVELS / (_LEVELS - dropped), 0.0)
    return {"factors": factors, "a": x * factors}


def _mask_back(spec: Spec, own: Tensors, inputs: Sequence[Values], numbers: Numbers, d: Values) -> Back:
    factors = numbers["factors"]
    return Back({}, {}, [d if factors is None else d * factors])


def _factor(step: LayerStep, place: Place) -> float:
    return float(step.get("factors")[place]) if step.has("factors") else 1.0


def _mask_tables(step: LayerStep) -> Sequence[Columns]:
    return ((("factor", "factors"), ("a", "a")),) if step.has("factors") else ((("a", "a"),),)


DROPOUT = Kind(
    read=_read_mask,
    forward=_mask,
    backward=_mask_back,
    rule=lambda step: (
        f"a = x * factor;  a factor is 0 with probability {step.options['rate']:g}"
        + ("" if step.options["schedule"] is None else ", which falls to 0 in the second half of training")
        + ", else the same for all: drawn for this step"
    ),
    tables=_mask_tables,
    made=lambda step, place: [
        f"a{at(place)} = {total([(step.x[place], _factor(step, place))])} = {plain(step.a[place])}"
    ],
    hands_rule=lambda step: f"dE/da = dE/da * factor of layer {step.number}",
    hands=lambda step, which, place: total([(step.get("dE_da")[place], _factor(step, place))]),
)

# Sums and products ------------------------------------------------------------------------------------


ADD = Kind(
    read=unread,
    forward=lambda spec, own, inputs: {"a": sum(inputs[1:], inputs[0])},
    backward=lambda spec, own, inputs, numbers, d: Back({}, {}, [d.copy() for _ in inputs]),
    rule=lambda step: "a = the sum of the inputs",
    made=lambda step, place: [
        f"a{at(place)} = {total([], [float(x[place]) for x in step.inputs])} = {plain(step.a[place])}"
    ],
    hands_rule=lambda step: f"dE/da = dE/da of layer {step.number}, as it is a sum",
    hands=same,
)


def _others(inputs: Sequence[Values], which: int) -> list[Values]:
    return [x for number, x in enumerate(inputs) if number != which]


def _product_back(spec: Spec, own: Tensors, inputs: Sequence[Values], numbers: Numbers, d: Values) -> Back:
    return Back({}, {}, [math.prod(_others(inputs, which), start=d) for which in range(len(inputs))])


def _factors(values: Sequence[Values], place: Place) -> str:
    return " * ".join(short(float(one[place])) for one in values)


MULTIPLY = Kind(
    read=unread,
    forward=lambda spec, own, inputs: {"a": math.prod(inputs[1:], start=inputs[0])},
    backward=_product_back,
    rule=lambda step: "a = the product of the inputs",
    made=lambda step, place: [f"a{at(place)} = {_factors(step.inputs, place)} = {plain(step.a[place])}"],
    hands_rule=lambda step: f"dE/da = dE/da of layer {step.number} times its other inputs",
    hands=lambda step, which, place: _factors([step.get("dE_da"), *_others(step.inputs, which)], place),
)

# One beside the other ---------------------------------------------------------------------------------


def _beside_back(spec: Spec, own: Tensors, inputs: Sequence[Values], numbers: Numbers, d: Values) -> Back:
    axis = spec["options"]["axis"]
    ends = np.cumsum([x.shape[axis] for x in inputs])[:-1]
    return Back({}, {}, np.split(d, ends, axis=axis))


def _source(step: LayerStep, place: Place) -> list[str]:
    """The line that names the input from which a number comes."""
    axis = step.options["axis"] % step.a.ndim
    first = 0
    for number, x in enumerate(step.inputs):
        if place[axis] < first + x.shape[axis]:
            inside = (*place[:axis], place[axis] - first, *place[axis + 1 :])
            return [f"a{at(place)} = input {number}{at(inside)} = {plain(step.a[place])}"]
        first += x.shape[axis]
    raise AssertionError(place)


def _moved(step: LayerStep, which: int, place: Place) -> str:
    axis = step.options["axis"] % step.a.ndim
    first = sum(x.shape[axis] for x in step.inputs[:which])
    return same(step, which, (*place[:axis], place[axis] + first, *place[axis + 1 :]))


CONCATENATE = Kind(
    read=unread,
    forward=lambda spec, own, inputs: {"a": np.concatenate(inputs, axis=spec["options"]["axis"])},
    backward=_beside_back,
    rule=lambda step: "a = the inputs, one beside the other",
    made=_source,
    hands_rule=lambda step: f"dE/da = its part of dE/da of layer {step.number}",
    hands=_moved,
)

# Other shapes -----------------------------------------------------------------------------------------

RESHAPE = Kind(
    read=unread,
    forward=lambda spec, own, inputs: {"a": inputs[0].reshape(spec["shape"])},
    backward=lambda spec, own, inputs, numbers, d: Back({}, {}, [d.reshape(inputs[0].shape)]),
    rule=lambda step: "the same numbers in another shape",
    made=lambda step, place: [f"a{at(place)} = {plain(step.a[place])}"],
    hands_rule=lambda step: "",
    hands=same,
    passes=True,
)

# A part -----------------------------------------------------------------------------------------------


def _places(options: Spec, features: int) -> list[int]:
    """The numbers of the input's features that the output has."""
    if "features" in options:
        return list(options["features"])
    return [*range(features)][options["start"] : options["stop"]]


def _part_back(spec: Spec, own: Tensors, inputs: Sequence[Values], numbers: Numbers, d: Values) -> Back:
    d_x = np.zeros_like(inputs[0])
    d_x[..., _places(spec["options"], inputs[0].shape[-1])] = d
    return Back({}, {}, [d_x])


def _part_rule(step: LayerStep) -> str:
    if "features" in step.options:
        return "a = the features of x that are made of the columns"
    return f"a[k] = x[k + {step.options['start']}]"


def _taken(step: LayerStep, place: Place) -> list[str]:
    source = (*place[:-1], _places(step.options, step.x.shape[-1])[place[-1]])
    return [f"a{at(place)} = x{at(source)} = {plain(step.a[place])}"]


def _handed(step: LayerStep, which: int, place: Place) -> str:
    places = _places(step.options, step.x.shape[-1])
    if place[-1] in places:
        return same(step, which, (*place[:-1], places.index(place[-1])))
    return "0 (it is not in the slice)"


SLICE = Kind(
    read=unread,
    forward=lambda spec, own, inputs: {"a": inputs[0][..., _places(spec["options"], inputs[0].shape[-1])]},
    backward=_part_back,
    rule=_part_rule,
    made=_taken,
    hands_rule=lambda step: f"dE/da = dE/da of layer {step.number} in the slice, 0 outside",
    hands=_handed,
)

# One of several inputs --------------------------------------------------------------------------------


def _own_numbers(options: Spec, row: Values) -> Values:
    """The numbers of one input in a row of the data; for a ragged input only the row's own steps."""
    shape, first = options["shape"], options["first"]
    end = first + math.prod(shape)
    values = row[first:end].reshape(shape)
    return values[: int(row[end])] if options["ragged"] else values


def _entered(step: LayerStep, place: Place) -> list[str]:
    source = step.options["first"] + int(np.ravel_multi_index(place, tuple(step.options["shape"])))
    return [f"a{at(place)} = x{at((source,))} = {plain(step.a[place])}"]


INPUT = Kind(
    read=unread,
    forward=lambda spec, own, inputs: {"a": _own_numbers(spec["options"], inputs[0])},
    backward=lambda spec, own, inputs, numbers, d: Back({}, {}, [np.zeros_like(inputs[0])]),
    rule=lambda step: f"a = the numbers of the data from x[{step.options['first']}] on, in its shape",
    made=_entered,
    hands_rule=lambda step: "",
    hands=same,
)
