"""Computes LSTM and GRU step by step in plain NumPy (see `loops`).

The weights hold the rows of the gates one below the other: i, f, g, o for the LSTM; r, z, n for the GRU. x:
(steps, features). h, c: (units,), the state and the memory before the first step.
"""

from __future__ import annotations

import numpy as np

from distbp.run.explain.numbers import Tensors, Values

Found = dict[str, Values]  # (steps, units) each, in the order of the direction


def _sigmoid(z: Values) -> Values:
    return np.asarray(0.5 * (1 + np.tanh(z / 2)))


def _shifted(first: Values, h: Values) -> Values:
    """The state before each step."""
    return np.concatenate([first[np.newaxis], h[:-1]])


def _of_steps(steps: list[Found], backwards: bool = False) -> Found:
    ordered = steps[::-1] if backwards else steps
    return {name: np.array([one[name] for one in ordered]) for name in ordered[0]}


def lstm(own: Tensors, x: Values, h: Values, c: Values) -> Found:
    """c_t = f c_(t-1) + i g, h_t = o tanh(c_t); i, f, o = sigmoid, g = tanh of W x_t + R h_(t-1) + b."""
    w, r, b = (own[name] for name in ("weight", "recurrent_weight", "bias"))
    steps: list[Found] = []
    for x_t in x:
        z_i, z_f, z_g, z_o = np.split(w @ x_t + r @ h + b, 4)
        i, f, g, o = _sigmoid(z_i), _sigmoid(z_f), np.tanh(z_g), _sigmoid(z_o)
        c = f * c + i * g
        h = o * np.tanh(c)
        steps.append({"input": i, "forget": f, "candidate": g, "output": o, "memory": c, "states": h})
    return _of_steps(steps)


def lstm_back(
    own: Tensors, x: Values, h: Values, c: Values, seen: Found, d_a: Values
) -> tuple[Found, dict[str, Values], Values]:
    """d_a: dE/dh from above, (steps, units). Returns numbers, gradients, dE/dx."""
    w, r = own["weight"], own["recurrent_weight"]
    names = ("input", "forget", "candidate", "output", "memory")
    i, f, g, o, memory = (seen[name] for name in names)
    before = _shifted(c, memory)
    later_h = later_c = np.zeros(r.shape[1])
    steps: list[Found] = []
    for t in reversed(range(len(x))):
        d_h = d_a[t] + later_h
        tanh = np.tanh(memory[t])
        d_c = d_h * o[t] * (1 - tanh**2) + later_c
        deltas = {
            "delta_input": d_c * g[t] * i[t] * (1 - i[t]),
            "delta_forget": d_c * before[t] * f[t] * (1 - f[t]),
            "delta_candidate": d_c * i[t] * (1 - g[t] ** 2),
            "delta_output": d_h * tanh * o[t] * (1 - o[t]),
        }
        steps.append({"dE_dstates": d_h, "dE_dmemory_later": later_c, **deltas})
        later_h, later_c = r.T @ np.concatenate(list(deltas.values())), d_c * f[t]
    found = _of_steps(steps, backwards=True)
    delta = np.concatenate([found[f"delta_{name}"] for name in names[:4]], axis=1)
    gradients = {
        "weight": delta.T @ x,
        "recurrent_weight": delta.T @ _shifted(h, seen["states"]),
        "bias": delta.sum(axis=0),
    }
    return found, gradients, delta @ w


def gru(own: Tensors, x: Values, h: Values) -> Found:
    """h_t = (1 - z) n + z h_(t-1); r, z = sigmoid of W x_t + R h_(t-1) + b, q = R_n h_(t-1) + b_q,
    n = tanh(W_n x_t + b_n + r q)."""
    names = ("weight", "recurrent_weight", "bias", "recurrent_bias")
    w, u, b, b_q = (own[name] for name in names)
    steps: list[Found] = []
    for x_t in x:
        (x_r, x_z, x_n), (h_r, h_z, h_n) = np.split(w @ x_t + b, 3), np.split(u @ h, 3)
        r, z, q = _sigmoid(x_r + h_r), _sigmoid(x_z + h_z), h_n + b_q
        n = np.tanh(x_n + r * q)
        h = (1 - z) * n + z * h
        steps.append({"reset": r, "update": z, "candidate": n, "inner": q, "states": h})
    return _of_steps(steps)


def gru_back(
    own: Tensors, x: Values, h: Values, seen: Found, d_a: Values
) -> tuple[Found, dict[str, Values], Values]:
    """See `lstm_back`."""
    w, u = own["weight"], own["recurrent_weight"]
    r, z, n, q = (seen[name] for name in ("reset", "update", "candidate", "inner"))
    before = _shifted(h, seen["states"])
    later = np.zeros(u.shape[1])
    steps: list[Found] = []
    for t in reversed(range(len(x))):
        d_h = d_a[t] + later
        d_n = d_h * (1 - z[t]) * (1 - n[t] ** 2)
        d_r = d_n * q[t] * r[t] * (1 - r[t])
        d_z = d_h * (before[t] - n[t]) * z[t] * (1 - z[t])
        steps.append(
            {
                "dE_dstates": d_h, "delta_reset": d_r, "delta_update": d_z, "delta_candidate": d_n,
                "delta_inner": d_n * r[t],
            }
        )  # fmt: skip
        later = u.T @ np.concatenate([d_r, d_z, d_n * r[t]]) + z[t] * d_h
    found = _of_steps(steps, backwards=True)
    gates = [found[f"delta_{name}"] for name in ("reset", "update")]
    delta = np.concatenate([*gates, found["delta_candidate"]], axis=1)
    of_states = np.concatenate([*gates, found["delta_inner"]], axis=1)
    gradients = {
        "weight": delta.T @ x,
        "recurrent_weight": of_states.T @ before,
        "bias": delta.sum(axis=0),
        "recurrent_bias": found["delta_inner"].sum(axis=0),
    }
    return found, gradients, delta @ w
