"""A whole step computed again from the JSON of `distbp explain`, by the loops beside this file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from distbp.run.explain.loops import (
    Layer,
    Numbers,
    Values,
    activate,
    dense,
    dense_back,
    elman,
    elman_back,
    slope,
    through,
)
from distbp.run.explain.rule_loops import clipped, loss_of, updated
from distbp.run.explain.window_loops import convolution, convolution_back, pool, pool_back

POOLS = ("max_pool2d", "average_pool2d")
RESHAPES = ("flatten", "reshape")

Document = Mapping[str, Any]
Tensors = list[dict[str, Values]]  # of each layer, by name


def recomputed(document: Document) -> dict[str, Any]:
    """{"loss": ..., "layers": [...]} with the names of the document, and arrays in place of lists."""
    layers: Sequence[Layer] = document["layers"]
    before: Tensors = [
        {name: np.array(one["before"], np.float64) for name, one in layer["parameters"].items()}
        for layer in layers
    ]
    x = np.array(document["input"], np.float64)
    found = forward(layers, before, x)
    losses, d_y = loss_of(document["loss"], found[-1]["a"], document["target"])
    gradients = backward(layers, before, found, np.array(d_y))
    after = _update(document, before, gradients, found)
    fixed = [
        {name: old[name] if name == "bias" else new[name] for name in old}
        for old, new in zip(before, after, strict=True)
    ]
    return {
        "loss": {
            "values": losses,
            "E": math.fsum(losses),
            "E_after": error(document, after),
            "E_after_biases_held": error(document, fixed),
        },
        "layers": found,
    }


def error(document: Document, parameters: Tensors) -> float:
    """E of the sample with other parameters."""
    outputs = forward(document["layers"], parameters, np.array(document["input"], np.float64))[-1]["a"]
    return math.fsum(loss_of(document["loss"], outputs, document["target"])[0])


def forward(layers: Sequence[Layer], parameters: Tensors, x: Values) -> list[Numbers]:
    """For each layer its inputs, z, states and a; None where it has none."""
    found: list[Numbers] = []
    for layer, own in zip(layers, parameters, strict=True):
        numbers: Numbers = {"inputs": x, "z": None, "states": None}
        shape = np.array(layer["a"]).shape
        if layer["type"] == "dense":
            numbers["z"] = dense(own["weight"], own["bias"], x)
        elif layer["type"] == "conv2d":
            numbers["z"] = convolution(layer["options"], own["weight"], own["bias"], x, shape)
        elif layer["type"] == "elman":
            z, h = elman(own["weight"], own["recurrent_weight"], own["bias"], x, layer)
            numbers |= {"z": z, "states": h, "a": h if layer["options"]["return_sequences"] else h[-1]}
        elif layer["type"] in POOLS:
            numbers["a"] = pool(layer["type"], layer["options"], x, shape)
        elif layer["type"] in RESHAPES:
            numbers["a"] = x.reshape(shape)
        else:
            numbers["z"] = x
        if "a" not in numbers:
            numbers["a"] = activate(layer, numbers["z"])
        found.append(numbers)
        x = numbers["a"]
    return found


def backward(layers: Sequence[Layer], parameters: Tensors, found: list[Numbers], d_y: Values) -> Tensors:
    """Adds f', dE/da and delta to what the forward pass found, where something below is trained. Returns the
    gradients. d_y: dE/da of the last layer."""
    gradients: Tensors = [{} for _ in layers]
    d: Values = d_y
    for at in reversed(range(len(layers))):
        layer, own, numbers = layers[at], parameters[at], found[at]
        x, z, a = numbers["inputs"], numbers["z"], numbers["a"]
        numbers |= {"dE_da": None, "delta": None, "f_prime": None, "dE_dstates": None}
        if not any(parameters[: at + 1]):
            continue
        numbers["dE_da"] = d
        if z is not None:
            numbers["f_prime"] = slope(layer, z)
        if layer["type"] == "elman":
            handed_on = np.zeros_like(z)
            handed_on[slice(None) if layer["options"]["return_sequences"] else -1] = d
            states = numbers["states"]
            back = elman_back(own["weight"], own["recurrent_weight"], x, z, states, handed_on, layer)
            numbers["dE_dstates"], numbers["delta"], gradients[at], d = back
            continue
        if z is not None:
            numbers["delta"] = d = through(layer, z, a, d)
        if layer["type"] == "dense":
            gradients[at], d = dense_back(own["weight"], x, d)
        elif layer["type"] == "conv2d":
            gradients[at], d = convolution_back(layer["options"], own["weight"], x, d)
        elif layer["type"] in POOLS:
            d = pool_back(layer["type"], layer["options"], x, d)
        elif layer["type"] in RESHAPES:
            d = d.reshape(x.shape)
    return gradients


def _update(document: Document, before: Tensors, gradients: Tensors, found: list[Numbers]) -> Tensors:
    """The parameters after the step; adds them, and the state, to what was found."""
    spec = document["optimizer"]

    def held(name: str) -> bool:
        return bool(document["hold_biases"]) and name == "bias"

    used = clipped(
        spec,
        {
            (at, name): np.zeros_like(g) if held(name) else g
            for at, own in enumerate(gradients)
            for name, g in own.items()
        },
    )
    after: Tensors = [{} for _ in before]
    for at, layer in enumerate(document["layers"]):
        found[at]["parameters"] = {}
        for name, one in layer["parameters"].items():
            w, g = before[at][name], used[at, name]
            old = {slot: np.array(values, np.float64) for slot, values in one["state_before"].items()}
            new, state = np.zeros_like(w), {slot: np.zeros_like(w) for slot in old}
            for place in np.ndindex(*w.shape):
                states = {slot: float(values[place]) for slot, values in old.items()}
                new[place], states = updated(spec, float(w[place]), float(g[place]), states, one["decays"])
                for slot in state:
                    state[slot][place] = states[slot]
            after[at][name] = w.copy() if held(name) else new
            found[at]["parameters"][name] = {
                "dE_dw": gradients[at][name],
                "update": after[at][name] - w,
                "after": after[at][name],
                "state_after": state,
            }
    return after
