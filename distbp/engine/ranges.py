"""The ranges of the flat vector that several servers own, and the sums that these servers exchange."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from distbp.core.reduction import PIECE
from distbp.nn.network import Network


class RangeSums(NamedTuple):
    """The sum of squares of each piece of a server's gradient, in order, and whether the loss, the running
    statistics and the states are finite."""

    squares: tuple[float, ...]
    finite: bool


def joint(parts: Sequence[RangeSums]) -> RangeSums:
    """Joins the sums of all ranges, given in order, into one sum of squares, with the same bits for any cut.
    The result is finite only if that sum is finite, too."""
    total = 0.0
    for part in parts:
        for squares in part.squares:
            total += squares
    return RangeSums((total,), math.isfinite(total) and all(part.finite for part in parts))


def ranges(network: Network, servers: int) -> list[tuple[int, int]]:
    """Cuts the flat vector into ranges [start, stop), one for each server, as equal as possible. A cut is
    where a piece begins, so there are never more ranges than pieces."""
    pieces = max(1, -(-network.parameter_count // PIECE))
    count = min(servers, pieces)
    cuts = [PIECE * (pieces * server // count) for server in range(count)]
    return list(zip(cuts, [*cuts[1:], network.size], strict=True))
