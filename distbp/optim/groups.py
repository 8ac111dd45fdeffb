"""Groups of parameters: stretches of the flat vector that one rule treats differently."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

Stretches = Sequence[tuple[int, int]]
Rates = Sequence[tuple[int, int, float]]  # (start, stop, factor)


class Group(NamedTuple):
    """`decays`: L1, L2 and weight decay touch its parameters. `rate`: a factor on the learning rate."""

    decays: bool
    rate: float


PLAIN = (Group(False, 1.0), Group(True, 1.0))  # of a job that says nothing of rates


class Groups(NamedTuple):
    """`kinds`: the groups, by number; the first two are `PLAIN`. `stretches`: (start, stop, number), in
    order; what lies in none is of group 0."""

    kinds: tuple[Group, ...]
    stretches: tuple[tuple[int, int, int], ...]


def groups_of(decays: Stretches, rates: Rates, size: int) -> Groups:
    """The groups of a vector of `size` numbers. decays: stretches that decay; rates: stretches with a factor
    on the learning rate, the others have 1; both in any order. Raises ValueError where they overlap."""
    decaying = merged(decays, size)
    merged([(start, stop) for start, stop, _ in rates], size, "rates")
    kinds = dict.fromkeys(PLAIN)
    for factor in sorted({rate for *_, rate in rates}):
        kinds.update(dict.fromkeys((Group(False, factor), Group(True, factor))))
    numbers = {kind: number for number, kind in enumerate(kinds)}
    ends = sorted(
        {0, size, *(at for pair in decaying for at in pair), *(at for a, b, _ in rates for at in (a, b))}
    )
    found: list[tuple[int, int, int]] = []
    for start, stop in pairwise(ends):
        decay = any(a <= start and stop <= b for a, b in decaying)
        rate = next((factor for a, b, factor in rates if a <= start and stop <= b), 1.0)
        number = numbers[Group(decay, rate)]
        if found and found[-1][2] == number:
            found[-1] = (found[-1][0], stop, number)
        elif start < stop:
            found.append((start, stop, number))
    return Groups(tuple(kinds), tuple(one for one in found if one[2]))


def merged(stretches: Stretches, size: int, what: str = "decays") -> list[tuple[int, int]]:
    """In order, neighbors joined. what: they are, in words."""
    found: list[tuple[int, int]] = []
    for start, stop in sorted(stretches):
        if not 0 <= start <= stop <= size or (found and start < found[-1][1]):
            raise ValueError(
                f"{what} must be stretches within 0..{size} that do not overlap; found {list(stretches)}"
            )
        if found and start == found[-1][1]:
            found[-1] = (found[-1][0], stop)
        elif start < stop:
            found.append((start, stop))
    return found
