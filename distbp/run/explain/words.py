"""Formats numbers, places and sums."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

Place = tuple[int, ...]
MISSING = float(np.finfo(np.float32).min)  # stands for a missing number in a table's cells
MOST_TERMS = 4  # the terms of a sum that are written out


def number(value: float) -> str:
    """Nine decimals, as worked examples print them; very small and large numbers with a power of ten."""
    if value == 0:
        return "0"
    return f"{value:.9f}" if 1e-4 <= abs(value) < 1e5 else f"{value:.6e}"


def plain(value: float) -> str:
    """At most nine significant digits, without trailing zeros; "missing" for MISSING."""
    return "missing" if value == MISSING else f"{float(value) + 0.0:.9g}"  # + 0.0: no -0


def short(value: float) -> str:
    """As `plain`, for a term of a formula: negative numbers in brackets."""
    return f"({plain(value)})" if value < 0 else plain(value)


def places(shape: Sequence[int], most: int) -> Iterator[Place]:
    """The first `most` places of an array, in C order."""
    return itertools.islice(np.ndindex(*shape), most)


def at(place: Sequence[int]) -> str:
    return f"[{', '.join(map(str, place))}]"


def total(pairs: Iterable[tuple[float, float]], more: Sequence[float] = ()) -> str:
    """A sum of products as text, cut after a few terms."""
    terms = [f"{short(float(a))} * {short(float(b))}" for a, b in pairs] + [short(float(v)) for v in more]
    if len(terms) > MOST_TERMS + 1:
        left = len(terms) - MOST_TERMS
        terms = [*terms[:MOST_TERMS], f"... ({left} more)"]
    return " + ".join(terms) if terms else "0"
