"""The update of a step in words, with its numbers. g is dE/dw after clipping, penalties and coupled decay."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from distbp.run.explain.numbers import Parameter, is_bias
from distbp.run.explain.words import plain

if TYPE_CHECKING:
    from distbp.run.explain.explanation import Explanation


def rule_of(found: Explanation) -> list[str]:
    """The lines of the rule for tensors that decay and have no factor on the learning rate."""
    spec, rate = found.optimizer, plain(found.learning_rate)
    made = _gradient(found)
    kept = "w"
    if spec["type"] == "adamw" and (decay := _decay(found)):
        kept = f"(1 - {rate} * {plain(decay)}) w"
    if spec["type"] == "sgd":
        return [made, f"w <- w - {rate} g"] if made else [f"w <- w - {rate} * dE/dw"]
    return [made or "g = dE/dw", *_RULES[spec["type"]](spec, rate, kept, found.update)]


def of_tensor(found: Explanation, one: Parameter) -> str:
    """How the rule differs for one tensor, in brackets; "" if it does not."""
    words = ["held"] if found.hold_biases and is_bias(one.name) else []
    words += [f"learning rate times {plain(one.rate)}"] if one.rate != 1 else []
    words += ["without decay"] if not one.decays and (any(found.penalties.values()) or _decay(found)) else []
    return f"({', '.join(words)})" if words else ""


def _decay(found: Explanation) -> float:
    return float(found.optimizer.get("weight_decay", 0.0)) * float(found.optimizer["decay_factor"])


def _gradient(found: Explanation) -> str:
    """The formula of g; "" if it is just dE/dw. It has clipping first, then penalties and decay."""
    norm, value = found.clip["norm"], found.clip["value"]
    text = "dE/dw"
    if norm is not None:
        length = _length(found)
        text = f"{plain(min(1.0, norm / (length + 1e-6)))} dE/dw (all dE/dw have the norm {plain(length)})"
    if value is not None:
        text += f" cut to {plain(-value)} ... {plain(value)}"
    coupled = 0.0 if found.optimizer["type"] == "adamw" else _decay(found)
    for size, what in ((found.penalties["l2"] + coupled, "w"), (found.penalties["l1"], "sign(w)")):
        text += f" + {plain(size)} {what}" if size else ""
    return "" if text == "dE/dw" else f"g = {text}"


def _length(found: Explanation) -> float:
    """The joint norm of all gradients. Each tensor counts once; held biases count as 0."""
    tensors = {(layer.number if p.owner is None else p.owner, p.name): p for layer in found.layers
               for p in layer.parameters}  # fmt: skip
    trained = [p for p in tensors.values() if not (found.hold_biases and is_bias(p.name))]
    return math.sqrt(math.fsum(float(np.sum(p.gradient**2)) for p in trained))


Rule = list[str]


def _momentum(spec: Mapping[str, Any], rate: str, kept: str, update: int) -> Rule:
    mu, nesterov = plain(spec["momentum"]), spec["type"] == "nesterov"
    if spec["convention"] == "keras":  # the engine keeps b = -v
        return [f"b <- {mu} b + {rate} g", "w <- w - " + (f"({rate} g + {mu} b)" if nesterov else "b")]
    return [f"b <- {mu} b + g", f"w <- w - {rate} " + (f"(g + {mu} b)" if nesterov else "b")]


def _adagrad(spec: Mapping[str, Any], rate: str, kept: str, update: int) -> Rule:
    return ["s <- s + g^2", f"w <- w - {rate} g / (sqrt(s) + {spec['epsilon']:g})"]


def _rmsprop(spec: Mapping[str, Any], rate: str, kept: str, update: int) -> Rule:
    old, new = plain(spec["decay"]), plain(1 - spec["decay"])
    lines, root = [f"v <- {old} v + {new} g^2"], "sqrt(v)"
    if spec["centered"]:
        lines.append(f"e <- {old} e + {new} g")
        root = "sqrt(v - e^2)"
    step = f"g / ({root} + {spec['epsilon']:g})"
    if spec["momentum"]:
        return [*lines, f"b <- {plain(spec['momentum'])} b + {step}", f"w <- w - {rate} b"]
    return [*lines, f"w <- w - {rate} {step}"]


def _adam(spec: Mapping[str, Any], rate: str, kept: str, update: int) -> Rule:
    olds = spec["beta1"], spec["beta2"]
    lines = [
        f"{letter} <- {plain(old)} {letter} + {plain(1 - old)} {g}"
        for letter, old, g in zip("mv", olds, ("g", "g^2"), strict=True)
    ]
    m, v = (f"(1 - {plain(old)}^{update})" for old in olds)
    if spec["epsilon_hat"]:
        step = f"m sqrt{v} / {m} / (sqrt(v) + {spec['epsilon']:g})"
    else:
        step = f"m / {m} / (sqrt(v / {v}) + {spec['epsilon']:g})"
    return [*lines, f"w <- {kept} - {rate} {step}"]


_RULES = {
    "momentum": _momentum,
    "nesterov": _momentum,
    "adagrad": _adagrad,
    "rmsprop": _rmsprop,
    "adam": _adam,
    "adamw": _adam,
}
