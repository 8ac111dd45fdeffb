"""The health of every trained tensor at the last step of an epoch: does its gradient live, is its step sane?

Norms are joined from sums of squares over parts of tensors, in order, so they are the same however the flat
vector is cut into ranges.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

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


@dataclass(slots=True)
class Norms:
    """Sums of squares of the part of a tensor (by number) that lies in one piece: of its averaged gradient,
    of its values before the update, and of the update."""

    tensor: int
    gradient: float
    values: float
    update: float = 0.0


def parts_of_pieces(network: Network, first: int, stop: int, size: int) -> list[list[tuple[int, slice]]]:
    """Of each piece of [first, stop) of the flat vector, `size` values long: the parts of tensors in it, as
    (tensor, where in the range). A norm is joined from them in order, for any cut."""
    return [
        [
            (number, slice(a - first, b - first))
            for number, t in enumerate(network.tensors)
            for a, b in within([(t.start, t.stop)], at, min(at + size, stop))
        ]
        for at in range(first, stop, size)
    ]


class NormsOfUpdate:
    """Measures one update piece by piece, while a piece lies in a cache. Call `before` and `after` the update
    of a piece, for different ones from any threads; then `measured`.

    parts: of every piece the (tensor, where) in `values` and `gradient`, flat; scale: what the gradient sums
    are multiplied by; join(piece): fills its part of the gradient first.
    """

    def __init__(
        self,
        parts: Sequence[Sequence[tuple[int, slice]]],
        values: Array,
        gradient: Array,
        scale: float,
        join: Callable[[int], None] = lambda piece: None,
    ) -> None:
        self._parts = parts
        self._values = values
        self._gradient = gradient
        self._scale = scale
        self._join = join
        self._found: list[list[Norms]] = [[] for _ in parts]
        self._copies: list[list[Array]] = [[] for _ in parts]

    def before(self, piece: int) -> None:
        scale = self._scale
        self._join(piece)
        for tensor, part in self._parts[piece]:
            gradient = sum_of_squares(self._gradient[part]) * scale * scale
            self._found[piece].append(Norms(tensor, gradient, sum_of_squares(self._values[part])))
            self._copies[piece].append(self._values[part].copy())

    def after(self, piece: int) -> None:
        copies = self._copies[piece]
        for (_, part), norms, update in zip(self._parts[piece], self._found[piece], copies, strict=True):
            np.subtract(self._values[part], update, out=update)
            norms.update = sum_of_squares(update)
        copies.clear()

    def measured(self) -> list[Norms]:
        return [one for piece in self._found for one in piece]


def norms_of(parts: Sequence[Sequence[tuple[int, slice]]], squares: Array, scale: float) -> list[Norms]:
    """What `NormsOfUpdate` measures, from sums of squares that somebody else has found. squares: of every
    part, in order, (parts, 3): of the gradient sums, of the values before the update, of the update."""
    tensors = [tensor for piece in parts for tensor, _ in piece]
    return [
        Norms(tensor, gradient * scale * scale, values, update)
        for tensor, (gradient, values, update) in zip(tensors, squares.tolist(), strict=True)
    ]


def health(network: Network, norms: Sequence[Norms]) -> list[TensorHealth]:
    """Of every trained tensor, from the norms of its parts, in order; empty before the end of an epoch."""
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
    """What of the stretches lies in [first, stop)."""
    return [(max(a, first), min(b, stop)) for a, b in stretches if max(a, first) < min(b, stop)]
