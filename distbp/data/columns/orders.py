"""Order statistics of more numbers than fit in memory, exact, by counting.

The bits of a float, turned so that they ascend with it, are whole numbers; these are counted by their first
16 bits, and where a wanted rank lies by their next 16. Whole numbers add up in any order, so the result does
not depend on how the numbers were cut, and memory does not depend on how many they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from distbp.core.arrays import Array

_DIGIT = 1 << 16
_GROUP = 64  # prefixes that are counted in one pass: 32 MiB of counts


class Counted:
    """`parts()` yields the numbers, again at every call: all float32 or all float64, without NaN."""

    def __init__(self, parts: Callable[[], Iterable[Array]], dtype: type[np.floating]) -> None:
        self._parts, self._dtype = parts, np.dtype(dtype)
        self._levels = self._dtype.itemsize // 2
        self._counts = [{0: np.zeros(_DIGIT, np.int64)}, *({} for _ in range(1, self._levels))]
        for keys in self._keys():
            self._counts[0][0] += _count(keys >> (16 * (self._levels - 1)))
        self.total = int(self._counts[0][0].sum())

    def heavy(self, share: int) -> tuple[Array, Array]:
        """The numbers that are more than 1/share of all, ascending, and how often each is there."""
        found = {0: self._counts[0][0]}
        for level in range(self._levels):
            prefixes = [
                prefix << 16 | int(digit)
                for prefix, counts in found.items()
                for digit in np.flatnonzero(counts * share > self.total)
            ]
            if level + 1 == self._levels:
                often = [int(found[p >> 16][p & (_DIGIT - 1)]) for p in prefixes]
                return self._numbers(prefixes), np.array(often, np.int64)
            found = self._refined(level + 1, prefixes)
        raise AssertionError

    def quantiles(self, shares: Array, without: tuple[Array, Array] | None = None) -> Array:
        """As `numpy.quantile` gives them (linear between two numbers), float64. `without`: numbers that are
        left out, ascending, and how often each is there, as `heavy` gives them."""
        left_out: dict[tuple[int, int], Array] = {}
        total = self.total
        for key, count in (
            zip(_keys(without[0]).tolist(), without[1].tolist(), strict=True) if without else ()
        ):
            total -= count
            for level in range(self._levels):
                digits = key >> 16 * (self._levels - 1 - level)
                place = left_out.setdefault((level, digits >> 16), np.zeros(_DIGIT, np.int64))
                place[digits & (_DIGIT - 1)] += count
        places = np.asarray(shares) * (total - 1)
        below = np.floor(places).astype(np.int64)
        above = np.minimum(below + 1, total - 1)
        ranks = np.unique([below, above])
        prefixes, rest = np.zeros(len(ranks), np.int64).tolist(), ranks.copy()
        for level in range(self._levels):
            counts = self._refined(level, sorted(set(prefixes)))
            for i, prefix in enumerate(prefixes):
                of = counts[prefix] - left_out.get((level, prefix), 0)
                sums = np.cumsum(of)
                digit = int(np.searchsorted(sums, rest[i], side="right"))
                rest[i] -= sums[digit] - of[digit]
                prefixes[i] = prefix << 16 | digit
        numbers = self._numbers(prefixes).astype(np.float64)
        low, high = numbers[np.searchsorted(ranks, below)], numbers[np.searchsorted(ranks, above)]
        return np.asarray(low + (high - low) * (places - below))

    def _refined(self, level: int, prefixes: list[int]) -> dict[int, Array]:
        """Of each prefix, how often each digit follows it."""
        known = self._counts[level]
        new = [prefix for prefix in prefixes if prefix not in known]
        for start in range(0, len(new), _GROUP):
            group = np.array(new[start : start + _GROUP], np.uint64)
            counts = np.zeros(len(group) * _DIGIT, np.int64)
            for keys in self._keys():
                digits = keys >> (16 * (self._levels - 1 - level))
                place = np.searchsorted(group, digits >> 16)
                there = np.flatnonzero(group[np.minimum(place, len(group) - 1)] == digits >> 16)
                index = place[there] * _DIGIT + (digits[there] & (_DIGIT - 1)).astype(np.int64)
                counts += np.bincount(index, minlength=len(counts))
            known.update(zip(map(int, group), counts.reshape(-1, _DIGIT), strict=True))
        return {prefix: known[prefix] for prefix in prefixes}

    def _keys(self) -> Iterable[Array]:
        return map(_keys, self._parts())

    def _numbers(self, keys: list[int]) -> Array:
        """The inverse of `_keys`."""
        bits = np.array(keys, f"u{self._dtype.itemsize}")
        top = bits.dtype.type(1 << (8 * bits.itemsize - 1))
        return np.where(bits & top, bits ^ top, ~bits).view(self._dtype)


def _keys(numbers: Array) -> Array:
    """Unsigned whole numbers that ascend with the numbers. -0 counts as 0."""
    bits = (numbers + numbers.dtype.type(0)).view(f"u{numbers.itemsize}")
    top = bits.dtype.type(1 << (8 * bits.itemsize - 1))
    return np.asarray(np.where(bits & top, ~bits, bits | top))


def _count(digits: Array) -> Array:
    return np.bincount(digits.astype(np.int64), minlength=_DIGIT)
