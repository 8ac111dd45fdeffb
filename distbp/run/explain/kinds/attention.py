"""Attention: scores, their softmax, weighted sums (see `distbp.nn.layers.attention`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

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
    arriving,
    first_steps,
    one_of,
)
from distbp.run.explain.words import Place, at, plain, short, total

_PARTS = ("queries", "keys", "values")
_WEIGHTS = {"in_proj_weight": "w_in", "out_proj_weight": "w_out"}
_BIASES = {"in_proj_bias": "b_in", "out_proj_bias": "b_out"}


def _read(spec: Spec, ops: Ops) -> Numbers:
    (steps, _), heads = spec["shape"], spec["options"]["heads"]
    back = "attention_backward"
    qkv, d_qkv = one_of(ops.after("attention", 0)), one_of(ops.after(back, 4))
    shares, mixed = one_of(ops.after("attention", 1)), one_of(ops.after("attention", 2))
    assert qkv is not None and shares is not None
    d_mixed = one_of(ops.before(back, 2))
    found: Numbers = dict(zip(_PARTS, np.split(qkv, 3, axis=1), strict=True))
    found |= {"shares": shares.reshape(heads, steps, steps), "mixed": mixed, "dE_dmixed": d_mixed}
    parts = [None] * 3 if d_qkv is None else np.split(d_qkv, 3, axis=1)
    return {**found, **{f"dE_d{name}": part for name, part in zip(_PARTS, parts, strict=True)}}


def _ended(numbers: Numbers, length: int) -> Numbers:
    """Like `first_steps`; the shares are cut along both axes of steps."""
    shares = numbers["shares"]
    assert shares is not None
    return {**first_steps(numbers, length), "shares": shares[:, :length, :length]}


def _cut(values: Values, heads: int) -> Values:
    """Splits values (steps, units) into heads: (heads, steps, size)."""
    steps, units = values.shape
    return values.reshape(steps, heads, units // heads).transpose(1, 0, 2)


def _joined(values: Values) -> Values:
    heads, steps, size = values.shape
    return values.transpose(1, 0, 2).reshape(steps, heads * size)


def _forward(spec: Spec, own: Tensors, inputs: Sequence[Values]) -> Numbers:
    (x,), heads = inputs, spec["options"]["heads"]
    qkv = x @ own["in_proj_weight"].T + own.get("in_proj_bias", 0.0)
    queries, keys, values = np.split(qkv, 3, axis=1)
    q, k, v = (_cut(one, heads) for one in (queries, keys, values))
    shares = np.zeros((heads, len(x), len(x)))
    for h, i in np.ndindex(heads, len(x)):
        sees = i + 1 if spec["options"]["causal"] else len(x)
        scores = np.array([q[h, i] @ k[h, j] for j in range(sees)]) / np.sqrt(q.shape[2])
        powers = np.exp(scores - scores.max())
        shares[h, i, :sees] = powers / powers.sum()
    mixed = _joined(np.array([shares[h] @ v[h] for h in range(heads)]))
    a = mixed @ own["out_proj_weight"].T + own.get("out_proj_bias", 0.0)
    return {"queries": queries, "keys": keys, "values": values, "shares": shares, "mixed": mixed, "a": a}


def _backward(spec: Spec, own: Tensors, inputs: Sequence[Values], numbers: Numbers, d: Values) -> Back:
    (x,), heads = inputs, spec["options"]["heads"]
    seen = {name: one for name, one in numbers.items() if one is not None}
    q, k, v = (_cut(seen[name], heads) for name in _PARTS)
    d_mixed = d @ own["out_proj_weight"]
    d_q, d_k, d_v = (np.zeros_like(one) for one in (q, k, v))
    for h, dy in enumerate(_cut(d_mixed, heads)):
        p = seen["shares"][h]
        d_p = dy @ v[h].T
        d_s = p * (d_p - (p * d_p).sum(axis=1, keepdims=True)) / np.sqrt(q.shape[2])
        d_q[h], d_k[h], d_v[h] = d_s @ k[h], d_s.T @ q[h], p.T @ dy
    parts = [_joined(one) for one in (d_q, d_k, d_v)]
    d_qkv = np.concatenate(parts, axis=1)
    gradients = {
        "in_proj_weight": d_qkv.T @ x, "in_proj_bias": d_qkv.sum(axis=0),
        "out_proj_weight": d.T @ seen["mixed"], "out_proj_bias": d.sum(axis=0),
    }  # fmt: skip
    found: Numbers = {"dE_dmixed": d_mixed}
    found |= {f"dE_d{name}": part for name, part in zip(_PARTS, parts, strict=True)}
    return Back(found, {name: gradients[name] for name in own}, [d_qkv @ own["in_proj_weight"]])


# Told -------------------------------------------------------------------------------------------------


def _bias(step: LayerStep, name: str, row: int) -> list[float]:
    return [float(p.before[row]) for p in step.parameters if p.name == name]


def _d_inner(step: LayerStep) -> Values:
    return np.concatenate([step.get(f"dE_d{name}") for name in _PARTS], axis=1)


def _made(step: LayerStep, place: Place) -> list[str]:
    """Lines for the unit of one step: its query, a score, its share, the weighted sum, the output."""
    (t, j), heads = place, step.options["heads"]
    units = step.a.shape[1]
    size = units // heads
    h, first = j // size, j // size * size
    q, k, v, p = (step.get(name) for name in (*_PARTS, "shares"))
    within = slice(first, first + size)
    score = float(q[t, within] @ k[0, within]) / float(np.sqrt(size))
    row = step.tensor("in_proj_weight")[j]
    query = total(zip(row, step.x[t], strict=True), _bias(step, "in_proj_bias", j))
    y = total(
        zip(step.tensor("out_proj_weight")[j], step.get("mixed")[t], strict=True),
        _bias(step, "out_proj_bias", j),
    )
    return [
        f"q{at(place)} = {query} = {plain(q[t, j])}",
        f"score of step {t} with step 0, head {h} = q . k / sqrt({size}) ="
        f" ({total(zip(q[t, within], k[0, within], strict=True))}) / {plain(size**0.5)} = {plain(score)}",
        f"P{at((h, t, 0))} = softmax of the scores of step {t} = {plain(p[h, t, 0])}",
        f"m{at(place)} = {total(zip(p[h, t], v[:, j], strict=True))} = {plain(step.get('mixed')[t, j])}",
        f"a{at(place)} = {y} = {plain(step.a[place])}",
    ]


def _brought(step: LayerStep, place: Place, from_above: Callable[[Place], str]) -> list[str]:
    (t, j), heads = place, step.options["heads"]
    size = step.a.shape[1] // heads
    h, first = j // size, j // size * size
    k, v, p = (step.get(name) for name in ("keys", "values", "shares"))
    within, d = slice(first, first + size), step.get("dE_dmixed")
    d_p = v[:, within] @ d[t, within]
    mean = float(p[h, t] @ d_p)
    d_s = p[h, t] * (d_p - mean) / np.sqrt(size)
    d_v, d_q = (plain(step.get(name)[place]) for name in ("dE_dvalues", "dE_dqueries"))
    into = total(zip(step.tensor("out_proj_weight")[:, j], step.get("dE_da")[t], strict=True))
    return [
        *arriving(step, place, from_above),
        f"dE/dm{at(place)} = {into} = {plain(d[t, j])}",
        f"dE/dv{at(place)} = {total(zip(p[h, :, t], d[:, j], strict=True))} = {d_v}",
        f"dE/dP{at((h, t, 0))} = {total(zip(d[t, within], v[0, within], strict=True))} = {plain(d_p[0])}",
        f"dE/dscore{at((h, t, 0))} = P (dE/dP - sum of P dE/dP) ="
        f" {short(float(p[h, t, 0]))} * ({short(float(d_p[0]))} - {short(mean)}) / {plain(size**0.5)}"
        f" = {plain(d_s[0])}",
        f"dE/dq{at(place)} = {total(zip(d_s, k[:, j], strict=True))} = {d_q}",
    ]


def _hands(step: LayerStep, which: int, place: Place) -> str:
    t, k = place
    return total(zip(step.tensor("in_proj_weight")[:, k], _d_inner(step)[t], strict=True))


def _terms(name: str, step: LayerStep, place: Place) -> str:
    inner = name.startswith("in_")
    delta = _d_inner(step) if inner else step.get("dE_da")
    if len(place) == 1:
        return total([], [float(one) for one in delta[:, place[0]]])
    x = step.x if inner else step.get("mixed")
    return total(zip(delta[:, place[0]], x[:, place[1]], strict=True))


def _weights(step: LayerStep) -> Mapping[str, Weight]:
    rules = {
        "in_proj_weight": "dE/dw_in[j, k] = sum over t of dE/d(q, k, v)[t, j] * x[t, k]",
        "in_proj_bias": "dE/db_in = the sum of dE/d(q, k, v) over t",
        "out_proj_weight": "dE/dw_out[j, k] = sum over t of dE/da[t, j] * m[t, k]",
        "out_proj_bias": "dE/db_out = the sum of dE/da over t",
    }
    return {
        p.name: Weight(
            {**_WEIGHTS, **_BIASES}[p.name], rules[p.name], partial(_terms, p.name),
            "BP3" if p.name in _BIASES else "BP4",
        )
        for p in step.parameters
    }  # fmt: skip


def _tables(step: LayerStep) -> Sequence[Columns]:
    first = (("q", "queries"), ("k", "keys"), ("v", "values"))
    return (first, (("share P", "shares"),), (("m", "mixed"), ("a", "a")))


def _back_tables(step: LayerStep) -> Sequence[Columns]:
    third = (("dE/dq", "dE_dqueries"), ("dE/dk", "dE_dkeys"), ("dE/dv", "dE_dvalues"))
    return ((("dE/da", "dE_da"), ("dE/dm", "dE_dmixed")), third)


ATTENTION = Kind(
    read=_read,
    forward=_forward,
    backward=_backward,
    rule=lambda step: (
        "q, k, v = W_in x[t] + b_in,  P[h, i, j] = softmax over j of q[i] . k[j] / sqrt(size) in head h,"
        "  m[i] = sum over j of P[h, i, j] v[j],  a = W_out m + b_out"
        + (";  step i sees the steps up to i" if step.options["causal"] else "")
    ),
    back_rules=lambda step: (
        "dE/dm = W_out^T dE/da,  dE/dv[j] = sum over i of P[i, j] dE/dm[i],  dE/dP[i, j] = dE/dm[i] . v[j]",
        "dE/dscore = P (dE/dP - sum of P dE/dP over j),  dE/dq[i] = sum of dE/dscore k[j] / sqrt(size)",
    ),
    tables=_tables,
    back_tables=_back_tables,
    made=_made,
    brought=_brought,
    hands_rule=lambda step: f"dE/da = W_in^T dE/d(q, k, v) of layer {step.number}",
    hands=_hands,
    weights=_weights,
    ended=_ended,
)
