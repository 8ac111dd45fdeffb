"""Convolution and pooling over steps of sequences, which are images of one row with features as channels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from distbp.run.explain.kinds import images
from distbp.run.explain.numbers import Back, Kind, LayerStep, Numbers, Spec, Tensors, Values, Weight
from distbp.run.explain.words import Place


def _options(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of the equivalent layer over images."""
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


def _each(change: Callable[[Values], Values], numbers: Mapping[str, Values | None]) -> Numbers:
    return {name: None if values is None else change(values) for name, values in numbers.items()}


def _spec(spec: Spec) -> Spec:
    steps, features = spec["shape"]
    return {**spec, "type": "conv2d", "options": _options(spec["options"]), "shape": (features, 1, steps)}


def _tensors(own: Tensors) -> Tensors:
    return {name: one[:, :, np.newaxis] if name == "weight" else one for name, one in own.items()}


def _step(step: LayerStep) -> LayerStep:
    """The step of the equivalent layer over images."""
    own = _tensors({one.name: one.before for one in step.parameters})
    return replace(
        step,
        options=_options(step.options),
        inputs=(_image(step.x),),
        a=_image(step.a),
        d_a=None if step.d_a is None else _image(step.d_a),
        numbers=_each(_image, step.numbers),
        parameters=tuple(replace(one, before=own[one.name]) for one in step.parameters),
    )


def _place(place: Place) -> Place:
    t, k = place
    return k, 0, t


def _over_steps(kind: Kind, rule: str, made: Callable[[LayerStep, Place], list[str]]) -> Kind:
    """Makes a kind of layer over images into one over the steps of a sequence."""

    def forward(spec: Spec, own: Tensors, inputs: Sequence[Values]) -> Numbers:
        return _each(_sequence, kind.forward(_spec(spec), _tensors(own), [_image(inputs[0])]))

    def backward(spec: Spec, own: Tensors, inputs: Sequence[Values], numbers: Numbers, d: Values) -> Back:
        seen = _each(_image, numbers)
        back = kind.backward(_spec(spec), _tensors(own), [_image(inputs[0])], seen, _image(d))
        gradients = {name: one[:, :, 0] if name == "weight" else one for name, one in back.gradients.items()}
        return Back(_each(_sequence, back.numbers), gradients, [_sequence(d_x) for d_x in back.inputs])

    return replace(
        kind,
        forward=forward,
        backward=backward,
        rule=lambda step: rule.format(f=step.activation),
        made=made,
        hands=lambda step, which, place: kind.hands(_step(step), which, _place(place)),
    )


def _largest(step: LayerStep, place: Place) -> list[str]:
    image, there = _step(step), _place(place)
    k, _, t = images.largest_place(image, there)
    return images.largest(step, place, images.window_numbers(image, there), (t, k))


def _weights(step: LayerStep) -> Mapping[str, Weight]:
    def weight(step: LayerStep, place: Place) -> str:
        f, c, v = place
        return images.weight_terms(_step(step), (f, c, 0, v))

    def bias(step: LayerStep, place: Place) -> str:
        return images.bias_terms(_step(step), place)

    rule = "dE/dw[f, c, v] = sum over the steps of delta[t, f] * (the number there)"
    return {
        "weight": Weight("w", rule, weight),
        "bias": Weight("b", "dE/db[f] = the sum of delta over the steps", bias, "BP3"),
    }


CONVOLUTION_1D = replace(
    _over_steps(
        images.CONVOLUTION,
        "z[t, f] = sum over the window of w[f, c, v] * x + b[f],  a = {f}(z)",
        lambda step, place: images.convolved(step, place, images.window_terms(_step(step), _place(place))),
    ),
    weights=_weights,
)
MAX_POOL_1D = _over_steps(
    images.MAX_POOL, "a = the largest number of each window of steps, feature by feature", _largest
)
AVERAGE_POOL_1D = _over_steps(
    images.AVERAGE_POOL,
    "a = the average of each window of steps (padding counts as 0), feature by feature",
    lambda step, place: images.average(
        step, place, images.window_numbers(_step(step), _place(place)), step.options["kernel_size"]
    ),
)
