"""Scaled dot-product attention of several heads over the steps of each sample, and sine waves over steps.

    P = softmax(Q K^T / sqrt(size)),  out = P V        Vaswani et al., NeurIPS 2017, section 3.2.1

A sample has `steps` rows, one after the other. A head has `size` = units / heads columns.

    qkv    (samples * steps, 3 * units): Q, K and V side by side, each with its heads side by side
    p      (samples * heads * steps, steps): P of each head
    out    (samples * steps, units): the heads side by side
    ends   (samples, 1): the length of each sample; absent if samples have no lengths
    whole  (heads, steps, ahead): step i attends to the steps 0 to i + ahead that lie before the end. P is 0
           for all other pairs of steps, and for steps past the end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from distbp.core.arrays import Array
from distbp.nn.ops.base import Op, Real, Whole, element_ops


def _heads(a: Array, parts: int, whole: Whole) -> Array:
    """(parts, samples, heads, steps, size): a view of a matrix (samples * steps, parts * units)."""
    heads, steps, _ = whole
    view = a.reshape(len(a) // steps, steps, parts, heads, a.shape[1] // (parts * heads))
    return view.transpose(2, 0, 3, 1, 4)


def _probabilities(p: Array, whole: Whole) -> Array:
    heads, steps, _ = whole
    return p.reshape(len(p) // (heads * steps), heads, steps, steps)


def _scale(q: Array) -> float:
    return float(q.dtype.type(q.shape[-1] ** -0.5))


def _attention(qkv: Array, p: Array, out: Array, ends: Array, whole: Whole, real: Real) -> None:
    """p <- softmax(Q K^T / sqrt(size)) over the steps that each step attends to, else 0; out <- P V.

    The largest score of a step is subtracted from all its scores, so exp cannot overflow."""
    (q, k, v), steps, ahead = _heads(qkv, 3, whole), whole[1], whole[2]
    seen = np.tri(steps, steps, ahead, dtype=bool)
    if len(ends):
        own = (np.arange(steps) < ends)[:, None]  # (samples, heads, steps)
        seen = seen & own[..., None] & own[..., None, :]
    scores = np.where(seen, (q @ k.swapaxes(-1, -2)) * _scale(q), -np.inf)
    some = seen.any(axis=-1, keepdims=True)
    e = np.exp(scores - np.where(some, scores.max(axis=-1, keepdims=True), 0))
    total = np.where(some, e.sum(axis=-1, keepdims=True), 1)
    _probabilities(p, whole)[:] = e / total
    _heads(out, 1, whole)[0] = _probabilities(p, whole) @ v


def _attention_backward(
    qkv: Array, p: Array, dy: Array, room: Array, dqkv: Array, whole: Whole, real: Real
) -> None:
    """dqkv <- the gradients of Q, K and V: with dP = dy V^T, g = P * dP and dS = (g - P * sum of g over the
    row) / sqrt(size), these are dQ = dS K, dK = dS^T Q, dV = P^T dy. dS is 0 where P is 0.

    room (steps, steps): scratch for dS of one head; that of the last head remains."""
    (q, k, v), (dq, dk, dv) = _heads(qkv, 3, whole), _heads(dqkv, 3, whole)
    d, shares = _heads(dy, 1, whole)[0], _probabilities(p, whole)
    g = shares * (d @ v.swapaxes(-1, -2))
    ds = (g - shares * g.sum(axis=-1, keepdims=True)) * _scale(q)
    dq[:], dk[:], dv[:] = ds @ k, ds.swapaxes(-1, -2) @ q, shares.swapaxes(-1, -2) @ d
    for last in ds[-1:, -1]:
        room[:] = last


def _waves(out: Array, whole: Whole, real: Real) -> None:
    """out (steps, features) <- sin(a) in even columns, cos(a) in odd columns, with a = step / real[0]^(j /
    features) in float64, where j is the even column of a pair (Vaswani et al., NeurIPS 2017, section 3.5)."""
    steps, features = out.shape
    column = np.arange(features)
    angles = np.arange(steps)[:, None] / real[0] ** (column // 2 * 2 / features)
    out[:] = np.where(column % 2, np.cos(angles), np.sin(angles))


def _terms(products: int) -> Callable[[Sequence[tuple[int, int]]], int]:
    """`Op.flops` of an op with `products` products for each head, from the shapes of qkv and p."""

    def count(shapes: Sequence[tuple[int, int]]) -> int:
        (rows, columns), (m, n) = shapes[:2]
        return products * 2 * rows * n * columns // 3 if m else 0

    return count


_LOOPS = "distbp.nn.ops.loops_attention:"
_ORDER = "sample after sample, head after head; of a product the library's; of a row of P eight sums"
ATTENTION = (
    Op("attention", "fFFf", _attention, f"{_LOOPS}attention", _ORDER, _terms(2)),
    Op("attention_backward", "fffFF", _attention_backward, f"{_LOOPS}attention_backward", _ORDER, _terms(4)),
    Op("waves", "F", _waves, f"{_LOOPS}waves", "", element_ops(40)),
)
