"""Computes a whole step again from the JSON of `distbp explain`, with the loops of this package."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from distbp.run.explain.kinds import KINDS
from distbp.run.explain.numbers import Numbers, Spec, Values, is_bias
from distbp.run.explain.rule_loops import clipped, loss_of, updated

Document = Mapping[str, Any]
ByLayer = dict[int, Numbers]  # by the number of the layer
Lost = dict[str, Any]  # values, E and dE_da of an output
LayerTensors = list[dict[str, Values]]  # one mapping by name for each layer


def recomputed(document: Document) -> dict[str, Any]:
    """The numbers as {"outputs": [...], "loss": ..., "layers": [...]}, with the names of the document and
    arrays in place of lists."""
    before: LayerTensors = [
        {name: np.array(one["before"], np.float64) for name, one in layer["parameters"].items()}
        for layer in document["layers"]
    ]
    found = forward(document, before)
    outputs = lost(document, found)
    gradients = backward(document, before, found, outputs)
    layers: list[dict[str, Any]] = list(found.values())
    after = _update(document, before, gradients, layers)
    fixed = [
        {name: old[name] if is_bias(name) else new[name] for name in old}
        for old, new in zip(before, after, strict=True)
    ]
    return {
        "loss": {
            "E": total(document, outputs),
            "E_after": error(document, after),
            "E_after_biases_held": error(document, fixed),
        },
        "outputs": outputs,
        "layers": layers,
    }


def error(document: Document, parameters: LayerTensors) -> float:
    """E of the sample with these parameters."""
    return total(document, lost(document, forward(document, parameters)))


def lost(document: Document, found: ByLayer) -> list[Lost]:
    """The losses, their sum, and dE/da of each output."""
    outputs: list[Lost] = []
    for spec in document["outputs"]:
        a = there(found[spec["layer"]]["a"])
        if spec["weights"] is None:
            values, d = map(np.array, loss_of(spec, a, spec["target"]))
        else:  # each step has a target
            pairs = [loss_of(spec, *one) for one in zip(a, spec["target"], strict=True)]
            values, d = (
                np.array(
                    [weight * np.array(pair[of]) for weight, pair in zip(spec["weights"], pairs, strict=True)]
                )
                for of in (0, 1)
            )
        outputs.append({"values": values, "E": math.fsum(values.ravel()), "dE_da": spec["factor"] * d})
    return outputs


def total(document: Document, outputs: Sequence[Lost]) -> float:
    """E: the sum of the losses, each times its factor."""
    pairs = zip(document["outputs"], outputs, strict=True)
    return math.fsum(spec["factor"] * one["E"] for spec, one in pairs)


def there(values: Values | None) -> Values:
    assert values is not None
    return values


def specs(document: Document) -> list[Spec]:
    """The `Spec` of each layer."""
    more = {name: document[name] for name in ("seed", "step", "steps", "past")}
    return [{**layer, **more, "shape": np.shape(layer["a"])} for layer in document["layers"]]


def _inputs(document: Document, found: ByLayer, spec: Spec) -> list[Values]:
    given = np.array(document["input"], np.float64)
    return [there(found[source]["a"]) if source in found else given for source in spec["inputs"]]


def forward(document: Document, parameters: LayerTensors) -> ByLayer:
    """The numbers of each layer's forward pass, with "a"."""
    found: ByLayer = {}
    for spec, own in zip(specs(document), parameters, strict=True):
        found[spec["number"]] = KINDS[spec["type"]].forward(spec, own, _inputs(document, found, spec))
    return found


def backward(
    document: Document, parameters: LayerTensors, found: ByLayer, outputs: Sequence[Lost]
) -> LayerTensors:
    """Adds dE/da and the other numbers of the backward pass to `found`, for layers whose output is trained.
    Returns the gradients."""
    gradients: LayerTensors = []
    told = specs(document)
    trained: dict[int, bool] = {}
    for spec, own in zip(told, parameters, strict=True):
        trained[spec["number"]] = bool(own) or any(trained.get(source) for source in spec["inputs"])
    arriving: dict[int, Values] = {
        spec["layer"]: one["dE_da"] for spec, one in zip(document["outputs"], outputs, strict=True)
    }
    for spec, own in zip(told[::-1], parameters[::-1], strict=True):
        at, numbers = spec["number"], found[spec["number"]]
        numbers["dE_da"] = None
        if not trained[at]:
            gradients.insert(0, {})
            continue
        numbers["dE_da"] = arriving[at]
        inputs = _inputs(document, found, spec)
        hands = any(trained.get(source) for source in spec["inputs"])  # whether dE/dx is needed
        back = KINDS[spec["type"]].backward({**spec, "hands": hands}, own, inputs, numbers, arriving[at])
        numbers |= back.numbers
        gradients.insert(0, back.gradients)
        for source, d in zip(spec["inputs"], back.inputs, strict=True):
            if source in found:
                arriving[source] = arriving[source] + d if source in arriving else d
    return gradients


def owner_of(layer: Spec, name: str) -> tuple[int, str]:
    """The number of the layer that owns a tensor, and the tensor's name."""
    return layer["parameters"][name].get("owner", layer["number"]), name


def _update(
    document: Document, before: LayerTensors, gradients: LayerTensors, found: list[dict[str, Any]]
) -> LayerTensors:
    """Returns the parameters after the step. Adds them and the optimizer's state to `found`."""
    spec = document["optimizer"]

    def held(name: str) -> bool:
        return bool(document["hold_biases"]) and is_bias(name)

    sums: dict[tuple[int, str], Values] = {}  # the gradients, summed over layers that share a tensor
    for at, name, part in ((at, *one) for at, own in enumerate(gradients) for one in own.items()):
        key = owner_of(document["layers"][at], name)
        sums[key] = sums[key] + part if key in sums else part
    used = clipped(spec, {key: np.zeros_like(g) if held(key[1]) else g for key, g in sums.items()})
    after: LayerTensors = [{} for _ in before]
    for at, layer in enumerate(document["layers"]):
        found[at]["parameters"] = {}
        for name, one in layer["parameters"].items():
            key = owner_of(layer, name)
            w, g = before[at][name], used[key]
            old = {slot: np.array(values, np.float64) for slot, values in one["state_before"].items()}
            new, state = np.zeros_like(w), {slot: np.zeros_like(w) for slot in old}
            own = {**spec, "learning_rate": spec["learning_rate"] * one["rate"]}
            for place in np.ndindex(*w.shape):
                states = {slot: float(values[place]) for slot, values in old.items()}
                new[place], states = updated(own, float(w[place]), float(g[place]), states, one["decays"])
                for slot in state:
                    state[slot][place] = states[slot]
            after[at][name] = w.copy() if held(name) else new
            found[at]["parameters"][name] = {
                "dE_dw": sums[key],
                "part": gradients[at][name],
                "update": after[at][name] - w,
                "after": after[at][name],
                "state_after": state,
            }
    return after
