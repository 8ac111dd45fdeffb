"""Dense layers, on a sample or on each step, and activations as layers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from distbp.run.explain.loops import activate, dense, dense_back, slope, through
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
    arriving,
)
from distbp.run.explain.words import Place, at, plain, short, total

SOFTMAX_BACK = "delta[j] = a[j] (dE/da[j] - sum over i of dE/da[i] a[i])   (softmax)"


def activated(spec: Spec, ops: Ops) -> dict[str, list[Values]]:
    """z, a, f'(z), dE/da and delta of all ops of the layer's activation, in order."""
    name, back = spec["activation"], f"{spec['activation']}_backward"
    pairs = zip(ops.before(name, 0), ops.before(name, 1), strict=True)
    return {
        "z": [x + bias if bias.size else x for x, bias in pairs],
        "a": ops.after(name, 2),
        "f_prime": [] if name == "softmax" else ops.slopes(back),
        "dE_da": ops.before(back, 2),
        "delta": ops.after(back, 2),
    }


def read(spec: Spec, ops: Ops) -> Numbers:
    found = activated(spec, ops)
    names = ("z", "f_prime", "delta")
    return {name: found[name][0].reshape(spec["shape"]) if found[name] else None for name in names}


def _columns(step: LayerStep) -> Sequence[Columns]:
    columns = (("z", "z"), ("a", "a"), ("f'(z)", "f_prime"))
    return (columns if step.has("f_prime") else columns[:2],)


def _back_columns(step: LayerStep) -> Sequence[Columns]:
    columns = (("dE/da", "dE_da"), ("f'(z)", "f_prime"), ("delta", "delta"))
    return (columns if step.has("f_prime") else columns[::2],)


def _delta_rule(step: LayerStep) -> Sequence[str]:
    return ("delta = dE/da * f'(z)" if step.has("f_prime") else SOFTMAX_BACK,)


def _delta_of(step: LayerStep, place: Place, from_above: Callable[[Place], str]) -> list[str]:
    name, delta, first = at(place), plain(step.get("delta")[place]), arriving(step, place, from_above)
    if not step.has("f_prime"):
        return [*first, f"delta{name} = {delta}"]
    factors = [short(float(step.get(one)[place])) for one in ("dE_da", "f_prime")]
    return [*first, f"delta{name} = {' * '.join(factors)} = {delta}"]


def after(step: LayerStep, place: Place) -> str:
    z, a = plain(step.get("z")[place]), plain(step.a[place])
    return f"a{at(place)} = {step.activation}({z}) = {a}"


def below(step: LayerStep) -> str:
    return f"BP2  dE/da = W^T delta of layer {step.number}"


# A `Kind` with the fields that layers with an activation share.
activating = partial(
    Kind,
    read=read,
    back_rules=_delta_rule,
    tables=_columns,
    back_tables=_back_columns,
    brought=_delta_of,
    drawn=lambda step: ("a", "delta"),
)


# Dense ------------------------------------------------------------------------------------------------


def _factor(options: Mapping[str, Any], x: Values) -> float:
    """The factor on the inputs."""
    return 1 / math.sqrt(x.shape[-1]) if options.get("parametrization") == "ntk" else 1.0


def _below(step: LayerStep) -> str:
    factor = _factor(step.options, step.x)
    return below(step) if factor == 1 else f"{below(step)}, times {short(factor)}"


def _inputs(step: LayerStep) -> Values:
    return step.x * _factor(step.options, step.x)


def _forward(spec: Spec, own: Tensors, inputs: Sequence[Values]) -> Numbers:
    rows = inputs[0].reshape(-1, inputs[0].shape[-1]) * _factor(spec["options"], inputs[0])
    z = np.array([dense(own["weight"], own["bias"], row) for row in rows]).reshape(spec["shape"])
    return {"z": z, "a": activate(spec, z)}


def _backward(spec: Spec, own: Tensors, inputs: Sequence[Values], numbers: Numbers, d: Values) -> Back:
    z, a = numbers["z"], numbers["a"]
    assert z is not None and a is not None
    delta, units = through(spec, z, a, d), len(own["bias"])
    factor = _factor(spec["options"], inputs[0])
    rows = inputs[0].reshape(-1, inputs[0].shape[-1]) * factor
    found = [dense_back(own["weight"], x, one) for x, one in zip(rows, delta.reshape(-1, units), strict=True)]
    gradients = {name: sum((g[name] for g, _ in found[1:]), found[0][0][name]) for name in own}
    d_x = factor * np.array([dx for _, dx in found]).reshape(inputs[0].shape)
    return Back({"f_prime": slope(spec, z), "delta": delta}, gradients, [d_x])


def _made(step: LayerStep, place: Place) -> list[str]:
    *row, j = place
    terms = total(
        zip(step.tensor("weight")[j], _inputs(step)[tuple(row)], strict=True), [step.tensor("bias")[j]]
    )
    return [f"z{at(place)} = {terms} = {plain(step.get('z')[place])}", after(step, place)]


def _hands(step: LayerStep, which: int, place: Place) -> str:
    *row, k = place
    w = step.tensor("weight")[:, k] * _factor(step.options, step.x)
    return total(zip(w, step.get("delta")[tuple(row)], strict=True))


def _weight(step: LayerStep, place: Place) -> str:
    j, k = place
    if step.a.ndim > 1:
        return total(zip(step.get("delta")[:, j], _inputs(step)[:, k], strict=True))
    delta = [step.get("delta")[j]]
    factors = [step.get("dE_da")[j], step.get("f_prime")[j]] if step.has("f_prime") else delta
    return " * ".join(short(float(v)) for v in [*factors, _inputs(step)[k]])


def _bias(step: LayerStep, place: Place) -> str:
    return total([], [float(v) for v in step.get("delta").reshape(-1, step.a.shape[-1])[:, place[0]]])


def _weights(step: LayerStep) -> Mapping[str, Weight]:
    if step.a.ndim > 1:
        rule = "dE/dw[j, k] = sum over the steps of delta[t, j] * x[t, k]"
        return {
            "weight": Weight("w", rule, _weight),
            "bias": Weight("b", "dE/db[j] = the sum of delta over the steps", _bias, "BP3"),
        }
    rule = "dE/dw[j, k] = dE/da[j] * da/dz[j] * dz/dw[j, k] = delta[j] * x[k]"
    return {"weight": Weight("w", rule, _weight), "bias": Weight("b", "dE/db = delta", _bias, "BP3")}


def _rule(step: LayerStep) -> str:
    at_step = "t, " if step.a.ndim > 1 else ""
    text = f"z[{at_step}j] = sum over k of w[j, k] * x[{at_step}k] + b[j],  a = {step.activation}(z)"
    ntk = step.options.get("parametrization") == "ntk"
    return f"{text};  x are the inputs times {plain(_factor(step.options, step.x))}" if ntk else text


DENSE = activating(
    forward=_forward,
    backward=_backward,
    rule=_rule,
    made=_made,
    hands_rule=_below,
    hands=_hands,
    weights=_weights,
)


# Activations ------------------------------------------------------------------------------------------


def _activate_back(spec: Spec, own: Tensors, inputs: Sequence[Values], numbers: Numbers, d: Values) -> Back:
    a = numbers["a"]
    assert a is not None
    delta = through(spec, inputs[0], a, d)
    return Back({"f_prime": slope(spec, inputs[0]), "delta": delta}, {}, [delta])


def _taken(step: LayerStep) -> str:
    (source,) = step.sources
    return "the input" if source < 0 else f"the output of layer {source}"


ACTIVATION = activating(
    forward=lambda spec, own, inputs: {"z": inputs[0], "a": activate(spec, inputs[0])},
    backward=_activate_back,
    rule=lambda step: f"a = {step.activation}(z), z {_taken(step)}",
    made=lambda step, place: [after(step, place)],
    hands_rule=lambda step: f"dE/da = delta of layer {step.number}",
    hands=lambda step, which, place: short(float(step.get("delta")[place])),
)
