"""Deals the parameters to the threads that share a step: stretches of the vector, and parts of deferred
products."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from distbp.core.arrays import Array
from distbp.nn.lowered import Lowered
from distbp.optim.updater import cut, number_of

Covers = Sequence[tuple[int, int, int]]
UNEQUAL = 1.15  # times an equal share of the work; with more, the other threads wait too long for one


class ThreadShare(NamedTuple):
    """The parameters that one thread updates, int64. stretches: (n, 3), start, stop and group. parts: (n, 6),
    parts of deferred products: op, first unit, stop unit, start, stop and group."""

    stretches: Array
    parts: Array

    @property
    def room(self) -> int:
        """The most parameters of a part."""
        return int((self.parts[:, 4] - self.parts[:, 3]).max(initial=0))


def thread_shares(
    lowered: Lowered, count: int, rows: int, groups: Covers, threads: int, may_defer: bool
) -> list[ThreadShare]:
    """Deals `count` parameters to threads so that all have about equal work. rows: of a batch. groups: see
    `optim.groups`. may_defer: whether gradients may be deferred; if the shares would then be too unequal,
    none is."""
    parts = list(_parts(lowered, groups)) if may_defer else []
    covered = sorted((start, stop) for _, _, _, start, stop, _ in parts)
    free, at = [], 0
    for start, stop in covered:
        if at < start:
            free.append((at, start))
        at = stop
    if at < count:
        free.append((at, count))
    stretches = cut(free, groups)
    # A deferred parameter's gradient is computed too, with one multiplication for each row of the batch.
    costs = [(stop - start) * (1 + rows / 32) for *_, start, stop, _ in parts] + [
        b - a for a, b, _ in stretches.tolist()
    ]
    dealt: list[list[int]] = [[] for _ in range(threads)]
    loads = [0.0] * threads
    for item in sorted(range(len(costs)), key=lambda i: -costs[i]):
        least = loads.index(min(loads))
        dealt[least].append(item)
        loads[least] += costs[item]
    if parts and max(loads) > UNEQUAL * sum(loads) / threads:
        return thread_shares(lowered, count, rows, groups, threads, may_defer=False)
    deferred = np.array(parts, np.int64).reshape(-1, 6)
    return [
        ThreadShare(
            stretches[[i - len(parts) for i in sorted(mine) if i >= len(parts)]],
            deferred[[i for i in sorted(mine) if i < len(parts)]],
        )
        for mine in dealt
    ]


def _parts(lowered: Lowered, groups: Covers) -> Iterator[tuple[int, int, int, int, int, int]]:
    """Yields the parts of every deferred product, as `ThreadShare.parts` has them."""
    for number, row in enumerate(lowered.rows):
        if not row.deferred:
            continue
        out, units = row.refs[2], row.whole[1]
        for begin in range(0, out.plus, units):
            end = min(begin + units, out.plus)
            start, stop = out.start + begin * out.columns, out.start + end * out.columns
            yield number, begin, end, start, stop, number_of(start, stop, groups)
