"""The cells of recurrent layers: Elman, LSTM, GRU. `distbp.nn.layers.recurrence` names their sources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from distbp.run.explain.kinds.dense import activated
from distbp.run.explain.kinds.directions import (
    CellKind,
    before,
    first_words,
    gate_sum,
    given,
    input_terms,
    named,
    past,
    product,
    recurrent_terms,
)
from distbp.run.explain.loops import elman, elman_back, slope
from distbp.run.explain.numbers import LayerStep, Ops, Spec, Tensors, Values
from distbp.run.explain.recurrent_steps import Found, gru, gru_back, lstm, lstm_back
from distbp.run.explain.words import plain, short, total


def _elman_reads(spec: Spec, ops: Ops) -> dict[str, list[Values]]:
    found = activated(spec, ops)
    return {"z": found["z"], "states": found["a"]}


def _elman_back_reads(spec: Spec, ops: Ops) -> dict[str, list[Values]]:
    found = activated(spec, ops)
    return {"f_prime": found["f_prime"], "dE_dstates": found["dE_da"], "delta": found["delta"]}


def _elman(spec: Spec, own: Tensors, x: Values) -> Found:
    first = given(spec, own, "states")
    z, h = elman(own["weight"], own["recurrent_weight"], own["bias"], x, first, spec)
    return {"z": z, "states": h}


def _elman_back(
    spec: Spec, own: Tensors, x: Values, seen: Found, d: Values
) -> tuple[Found, dict[str, Values], Values]:
    z, f_prime = seen["z"], slope(spec, seen["z"])
    assert f_prime is not None
    w, r, first = own["weight"], own["recurrent_weight"], given(spec, own, "states")
    back = elman_back(w, r, x, z, seen["states"], first, d, spec)
    d_h, delta, gradients, d_x = back
    return {"f_prime": f_prime, "dE_dstates": d_h, "delta": delta}, gradients, d_x


def _elman_made(step: LayerStep, t: int, j: int, end: str) -> list[str]:
    name, z, h = named(end, t, j), *(plain(step.get(one + end)[t, j]) for one in ("z", "states"))
    return [f"z{name} = {gate_sum(step, j, t, end)} = {z}", f"h{name} = {step.activation}({z}) = {h}"]


def _elman_brought(step: LayerStep, t: int, j: int, end: str) -> list[str]:
    factors = product(*(step.get(one + end)[t, j] for one in ("dE_dstates", "f_prime")))
    return [f"delta{named(end, t, j)} = {factors} = {plain(step.get(f'delta{end}')[t, j])}"]


_ELMAN = CellKind(
    reads=_elman_reads,
    back_reads=_elman_back_reads,
    forward=_elman,
    backward=_elman_back,
    rule=lambda step: (
        f"z[t] = W x[t] + R h[t-1] + b,  h[t] = {step.activation}(z[t]),  {first_words(step, 'h[-1]')}"
    ),
    back_rules=("through time: dE/dh[t] = dE/da[t] + R^T delta[t+1]", "delta = dE/dh * f'(z)"),
    tables=((("z", "z"), ("h", "states"), ("f'(z)", "f_prime")),),
    back_tables=((("dE/dh", "dE_dstates"), ("f'(z)", "f_prime"), ("delta", "delta")),),
    deltas=("delta",),
    recurrent_deltas=("delta",),
    keeps="",
    made=_elman_made,
    brought=_elman_brought,
)


def _parted(parts: Sequence[Values], names: Sequence[str]) -> dict[str, list[Values]]:
    """Splits arrays with the gates side by side into lists by gate."""
    split = [np.split(one.reshape(-1), len(names)) for one in parts]
    return {name: [one[number] for one in split] for number, name in enumerate(names)}


def _gate(step: LayerStep, letter: str, name: str, which: int, t: int, j: int, end: str) -> str:
    units = step.get(f"states{end}").shape[1]
    f = "tanh" if name == "candidate" else "sigmoid"
    value = plain(step.get(name + end)[t, j])
    return f"{letter}{named(end, t, j)} = {f}({gate_sum(step, which * units + j, t, end)}) = {value}"


def _at(step: LayerStep, names: Sequence[str], t: int, j: int, end: str) -> list[float]:
    return [float(step.get(name + end)[t, j]) for name in names]


# LSTM -------------------------------------------------------------------------------------------------

_LSTM = {"i": "input", "f": "forget", "g": "candidate", "o": "output"}
_LSTM_DELTAS = tuple(f"delta_{name}" for name in _LSTM.values())


def _lstm_reads(spec: Spec, ops: Ops) -> dict[str, list[Values]]:
    gates = _parted(ops.after("lstm_step", 0), list(_LSTM.values()))
    return {**gates, "memory": ops.after("lstm_step", 3), "states": ops.after("lstm_step", 4)}


def _lstm_back_reads(spec: Spec, ops: Ops) -> dict[str, list[Values]]:
    back = "lstm_step_backward"
    carried = {"dE_dstates": ops.before(back, 3), "dE_dmemory_later": ops.before(back, 4)}
    return {**carried, **_parted(ops.after(back, 0), _LSTM_DELTAS)}


def _lstm_made(step: LayerStep, t: int, j: int, end: str) -> list[str]:
    i, f, g, o, c, h = _at(step, [*_LSTM.values(), "memory", "states"], t, j, end)
    name, last = named(end, t, j), named(end, before(end, t), j)
    terms = f"{product(f, past(step, 'memory', end, t, j))} + {product(i, g)}"
    return [
        *(_gate(step, letter, gate, n, t, j, end) for n, (letter, gate) in enumerate(_LSTM.items())),
        f"c{name} = f * c{last} + i * g = {terms} = {plain(c)}",
        f"h{name} = o * tanh(c) = {product(o, np.tanh(c))} = {plain(h)}",
    ]


def _lstm_brought(step: LayerStep, t: int, j: int, end: str) -> list[str]:
    i, f, g, o, c = _at(step, [*_LSTM.values(), "memory"], t, j, end)
    dh, later, *deltas = _at(step, ["dE_dstates", "dE_dmemory_later", *_LSTM_DELTAS], t, j, end)
    name, last, tanh = named(end, t, j), named(end, before(end, t), j), float(np.tanh(c))
    dc = dh * o * (1 - tanh * tanh) + later
    made = f"{product(dh, o)} * (1 - {short(tanh)} ** 2) + {short(later)}"
    from_f = product(dc, past(step, "memory", end, t, j), f)
    return [
        f"dE/dc{name} = dE/dh o (1 - tanh(c)^2) + what step {named(end, 2 * t - before(end, t), j)} hands on"
        f" = {made} = {plain(dc)}",
        f"delta_i{name} = dE/dc g i (1 - i) = {product(dc, g, i)} * (1 - {short(i)}) = {plain(deltas[0])}",
        f"delta_f{name} = dE/dc c{last} f (1 - f) = {from_f} * (1 - {short(f)}) = {plain(deltas[1])}",
        f"delta_g{name} = dE/dc i (1 - g^2) = {product(dc, i)} * (1 - {short(g)} ** 2) = {plain(deltas[2])}",
        f"delta_o{name} = dE/dh tanh(c) o (1 - o) = {product(dh, tanh, o)} * (1 - {short(o)})"
        f" = {plain(deltas[3])}",
    ]


_LSTM_CELL = CellKind(
    reads=_lstm_reads,
    back_reads=_lstm_back_reads,
    forward=lambda spec, own, x: lstm(own, x, given(spec, own, "states"), given(spec, own, "memory")),
    backward=lambda spec, own, x, seen, d: lstm_back(
        own, x, given(spec, own, "states"), given(spec, own, "memory"), seen, d
    ),
    rule=lambda step: (
        "i, f, o = sigmoid and g = tanh of W x[t] + R h[t-1] + b, each with rows of its own;"
        f"  c[t] = f c[t-1] + i g,  h[t] = o tanh(c[t]),  {first_words(step, 'h[-1], c[-1]')}"
    ),
    back_rules=(
        "through time: dE/dh[t] = dE/da[t] + R^T delta[t+1]",
        "dE/dc[t] = dE/dh[t] o (1 - tanh(c)^2) + f[t+1] dE/dc[t+1]",
    ),
    tables=(tuple(_LSTM.items()), (("c", "memory"), ("h", "states"))),
    back_tables=(
        (("dE/dh", "dE_dstates"), ("dE/dc later", "dE_dmemory_later")),
        tuple((f"delta_{letter}", f"delta_{gate}") for letter, gate in _LSTM.items()),
    ),
    deltas=_LSTM_DELTAS,
    recurrent_deltas=_LSTM_DELTAS,
    keeps="",
    made=_lstm_made,
    brought=_lstm_brought,
)

# GRU --------------------------------------------------------------------------------------------------

_GRU = ("reset", "update", "candidate")
_GRU_DELTAS = tuple(f"delta_{name}" for name in _GRU)
_GRU_LETTERS = {"r": "reset", "z": "update", "n": "candidate", "q": "inner"}


def _third(parts: Sequence[Values]) -> list[Values]:
    return [np.split(one.reshape(-1), 3)[2] for one in parts]


def _gru_reads(spec: Spec, ops: Ops) -> dict[str, list[Values]]:
    gates = _parted(ops.after("gru_step", 0), _GRU)
    return {**gates, "inner": _third(ops.after("gru_step", 1)), "states": ops.after("gru_step", 5)}


def _gru_back_reads(spec: Spec, ops: Ops) -> dict[str, list[Values]]:
    back = "gru_step_backward"
    inner = {"delta_inner": _third(ops.after(back, 1))}
    return {"dE_dstates": ops.before(back, 3), **_parted(ops.after(back, 0), _GRU_DELTAS), **inner}


def _gru_made(step: LayerStep, t: int, j: int, end: str) -> list[str]:
    r, z, n, q, h = _at(step, [*_GRU, "inner", "states"], t, j, end)
    row = 2 * len(step.tensor(f"recurrent_bias{end}")) + j
    name, last = named(end, t, j), named(end, before(end, t), j)
    inner = total(recurrent_terms(step, row, t, end), [step.tensor(f"recurrent_bias{end}")[j]])
    outer = total(input_terms(step, row, t, end), [step.tensor(f"bias{end}")[row]])
    kept = product(z, past(step, "states", end, t, j))
    return [
        *(_gate(step, letter, _GRU[which], which, t, j, end) for which, letter in enumerate("rz")),
        f"q{name} = {inner} = {plain(q)}",
        f"n{name} = tanh({outer} + r q) = tanh({outer} + {product(r, q)}) = {plain(n)}",
        f"h{name} = (1 - z) n + z h{last} = (1 - {short(z)}) * {short(n)} + {kept} = {plain(h)}",
    ]


def _gru_brought(step: LayerStep, t: int, j: int, end: str) -> list[str]:
    r, z, n, q = _at(step, [*_GRU, "inner"], t, j, end)
    dh, dr, dz, dn, dq = _at(step, ["dE_dstates", *_GRU_DELTAS, "delta_inner"], t, j, end)
    name, last, was = named(end, t, j), named(end, before(end, t), j), past(step, "states", end, t, j)
    closed = f"{short(dh)} * (1 - {short(z)}) * (1 - {short(n)} ** 2)"
    from_z = f"{short(dh)} * ({short(was)} - {short(n)}) * {short(z)} * (1 - {short(z)})"
    return [
        f"delta_n{name} = dE/dh (1 - z) (1 - n^2) = {closed} = {plain(dn)}",
        f"delta_q{name} = delta_n r = {product(dn, r)} = {plain(dq)}",
        f"delta_r{name} = delta_n q r (1 - r) = {product(dn, q, r)} * (1 - {short(r)}) = {plain(dr)}",
        f"delta_z{name} = dE/dh (h{last} - n) z (1 - z) = {from_z} = {plain(dz)}",
    ]


_GRU_CELL = CellKind(
    reads=_gru_reads,
    back_reads=_gru_back_reads,
    forward=lambda spec, own, x: gru(own, x, given(spec, own, "states")),
    backward=lambda spec, own, x, seen, d: gru_back(own, x, given(spec, own, "states"), seen, d),
    rule=lambda step: (
        "r, z = sigmoid of W x[t] + R h[t-1] + b, each with rows of its own;  q = R h[t-1] + b_q,"
        f"  n = tanh(W x[t] + b + r q),  h[t] = (1 - z) n + z h[t-1],  {first_words(step, 'h[-1]')}"
    ),
    back_rules=(
        "through time: dE/dh[t] = dE/da[t] + R^T (delta_r, delta_z, delta_q)[t+1] + z[t+1] dE/dh[t+1]",
    ),
    tables=((("r", "reset"), ("z", "update"), ("q", "inner"), ("n", "candidate")), (("h", "states"),)),
    back_tables=(
        (("dE/dh", "dE_dstates"),),
        tuple((f"delta_{letter}", f"delta_{gate}") for letter, gate in _GRU_LETTERS.items()),
    ),
    deltas=_GRU_DELTAS,
    recurrent_deltas=(*_GRU_DELTAS[:2], "delta_inner"),
    keeps="update",
    made=_gru_made,
    brought=_gru_brought,
)

CELLS: Mapping[str, CellKind] = {"elman": _ELMAN, "lstm": _LSTM_CELL, "gru": _GRU_CELL}
