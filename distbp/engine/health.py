"""The health of every trained tensor at the last step of an epoch: the norms of its gradient and its update.

A norm is joined from the sums of squares of the tensor's parts, in order. So it is the same for any cut of
the flat vector into ranges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from distbp.core.arrays import Array
from distbp.nn.network import Network


@dataclass
class TensorHealth:
    """One trained tensor at the last step of an epoch: the L2 norm of its averaged gradient, and the ratio of
    the L2 norms of its update and of its values before the update."""

    path: str
    gradient_norm: float
    update_ratio: float  # |update| / |values|; about 1e-3 is healthy


@dataclass(slots=True)
class Norms:
    """Sums of squares over the part of a tensor that lies in one piece: of the averaged gradient, of the
    values before the update, and of the update. tensor: its number in `Network.tensors`."""

    tensor: int
    gradient: float
    values: float
    update: float = 0.0


def norms_of(tensors: Sequence[int], squares: Array, scale: float) -> list[Norms]:
    """The norms that an update has measured. tensors: the tensor of each part; squares: (parts, 3), see
    `Updater.apply_measured`; scale: the factor from gradient sums to averages."""
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
    for part in norms:
        sums[part.tensor] += part.gradient, part.values, part.update
    return [
        TensorHealth(tensor.path, float(gradient), float(update / values) if values > 0 else 0.0)
        for tensor, (gradient, values, update) in zip(network.tensors, np.sqrt(sums), strict=True)
    ]


def within(stretches: Sequence[tuple[int, int]], first: int, stop: int) -> list[tuple[int, int]]:
    """The parts of the stretches that lie in [first, stop)."""
    return [(max(a, first), min(b, stop)) for a, b in stretches if max(a, first) < min(b, stop)]
