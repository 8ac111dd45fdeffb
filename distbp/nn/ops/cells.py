"""One step of recurrent cells, without its matrix products: the gates and the new state.

All operands have one row for each sample; `bias` and `inner` have one row for all. Gates lie side by side,
each as wide as the state, in PyTorch's order. A forward op overwrites the weighted sums of the gates with
their values; a backward op overwrites these with the gradients of the sums. s: the logistic function. past:
the state (LSTM: the memory) before the step.
"""

from __future__ import annotations

import numpy as np

from distbp.core.arrays import Array
from distbp.nn.ops.activations import logistic
from distbp.nn.ops.base import Op, Real, Whole, element_ops


def _lstm(z: Array, bias: Array, past: Array, memory: Array, h: Array, whole: Whole, real: Real) -> None:
    """With bias added to z first: z <- i, f, g, o = s(z_i), s(z_f), tanh(z_g), s(z_o);
    memory <- f past + i g; h <- o tanh(memory) (Gers et al., Neural Computation 12, 2000)."""
    np.add(z, bias, out=z)
    i, f, g, o = np.split(z, 4, axis=1)
    for gate in (i, f, o):
        logistic(gate, gate)
    np.tanh(g, out=g)
    np.add(f * past, i * g, out=memory)
    np.multiply(o, np.tanh(memory), out=h)


def _lstm_backward(
    z: Array, past: Array, memory: Array, dh: Array, dm: Array, whole: Whole, real: Real
) -> None:
    """dm, the gradient of the memory from the next step, += dh o (1 - t^2), with t = tanh(memory). Then

    z <- dm g i (1 - i),  dm past f (1 - f),  dm i (1 - g^2),  dh t o (1 - o)
    dm <- dm f, the gradient of the memory before the step.
    """
    i, f, g, o = np.split(z, 4, axis=1)
    t = np.tanh(memory)
    np.add(dm, dh * o * (1 - t * t), out=dm)
    d = dm * g * i * (1 - i), dm * past * f * (1 - f), dm * i * (1 - g * g), dh * t * o * (1 - o)
    np.multiply(dm, f, out=dm)
    np.concatenate(d, axis=1, out=z)


def _gru(
    z: Array, u: Array, bias: Array, inner: Array, past: Array, h: Array, whole: Whole, real: Real
) -> None:
    """With bias added to z first: u_n <- q = u_n + inner; z <- r, k, n = s(z_r + u_r), s(z_k + u_k),
    tanh(z_n + r q); h <- (1 - k) n + k past (Cho et al., EMNLP 2014)."""
    np.add(z, bias, out=z)
    (r, k, n), (u_r, u_k, q) = np.split(z, 3, axis=1), np.split(u, 3, axis=1)
    for gate, more in ((r, u_r), (k, u_k)):
        np.add(gate, more, out=gate)
        logistic(gate, gate)
    np.add(q, inner, out=q)
    np.tanh(n + r * q, out=n)
    np.add(n, k * (past - n), out=h)


def _gru_backward(z: Array, u: Array, past: Array, dh: Array, whole: Whole, real: Real) -> None:
    """z <- dn q r (1 - r),  dh (past - n) k (1 - k),  dn = dh (1 - k) (1 - n^2). u <- the same with dn r in
    place of dn. dh <- dh k, the gradient of the state before the step, without the part through u."""
    (r, k, n), (*_, q) = np.split(z, 3, axis=1), np.split(u, 3, axis=1)
    dn = dh * (1 - k) * (1 - n * n)
    dr, dk, dq = dn * q * r * (1 - r), dh * (past - n) * k * (1 - k), dn * r
    np.multiply(dh, k, out=dh)
    np.concatenate((dr, dk, dn), axis=1, out=z)
    np.concatenate((dr, dk, dq), axis=1, out=u)


_LOOPS = "distbp.nn.ops.loops_cells"
CELL_OPS = (
    Op("lstm_step", "FffFF", _lstm, f"{_LOOPS}:lstm", "", element_ops(26)),
    Op("lstm_step_backward", "FfffF", _lstm_backward, f"{_LOOPS}:lstm_backward", "", element_ops(11)),
    Op("gru_step", "FFfffF", _gru, f"{_LOOPS}:gru", "", element_ops(24)),
    Op("gru_step_backward", "FFfF", _gru_backward, f"{_LOOPS}:gru_backward", "", element_ops(7)),
)
