"""Computes exact order statistics by counting. The numbers need not be in memory.

A float's bits are mapped to an unsigned integer, its key, so that keys ascend with the floats. Keys are
counted by their first 16 bits. Then those with the first bits of a wanted key are counted one by one. Counts
add up in any order, so the result does not depend on the pieces in which the numbers come.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from distbp.core.arrays import Array

_FIRST = 1 << 16
_HELD = 1 << 22  # the most keys that are kept; else they are computed again
_WAITING = 1 << 21  # keys that are counted at once


class Counted:
    """Counts numbers. `parts()` yields arrays of `dtype` (float32 or float64) without NaN, the same at every
    call."""

    def __init__(self, parts: Callable[[], Iterable[Array]], dtype: type[np.floating]) -> None:
        self._parts, self._dtype = parts, np.dtype(dtype)
        self._shift = 8 * self._dtype.itemsize - 16
        self._held: list[Array] | None = []
        self.total, self._first = 0, np.zeros(_FIRST, np.int64)
        for keys in map(_keys, parts()):
            self._first += np.bincount(self._begins(keys), minlength=_FIRST)
            self.total += len(keys)
            if self._held is not None:
                self._held.append(keys)
                self._held = self._held if self.total <= _HELD else None

    def heavy(self, share: int) -> tuple[Array, Array]:
        """The numbers that each make up more than 1/share of all, ascending, and their counts."""
        keys, counts = self._counts(np.flatnonzero(self._first * share > self.total))
        many = counts * share > self.total
        return self._numbers(keys[many]), counts[many]

    def quantiles(self, shares: Array, without: tuple[Array, Array] | None = None) -> Array:
        """The quantiles as `numpy.quantile` computes them (linear between two numbers), float64. without:
        numbers to leave out, and their counts, as `heavy` returns them."""
        first = self._first.copy()
        out = _keys(np.empty(0, self._dtype) if without is None else without[0])
        if without is not None:
            np.subtract.at(first, self._begins(out), without[1])
        sums = np.cumsum(first)
        places = np.asarray(shares) * (sums[-1] - 1)
        below = np.floor(places).astype(np.int64)
        ranks = np.unique([below, np.minimum(below + 1, sums[-1] - 1)])
        begins = np.searchsorted(sums, ranks, side="right")
        keys, counts = self._counts(np.unique(begins))
        counts = np.where(np.isin(keys, out), 0, counts)
        among = np.append(0, np.cumsum(counts))
        start = among[np.searchsorted(self._begins(keys), begins)]
        rank = start + ranks - (sums[begins] - first[begins])
        numbers = self._numbers(keys[np.searchsorted(among[1:], rank, side="right")]).astype(np.float64)
        low = numbers[np.searchsorted(ranks, below)]
        high = numbers[np.minimum(np.searchsorted(ranks, below + 1), len(ranks) - 1)]
        return np.asarray(low + (high - low) * (places - below))

    def _counts(self, begins: Array) -> tuple[Array, Array]:
        """The distinct keys with these first bits, ascending, and their counts."""
        wanted = np.full(_FIRST, False)
        wanted[begins] = True
        keys, counts = np.empty(0, f"u{self._dtype.itemsize}"), np.empty(0, np.int64)
        waiting: list[Array] = []
        for part in self._all() if len(begins) else ():
            waiting.append(np.compress(wanted[self._begins(part)], part))
            if sum(map(len, waiting)) > _WAITING:
                keys, counts = _merged(keys, counts, waiting)
                waiting = []
        return _merged(keys, counts, waiting)

    def _all(self) -> Iterator[Array]:
        return map(_keys, self._parts()) if self._held is None else iter(self._held)

    def _begins(self, keys: Array) -> Array:
        return (keys >> self._shift).astype(np.intp)

    def _numbers(self, keys: Array) -> Array:
        """The inverse of `_keys`."""
        top = keys.dtype.type(1 << (8 * keys.itemsize - 1))
        return np.where(keys & top, keys ^ top, ~keys).view(self._dtype)


def _keys(numbers: Array) -> Array:
    """The keys: unsigned integers that ascend with the numbers. -0 counts as 0."""
    bits = (numbers + numbers.dtype.type(0)).view(f"u{numbers.itemsize}")
    # For a number below 0 all bits are inverted, for others only the first bit.
    signs = (bits.view(f"i{bits.itemsize}") >> (8 * bits.itemsize - 1)).view(bits.dtype)
    signs |= bits.dtype.type(1 << (8 * bits.itemsize - 1))
    return np.asarray(np.bitwise_xor(bits, signs, out=signs))


def _merged(keys: Array, counts: Array, more: list[Array]) -> tuple[Array, Array]:
    part, often = np.unique(np.concatenate([keys[:0], *more]), return_counts=True)
    if not len(keys):
        return part, often
    every, place = np.unique(np.append(keys, part), return_inverse=True)
    return every, np.bincount(place, np.append(counts, often), len(every)).astype(np.int64)
