"""The stretches of the flat vector that several servers have, and what these tell each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from distbp.nn.network import Network

# The places where pieces of the vector begin decide the order in which squares are summed, so this number is
# part of the numerics.
PIECE = 32768


class Sums(NamedTuple):
    """What a server knows of a step's gradient before the update: the sum of squares of each piece of its
    range, in order, and whether everything is finite."""

    squares: tuple[float, ...]
    finite: bool


def joint(parts: Sequence[Sums]) -> Sums:
    """Of the whole vector, from those of its ranges, in order: one sum, with the same bits for any cut."""
    total = 0.0
    for part in parts:
        for squares in part.squares:
            total += squares
    return Sums((total,), math.isfinite(total) and all(part.finite for part in parts))


def ranges(network: Network, servers: int) -> list[tuple[int, int]]:
    """The stretches of the flat vector that so many servers have: cut where pieces begin, as equal as can be.
    Fewer than asked for where there are fewer pieces."""
    pieces = max(1, -(-network.parameter_count // PIECE))
    count = min(servers, pieces)
    cuts = [PIECE * (pieces * server // count) for server in range(count)]
    return list(zip(cuts, [*cuts[1:], network.size], strict=True))
