"""Groups of parameters: stretches of the flat vector that one rule treats differently."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from distbp.nn.tape import merged

Ranges = Sequence[tuple[int, int]]
Rates = Sequence[tuple[int, int, float]]  # (start, stop, factor)


class Group(NamedTuple):
    """`decays`: whether L1, L2 and weight decay apply. `rate`: a factor on the learning rate."""

    decays: bool
    rate: float


PLAIN = (Group(False, 1.0), Group(True, 1.0))  # the groups of a job in which all rates are 1


class Groups(NamedTuple):
    """`kinds`: the groups, by number; the first two are `PLAIN`. `stretches`: (start, stop, number), in
    order; parameters outside all stretches belong to group 0."""

    kinds: tuple[Group, ...]
    stretches: tuple[tuple[int, int, int], ...]


def groups_of(decays: Ranges, rates: Rates, size: int) -> Groups:
    """The groups of a vector of `size` numbers. decays: stretches that decay. rates: stretches with a factor
    on the learning rate; other parameters have the factor 1. Both may be in any order. Raises ValueError if
    stretches of one kind overlap or leave the vector."""
    decaying = ordered(decays, size)
    ordered([(start, stop) for start, stop, _ in rates], size, "rates")
    kinds = dict.fromkeys(PLAIN)
    for factor in sorted({rate for *_, rate in rates}):
        kinds.update(dict.fromkeys((Group(False, factor), Group(True, factor))))
    numbers = {kind: number for number, kind in enumerate(kinds)}
    # A stretch that begins at a place overrides one that ends there.
    decay_from = {stop: False for _, stop in decaying} | {start: True for start, _ in decaying}
    filled = [one for one in rates if one[0] < one[1]]
    rate_from = {stop: 1.0 for _, stop, _ in filled} | {start: rate for start, _, rate in filled}
    found: list[tuple[int, int, int]] = []
    decay, rate = False, 1.0
    for start, stop in pairwise(sorted({0, size, *decay_from, *rate_from})):
        decay, rate = decay_from.get(start, decay), rate_from.get(start, rate)
        number = numbers[Group(decay, rate)]
        if found and found[-1][2] == number:
            found[-1] = (found[-1][0], stop, number)
        else:
            found.append((start, stop, number))
    return Groups(tuple(kinds), tuple(one for one in found if one[2]))


def ordered(stretches: Ranges, size: int, what: str = "decays") -> list[tuple[int, int]]:
    """Returns the stretches in order, with neighbors joined and without empty ones. `what` names them in the
    error. Raises ValueError if they overlap or leave the vector."""
    ends = [0, *(at for stretch in sorted(stretches) for at in stretch), size]
    if ends != sorted(ends):
        raise ValueError(
            f"{what} must be stretches within 0..{size} that do not overlap; found {list(stretches)}"
        )
    return merged((start, stop) for start, stop in stretches if start < stop)
