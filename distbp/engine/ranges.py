"""The stretches of the flat vector that several servers have, and what these tell each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from distbp.core.reduction import PIECE
from distbp.nn.network import Network


class RangeSums(NamedTuple):
    """What a server knows of a step's gradient before the update: the sum of squares of each piece of its
    range, in order, and whether everything is finite."""

    squares: tuple[float, ...]
    finite: bool


def joint(parts: Sequence[RangeSums]) -> RangeSums:
    """The sums of the whole vector, from those of its ranges in order: one sum of squares, with the same bits
    for any cut."""
    total = 0.0
    for part in parts:
        for squares in part.squares:
            total += squares
    return RangeSums((total,), math.isfinite(total) and all(part.finite for part in parts))


def ranges(network: Network, servers: int) -> list[tuple[int, int]]:
    """The stretches of the flat vector that so many servers have. They are cut where pieces begin, and as
    equal as possible; there are fewer where there are fewer pieces."""
    pieces = max(1, -(-network.parameter_count // PIECE))
    count = min(servers, pieces)
    cuts = [PIECE * (pieces * server // count) for server in range(count)]
    return list(zip(cuts, [*cuts[1:], network.size], strict=True))
