"""The health of every trained tensor at the last step of an epoch: does its gradient live, is its step sane?

Norms are joined from sums of squares over parts of tensors, in order, so they are the same however the flat
vector is cut into ranges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from distbp.nn.arrays import Array
from distbp.nn.network import Network
from distbp.optimizers import sum_of_squares


@dataclass
class TensorHealth:
    """One trained tensor at the last step of an epoch: L2 norms of its averaged gradient, of its update and
    of its values before it."""

    path: str
    gradient_norm: float
    update_ratio: float  # |update| / |values|; about 1e-3 is healthy


class Norms(NamedTuple):
    """Sums of squares of the part of a tensor (by number) that lies in one piece: of its averaged gradient,
    of its values before the update, and of the update."""

    tensor: int
    gradient: float
    values: float
    update: float


class NormsOfUpdate:
    """Measures one update: make it before, call `measured` after. Needs a copy of `values` meanwhile.

    parts: (tensor, where) in `values` and `gradient`, flat; scale: what the gradient sums are multiplied by.
    """

    def __init__(
        self, parts: Sequence[tuple[int, slice]], values: Array, gradient: Array, scale: float
    ) -> None:
        self._parts = parts
        self._values = values
        self._before = values.copy()
        self._gradients = [sum_of_squares(gradient[part]) * scale * scale for _, part in parts]
        self._squares = [sum_of_squares(values[part]) for _, part in parts]

    def measured(self) -> list[Norms]:
        found = []
        for index, (tensor, part) in enumerate(self._parts):
            update = self._before[part]
            np.subtract(self._values[part], update, out=update)
            found.append(Norms(tensor, self._gradients[index], self._squares[index], sum_of_squares(update)))
        return found


def health(network: Network, norms: Sequence[Norms]) -> list[TensorHealth]:
    """Of every trained tensor, from the norms of its parts, in order; empty before the end of an epoch."""
    if not norms:
        return []
    sums = np.zeros((len(network.tensors), 3))
    for number, gradient, values, update in norms:
        sums[number] += gradient, values, update
    return [
        TensorHealth(tensor.path, float(gradient), float(update / values) if values > 0 else 0.0)
        for tensor, (gradient, values, update) in zip(network.tensors, np.sqrt(sums), strict=True)
    ]


def within(stretches: Sequence[tuple[int, int]], first: int, stop: int) -> list[tuple[int, int]]:
    """What of the stretches lies in [first, stop)."""
    return [(max(a, first), min(b, stop)) for a, b in stretches if max(a, first) < min(b, stop)]
