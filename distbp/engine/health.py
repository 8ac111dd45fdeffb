"""The health of every trained tensor at the last step of an epoch: does its gradient live, is its step sane?

Norms are joined from sums of squares over parts of tensors, in order, so they are the same however the flat
vector is cut into ranges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from distbp.core.arrays import Array
from distbp.nn.network import Network


@dataclass
class TensorHealth:
    """One trained tensor at the last step of an epoch: L2 norms of its averaged gradient, of its update and
    of its values before it."""

    path: str
    gradient_norm: float
    update_ratio: float  # |update| / |values|; about 1e-3 is healthy


@dataclass(slots=True)
class Norms:
    """Sums of squares of the part of a tensor (by number) that lies in one piece: of its averaged gradient,
    of its values before the update, and of the update."""

    tensor: int
    gradient: float
    values: float
    update: float = 0.0


def norms_of(tensors: Sequence[int], squares: Array, scale: float) -> list[Norms]:
    """From what an update has measured. tensors: of every part; squares: (parts, 3), see
    `Updater.apply_measured`; scale: what the gradient sums are multiplied by."""
    return [
        Norms(tensor, gradient * scale * scale, values, update)
        for tensor, (gradient, values, update) in zip(tensors, squares.tolist(), strict=True)
    ]


def health(network: Network, norms: Sequence[Norms]) -> list[TensorHealth]:
    """The health of every trained tensor, from the norms of its parts, in order; empty before the end of an
    epoch."""
    if not norms:
        return []
    sums = np.zeros((len(network.tensors), 3))
    for one in norms:
        sums[one.tensor] += one.gradient, one.values, one.update
    return [
        TensorHealth(tensor.path, float(gradient), float(update / values) if values > 0 else 0.0)
        for tensor, (gradient, values, update) in zip(network.tensors, np.sqrt(sums), strict=True)
    ]


def within(stretches: Sequence[tuple[int, int]], first: int, stop: int) -> list[tuple[int, int]]:
    """The parts of the stretches that lie in [first, stop)."""
    return [(max(a, first), min(b, stop)) for a, b in stretches if max(a, first) < min(b, stop)]
