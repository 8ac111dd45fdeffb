"""Layers with a number for each feature, and periodic embeddings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from distbp.run.explain.loops import activate, slope, through
from distbp.run.explain.numbers import (
    Back,
    Kind,
    LayerStep,
    Numbers,
    Ops,
    Spec,
    Tensors,
    Values,
    Weight,
    one_of,
    unread,
)
from distbp.run.explain.words import Place, at, plain, short, total


def _of_feature(values: Values, k: int) -> Values:
    """All numbers of feature k."""
    return values.reshape(-1, values.shape[-1])[:, k]


# Scale ------------------------------------------------------------------------------------------------


def _scale_back(spec: Spec, own: Tensors, inputs: Sequence[Values], numbers: Numbers, d: Values) -> Back:
    found = (d * inputs[0]).reshape(-1, d.shape[-1]).sum(axis=0)
    return Back({}, {"scale": found}, [d * own["scale"]])


def _scale_weight(step: LayerStep, place: Place) -> str:
    return total(zip(_of_feature(step.get("dE_da"), place[0]), _of_feature(step.x, place[0]), strict=True))


SCALE = Kind(
    read=unread,
    forward=lambda spec, own, inputs: {"a": inputs[0] * own["scale"]},
    backward=_scale_back,
    rule=lambda step: "a = scale[k] x, with one factor for each feature k",
    made=lambda step, place: [
        f"a{at(place)} = {total([(step.tensor('scale')[place[-1]], step.x[place])])} = {plain(step.a[place])}"
    ],
    hands_rule=lambda step: f"dE/da = dE/da * scale[k] of layer {step.number}",
    hands=lambda step, which, place: total([(step.get("dE_da")[place], step.tensor("scale")[place[-1]])]),
    weights=lambda step: {
        "scale": Weight("scale", "dE/dscale[k] = the sum of dE/da * x of feature k", _scale_weight)
    },
)


# Parametric activations -------------------------------------------------------------------------------


def _named(spec: Spec) -> Spec:
    return {**spec, "activation": spec["options"]["function"]}


def _blend_read(spec: Spec, ops: Ops) -> Numbers:
    name = spec["options"]["function"]
    f, slopes = one_of(ops.after(name, 2)), one_of(ops.slopes(f"{name}_backward"))
    assert f is not None
    return {
        "f": f.reshape(spec["shape"]),
        "f_prime": None if slopes is None else slopes.reshape(spec["shape"]),
    }


def _blend(spec: Spec, own: Tensors, inputs: Sequence[Values]) -> Numbers:
    f = activate(_named(spec), inputs[0])
    return {"f": f, "a": inputs[0] + own["alpha"] * (f - inputs[0])}


def _blend_back(spec: Spec, own: Tensors, inputs: Sequence[Values], numbers: Numbers, d: Values) -> Back:
    (x,), f, alpha = inputs, numbers["f"], own["alpha"]
    assert f is not None
    found = (d * (f - x)).reshape(-1, d.shape[-1]).sum(axis=0)
    d_x = d * (1 - alpha) + through(_named(spec), x, f, d * alpha)
    slopes = slope(_named(spec), x) if spec["hands"] else None
    return Back({"f_prime": slopes}, {"alpha": found}, [d_x])


def _blended(step: LayerStep, place: Place) -> list[str]:
    x, f, alpha = (
        float(one) for one in (step.x[place], step.get("f")[place], step.tensor("alpha")[place[-1]])
    )
    name = step.options["function"]
    return [
        f"f{at(place)} = {name}({plain(x)}) = {plain(f)}",
        f"a{at(place)} = {short(x)} + {short(alpha)} * ({plain(f)} - {short(x)}) = {plain(step.a[place])}",
    ]


def _blend_hands(step: LayerStep, which: int, place: Place) -> str:
    alpha, d = float(step.tensor("alpha")[place[-1]]), float(step.get("dE_da")[place])
    slope_here = float(step.get("f_prime")[place])
    return f"{short(d)} * (1 - {short(alpha)} + {short(alpha)} * {short(slope_here)})"


def _alpha(step: LayerStep, place: Place) -> str:
    d, f, x = (_of_feature(one, place[0]) for one in (step.get("dE_da"), step.get("f"), step.x))
    return total(zip(d, f - x, strict=True))


PARAMETRIC = Kind(
    read=_blend_read,
    forward=_blend,
    backward=_blend_back,
    rule=lambda step: (
        f"a = x + alpha[k] (f - x), with f = {step.options['function']}(x) and one alpha a feature"
    ),
    tables=lambda step: ((("f", "f"), ("a", "a")),),
    made=_blended,
    hands_rule=lambda step: f"dE/da = dE/da (1 - alpha[k] + alpha[k] f'(x)) of layer {step.number}",
    hands=_blend_hands,
    weights=lambda step: {
        "alpha": Weight("alpha", "dE/dalpha[k] = the sum of dE/da (f - x) of feature k", _alpha)
    },
)


# Periodic embeddings ----------------------------------------------------------------------------------


def _angles(own: Tensors, x: Values) -> Values:
    """The angles, (numbers, frequencies)."""
    return 2 * math.pi * x[:, None] * own["frequency"] + own["phase"]


def _split(values: Values, numbers: int) -> tuple[Values, Values]:
    """Splits the layer's values into the numbers themselves and the embedding of each."""
    return values[:numbers], values[numbers:].reshape(numbers, -1)


