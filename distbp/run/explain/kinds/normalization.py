"""Batch and layer normalization (see `distbp.nn.layers.normalization`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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


def _axes(kind: str, ndim: int) -> tuple[int, ...]:
    """Over which a mean goes: of a layer's the last, of a batch's all others."""
    return (ndim - 1,) if kind == "layer_normalization" else tuple(range(ndim - 1))


def _read(spec: Spec, ops: Ops) -> Numbers:
    name, shape = _OPS[spec["type"]], spec["shape"]
    normalized, root = one_of(ops.after(name, 3)), one_of(ops.after(name, 4))
    assert normalized is not None and root is not None
    kept = shape[-1:] if spec["type"] == "batch_normalization" else shape[:-1]
    return {"normalized": normalized.reshape(shape), "root": root.reshape(kept)}


def _forward(spec: Spec, own: Tensors, inputs: Sequence[Values]) -> Numbers:
    (x,), axes = inputs, _axes(spec["type"], inputs[0].ndim)
    mean = x.mean(axis=axes, keepdims=True)
    root = np.sqrt(((x - mean) ** 2).mean(axis=axes, keepdims=True) + spec["options"]["epsilon"])
    normalized = (x - mean) / root
    a = own["scale"] * normalized + own["shift"]
    return {"normalized": normalized, "root": root.squeeze(axes), "a": a}


def _backward(spec: Spec, own: Tensors, inputs: Sequence[Values], numbers: Numbers, d: Values) -> Back:
    n, root = numbers["normalized"], numbers["root"]
    assert n is not None and root is not None
    axes, g = _axes(spec["type"], d.ndim), d * own["scale"]
    level, along = (one.mean(axis=axes, keepdims=True) for one in (g, g * n))
    rows = (-1, d.shape[-1])
    gradients = {"scale": (d * n).reshape(rows).sum(axis=0), "shift": d.reshape(rows).sum(axis=0)}
    d_x = (g - level - n * along) / np.expand_dims(root, axes)
    return Back({}, gradients, [d_x])


def _group(step: LayerStep, place: Place) -> Slice:
    """All numbers that share a mean with the one at a place."""
    axes = _axes(step.type, step.a.ndim)
    return tuple(slice(None) if axis in axes else one for axis, one in enumerate(place))


def _root(step: LayerStep, place: Place) -> float:
    axes = _axes(step.type, step.a.ndim)
    return float(step.get("root")[tuple(one for axis, one in enumerate(place) if axis not in axes)])


def _made(step: LayerStep, place: Place) -> list[str]:
    seen, k = step.x[_group(step, place)], place[-1]
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
    """(g - mean of g - n * mean of g n) / root, with g = dE/da * scale."""
    group = _group(step, place)
    g = step.get("dE_da") * step.tensor("scale")
    n = step.get("normalized")
    level, along = float(np.mean(g[group])), float(np.mean((g * n)[group]))
    numbers = f"{short(float(g[place]))} - {short(level)} - {short(float(n[place]))} * {short(along)}"
    return f"({numbers}) / {plain(_root(step, place))}"


def _scale(step: LayerStep, place: Place) -> str:
    d, n = (step.get(name).reshape(-1, step.a.shape[-1])[:, place[0]] for name in ("dE_da", "normalized"))
    return total(zip(d, n, strict=True))


def _shift(step: LayerStep, place: Place) -> str:
    return total([], [float(one) for one in step.get("dE_da").reshape(-1, step.a.shape[-1])[:, place[0]]])


def _weights(step: LayerStep) -> Mapping[str, Weight]:
    return {
        "scale": Weight("scale", "dE/dscale[k] = the sum of dE/da * n of feature k", _scale),
        "shift": Weight("shift", "dE/dshift[k] = the sum of dE/da of feature k", _shift),
    }


def _rule(step: LayerStep) -> str:
    over = "over the features of a step" if step.a.ndim > 1 else "over the features"
    if step.type == "batch_normalization":
        over = "of a feature over the places of this sample" if step.a.ndim > 1 else "of this sample alone"
    text = f"n = (x - mean) / root,  a = scale n + shift;  mean, root = sqrt(variance + epsilon) {over}"
    if step.type == "batch_normalization" and step.a.ndim == 1:
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
