"""Numbers, places and sums in words."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

Place = tuple[int, ...]
MISSING = float(np.finfo(np.float32).min)  # in place of a number, in the cells of a table
MOST_TERMS = 4  # of a sum that is written out


def number(value: float) -> str:
    """Nine decimals, as worked examples print them; very small and large ones with a power of ten."""
    if value == 0:
        return "0"
    return f"{value:.9f}" if 1e-4 <= abs(value) < 1e5 else f"{value:.6e}"


def plain(value: float) -> str:
    """At most nine significant digits, without zeros behind; a missing cell of a table by that word."""
    return "missing" if value == MISSING else f"{float(value) + 0.0:.9g}"  # + 0.0: no -0


def short(value: float) -> str:
    """The same for a term: negative ones in brackets."""
    return f"({plain(value)})" if value < 0 else plain(value)


def places(shape: Sequence[int], most: int) -> Iterator[Place]:
    """The first places of an array in C order, as plain numbers."""
    return itertools.islice(np.ndindex(*shape), most)


def at(place: Sequence[int]) -> str:
    return f"[{', '.join(map(str, place))}]"


def total(pairs: Iterable[tuple[float, float]], more: Sequence[float] = ()) -> str:
    """A sum of products, cut after a few terms."""
    terms = [f"{short(float(a))} * {short(float(b))}" for a, b in pairs] + [short(float(v)) for v in more]
    if len(terms) > MOST_TERMS + 1:
        left = len(terms) - MOST_TERMS
        terms = [*terms[:MOST_TERMS], f"... ({left} more)"]
    return " + ".join(terms) if terms else "0"