def _cosines_read(spec: Spec, ops: Ops) -> Numbers:
    kept = one_of(ops.after("periodic", 6))
    assert kept is not None
    return {"cosines": kept.reshape(-1, 2, spec["options"]["frequencies"])[:, 0]}


def periodic(spec: Spec, own: Tensors, inputs: Sequence[Values]) -> Numbers:
    (x,) = inputs
    cosines = np.cos(_angles(own, x))
    beside = [w @ c + b for w, c, b in zip(own["weight"], cosines, own["bias"], strict=True)]
    return {"cosines": cosines, "a": np.concatenate([x, *beside])}


def periodic_back(spec: Spec, own: Tensors, inputs: Sequence[Values], numbers: Numbers, d: Values) -> Back:
    (x,), cosines = inputs, numbers["cosines"]
    assert cosines is not None
    d_x, dz = _split(d, len(x))
    d_angle = -np.sin(_angles(own, x)) * np.einsum("nm,nmk->nk", dz, own["weight"])
    gradients = {
        "frequency": 2 * math.pi * x[:, None] * d_angle,
        "phase": d_angle,
        "weight": dz[:, :, None] * cosines[:, None],
        "bias": dz,
    }
    return Back({}, gradients, [d_x + 2 * math.pi * (d_angle * own["frequency"]).sum(axis=1)])


def _periodic_made(step: LayerStep, place: Place) -> list[str]:
    (j,), numbers = place, len(step.x)
    if j < numbers:
        return [f"a{at(place)} = x{at(place)} = {plain(step.a[place])}"]
    n, m = divmod(j - numbers, step.tensor("bias").shape[1])
    terms = total(
        zip(step.tensor("weight")[n, m], step.get("cosines")[n], strict=True), [step.tensor("bias")[n, m]]
    )
    return [f"a{at(place)} = {terms} = {plain(step.a[place])}"]


def _slopes(step: LayerStep, n: int) -> Values:
    """dE/dangle of number n."""
    own = {name: step.tensor(name) for name in ("frequency", "phase", "weight")}
    dz = _split(step.get("dE_da"), len(step.x))[1][n]
    found: Values = -np.sin(_angles(own, step.x))[n] * (dz @ own["weight"][n])
    return found


def _periodic_hands(step: LayerStep, which: int, place: Place) -> str:
    n = place[0]
    turned = 2 * math.pi * step.tensor("frequency")[n]
    return total(zip(turned, _slopes(step, n), strict=True), [float(step.get("dE_da")[n])])


def _beside(step: LayerStep, n: int, m: int) -> float:
    return float(_split(step.get("dE_da"), len(step.x))[1][n, m])


def _periodic_weights(_: LayerStep) -> Mapping[str, Weight]:
    return {
        "frequency": Weight(
            "f",
            "dE/df[n, k] = 2 pi x[n] * dE/dangle[n, k],  dE/dangle = -sin(angle) * (W^T dE/da)",
            lambda step, place: total([(2 * math.pi * step.x[place[0]], _slopes(step, place[0])[place[1]])]),
        ),
        "phase": Weight(
            "phase",
            "dE/dphase[n, k] = dE/dangle[n, k]",
            lambda step, place: short(float(_slopes(step, place[0])[place[1]])),
        ),
        "weight": Weight(
            "w",
            "dE/dw[n, m, k] = dE/da[m of n] * cos(angle[n, k])",
            lambda step, place: total([(_beside(step, *place[:2]), step.get("cosines")[place[0], place[2]])]),
        ),
        "bias": Weight(
            "b", "dE/db[n, m] = dE/da[m of n]", lambda step, place: short(_beside(step, *place)), "BP3"
        ),
    }


PERIODIC = Kind(
    read=_cosines_read,
    forward=periodic,
    backward=periodic_back,
    rule=lambda step: (
        "a = x, and beside each x[n] the sums over k of"
        " w[n, m, k] cos(2 pi f[n, k] x[n] + phase[n, k]) + b[n, m]"
    ),
    made=_periodic_made,
    hands_rule=lambda step: (
        "dE/da = dE/da of the number itself + the sum over k of"
        f" 2 pi f[n, k] dE/dangle[n, k] of layer {step.number}"
    ),
    hands=_periodic_hands,
    weights=_periodic_weights,
)
