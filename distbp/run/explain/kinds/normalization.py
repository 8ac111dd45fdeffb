"""Batch and layer normalization (see `distbp.nn.layers.normalization`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

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
    Weight,
    one_of,
)
from distbp.run.explain.words import Place, at, plain, short, total

_OPS = {"batch_normalization": "batch_norm", "layer_normalization": "layer_norm"}
Slice = tuple[int | slice, ...]


def _features(options: Mapping[str, Any], ndim: int) -> int:
    """The axis of the features: the last axis, or that of an image's channels."""
    return int(options.get("axis", -1)) % ndim


def _axes(kind: str, options: Mapping[str, Any], ndim: int) -> tuple[int, ...]:
    """The axes of a mean: the features for layer normalization, all others for batch normalization."""
    features = _features(options, ndim)
    if kind == "layer_normalization":
        return (features,)
    return tuple(axis for axis in range(ndim) if axis != features)


def _along(values: Values, features: int, ndim: int) -> Values:
    """One number for each feature, in a shape that broadcasts along the axis of the features."""
    return values.reshape([-1 if axis == features else 1 for axis in range(ndim)])


def _by_feature(values: Values, features: int) -> Values:
    """Values as (numbers of a feature, features)."""
    return np.moveaxis(values, features, -1).reshape(-1, values.shape[features])


def _read(spec: Spec, ops: Ops) -> Numbers:
    name, shape = _OPS[spec["type"]], spec["shape"]
    normalized, root = one_of(ops.after(name, 3)), one_of(ops.after(name, 4))
    assert normalized is not None and root is not None
    over = _axes(spec["type"], spec["options"], len(shape))
    kept = [size for axis, size in enumerate(shape) if axis not in over]
    return {"normalized": normalized.reshape(shape), "root": root.reshape(kept)}


def _forward(spec: Spec, own: Tensors, inputs: Sequence[Values]) -> Numbers:
    (x,), features = inputs, _features(spec["options"], inputs[0].ndim)
    axes = _axes(spec["type"], spec["options"], x.ndim)
    mean = x.mean(axis=axes, keepdims=True)
    root = np.sqrt(((x - mean) ** 2).mean(axis=axes, keepdims=True) + spec["options"]["epsilon"])
    normalized = (x - mean) / root
    scale, shift = (_along(own[name], features, x.ndim) for name in ("scale", "shift"))
    a = scale * normalized + shift
    return {"normalized": normalized, "root": root.squeeze(axes), "a": a}


def _backward(spec: Spec, own: Tensors, inputs: Sequence[Values], numbers: Numbers, d: Values) -> Back:
    n, root = numbers["normalized"], numbers["root"]
    assert n is not None and root is not None
    axes = _axes(spec["type"], spec["options"], d.ndim)
    features = _features(spec["options"], d.ndim)
    g = d * _along(own["scale"], features, d.ndim)
    level, along = (one.mean(axis=axes, keepdims=True) for one in (g, g * n))
    gradients = {
        name: _by_feature(one, features).sum(axis=0) for name, one in (("scale", d * n), ("shift", d))
    }
    d_x = (g - level - n * along) / np.expand_dims(root, axes)
    return Back({}, gradients, [d_x])


def _group(step: LayerStep, place: Place) -> Slice:
    """The index of all numbers that share a mean with the number at a place."""
    axes = _axes(step.type, step.options, step.a.ndim)
    return tuple(slice(None) if axis in axes else one for axis, one in enumerate(place))


def _root(step: LayerStep, place: Place) -> float:
    axes = _axes(step.type, step.options, step.a.ndim)
    return float(step.get("root")[tuple(one for axis, one in enumerate(place) if axis not in axes)])


def _made(step: LayerStep, place: Place) -> list[str]:
    seen, k = step.x[_group(step, place)], place[_features(step.options, step.a.ndim)]
    x, n, mean = float(step.x[place]), float(step.get("normalized")[place]), float(np.mean(seen))
    root, scale, shift = _root(step, place), step.tensor("scale")[k], step.tensor("shift")[k]
    variance, epsilon = float(np.var(seen)), step.options["epsilon"]
    return [
        f"mean = the average of {np.size(seen)} numbers = {plain(mean)}",
        f"root = ({plain(variance)} + {epsilon:g}) ** 0.5 = {plain(root)}",
        f"n{at(place)} = ({plain(x)} - {short(mean)}) / {plain(root)} = {plain(n)}",
        f"a{at(place)} = {total([(scale, n)], [shift])} = {plain(step.a[place])}",
    ]


def _hands(step: LayerStep, which: int, place: Place) -> str:
    """dE/dx as text: (g - mean of g - n * mean of g n) / root, with g = dE/da * scale."""
    group = _group(step, place)
    g = step.get("dE_da") * _along(step.tensor("scale"), _features(step.options, step.a.ndim), step.a.ndim)
    n = step.get("normalized")
    level, along = float(np.mean(g[group])), float(np.mean((g * n)[group]))
    numbers = f"{short(float(g[place]))} - {short(level)} - {short(float(n[place]))} * {short(along)}"
    return f"({numbers}) / {plain(_root(step, place))}"


def _of_feature(step: LayerStep, name: str, place: Place) -> Values:
    """The numbers of the feature to which the scale or shift at a place belongs."""
    found: Values = _by_feature(step.get(name), _features(step.options, step.a.ndim))[:, place[0]]
    return found


def _scale(step: LayerStep, place: Place) -> str:
    return total(zip(_of_feature(step, "dE_da", place), _of_feature(step, "normalized", place), strict=True))


def _shift(step: LayerStep, place: Place) -> str:
    return total([], [float(one) for one in _of_feature(step, "dE_da", place)])


def _weights(step: LayerStep) -> Mapping[str, Weight]:
    return {
        "scale": Weight("scale", "dE/dscale[k] = the sum of dE/da * n of feature k", _scale),
        "shift": Weight("shift", "dE/dshift[k] = the sum of dE/da of feature k", _shift),
    }


def _rule(step: LayerStep) -> str:
    over = "over the features of a step" if step.a.ndim > 1 else "over the features"
    alone = False
    if step.type == "batch_normalization":
        alone = step.get("root").size == step.a.size
        over = "of this sample alone" if alone else "of a feature over the places of this sample"
    text = f"n = (x - mean) / root,  a = scale n + shift;  mean, root = sqrt(variance + epsilon) {over}"
    if alone:
        text += ", so n = 0 and nothing is handed down: in training, the rows of a slice share them"
    return text


_TABLES: Sequence[Columns] = ((("n", "normalized"), ("a", "a")),)

NORMALIZATION = Kind(
    read=_read,
    forward=_forward,
    backward=_backward,
    rule=_rule,
    tables=lambda step: _TABLES,
    made=_made,
    hands_rule=lambda step: (
        f"dE/da = (g - mean of g - n * mean of g n) / root, with g = dE/da * scale of layer {step.number}"
    ),
    hands=_hands,
    weights=_weights,
)
