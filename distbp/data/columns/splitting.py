"""Which rows of a table train, and which only measure. Split first, fit afterward."""

from __future__ import annotations

import numpy as np

from distbp.core.arrays import Array
from distbp.core.errors import DataError
from distbp.core.streams import Purpose, generator

Parts = dict[str, Array]
MEASURING = ("test", "validation")  # in the order in which they are drawn


def split_rows(
    rows: int,
    shares: dict[str, float],
    way: str,
    seed: int,
    *,
    classes: Array | None = None,
    groups: Array | None = None,
    times: Array | None = None,
    name: str = "the table",
) -> Parts:
    """Row numbers, ascending, of "train" and of every split with a share above 0. Raises DataError where
    one would be empty.

    random: shuffled by the seed. stratified: within each of `classes` (whole numbers). group: rows of one
    of `groups` stay together. time: the latest rows are the test set, those before them the validation set;
    rows of one time stay together.
    """
    if way == "time":
        assert times is not None
        found = _by_time(rows, shares, times)
    elif way == "group":
        assert groups is not None
        found = _by_group(rows, shares, seed, groups)
    else:
        labels = classes if way == "stratified" and classes is not None else np.zeros(rows, np.int64)
        found = _at_random(rows, shares, seed, labels)
    for split, numbers in found.items():
        if not len(numbers):
            raise DataError(
                f"{name}: the {split} set would have no row ({rows:,} rows, split by {way}); give it"
                " another share,"
                " or split in another way"
            )
    return found


def _at_random(rows: int, shares: dict[str, float], seed: int, labels: Array) -> Parts:
    """Of each label the same share, rounded to whole rows."""
    keys = generator(seed, Purpose.SPLIT).random(rows)
    order = np.lexsort((keys, labels))
    ordered = labels[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1], True])
    owner = np.zeros(rows, np.int8)
    for start, stop in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        place = start
        for number, split in enumerate(MEASURING, 1):
            count = round(shares.get(split, 0) * (stop - start))
            owner[order[place : place + count]] = number
            place += count
    return _parts(owner, shares)


def _by_group(rows: int, shares: dict[str, float], seed: int, groups: Array) -> Parts:
    counts = np.bincount(groups)
    order = np.argsort(generator(seed, Purpose.SPLIT).random(len(counts)), kind="stable")
    owner_of = np.zeros(len(counts), np.int8)
    waiting = iter(order.tolist())
    for number, split in enumerate(MEASURING, 1):
        wanted, have = shares.get(split, 0) * rows, 0
        while have < wanted and (group := next(waiting, None)) is not None:
            owner_of[group] = number
            have += int(counts[group])
    return _parts(owner_of[groups], shares)


def _by_time(rows: int, shares: dict[str, float], times: Array) -> Parts:
    ordered = np.sort(times)
    owner = np.zeros(rows, np.int8)
    stop: float = np.inf
    place = rows
    for number, split in enumerate(MEASURING, 1):
        count = round(shares.get(split, 0) * rows)
        if count:
            place -= count
            start = float(ordered[max(0, place)])
            owner[(times >= start) & (times < stop)] = number
            stop = start
    return _parts(owner, shares)


def _parts(owner: Array, shares: dict[str, float]) -> Parts:
    found = {"train": np.flatnonzero(owner == 0)}
    for number, split in enumerate(MEASURING, 1):
        if shares.get(split, 0):
            found[split] = np.flatnonzero(owner == number)
    return found
