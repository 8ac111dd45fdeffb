"""Splits the rows of a table into those that train and those that only measure, before anything is fitted."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from distbp.core.arrays import Array
from distbp.core.errors import DataError
from distbp.core.streams import Purpose, generator
from distbp.core.words import counted

OWNERS = ("train", "test", "validation")  # by number; the test set is drawn before the validation set
NOBODY = -1
_PIECE = 1 << 18
_BINS, _CELLS = 1 << 12, 1 << 20


def split_rows(
    rows: int,
    shares: dict[str, float],
    way: str,
    seed: int,
    *,
    kept: Array | None = None,
    classes: Array | None = None,
    groups: Array | None = None,
    times: Array | None = None,
    name: str = "the table",
) -> Array:
    """The number of each row's split in `OWNERS`, (rows,) int8; NOBODY for rows that are not `kept`. Raises
    DataError if a split would be empty.

    `way`: "random": shuffled by the seed. "stratified": the same within each of `classes`, (rows,) whole
    numbers from 0. "group": rows with the same number in `groups`, (rows,) whole numbers from 0, stay
    together. "time": the latest rows are the test set, and those before them the validation set; rows with
    the same time stay together.
    """
    there = np.ones(rows, bool) if kept is None else kept
    if way == "time":
        assert times is not None
        owner = _by_time(shares, times, there)
    elif way == "group":
        assert groups is not None
        owner = _by_group(shares, seed, groups, there)
    else:
        owner = _at_random(rows, shares, seed, classes if way == "stratified" else None, there)
    if kept is not None:
        owner[~kept] = NOBODY
    found = [int((owner == number).sum()) for number in range(len(OWNERS))]
    for split, count in zip(OWNERS, found, strict=True):
        if not count and (split == "train" or shares.get(split, 0)):
            if classes is not None and way == "stratified":
                way = f"stratified, each of {len(np.unique(classes[there])):,} classes by itself"
            raise DataError(
                f"{name}: the {split} set would have no row ({counted(sum(found), 'row')}, split by {way});"
                " give it another share, or split in another way"
            )
    return owner


def _at_random(rows: int, shares: dict[str, float], seed: int, classes: Array | None, there: Array) -> Array:
    """Draws a random key for each row. In each class (without classes: in the table) the rows with the
    smallest keys are the test set, and the next ones the validation set. Their shares are rounded to whole
    rows. All keys may not fit in memory, so they are drawn twice and counted in bins; only bins in which a
    split ends are sorted."""
    labels = 1 if classes is None or not rows else int(classes.max()) + 1
    bins = max(1, min(_BINS, _CELLS // labels))

    def drawn() -> Iterator[tuple[slice, Array, Array]]:
        """Yields pieces of rows, their keys, and their bins."""
        draw = generator(seed, Purpose.SPLIT)
        for start in range(0, rows, _PIECE):
            part = slice(start, min(start + _PIECE, rows))
            keys = draw.random(part.stop - start)
            place = (keys * bins).astype(np.int64)
            yield part, keys, place if classes is None else place + bins * classes[part].astype(np.int64)

    counts = np.zeros(labels * bins, np.int64)
    for part, _, place in drawn():
        counts += np.bincount(place[there[part]], minlength=len(counts))
    by_label = counts.reshape(labels, bins)
    totals = by_label.sum(axis=1)
    ends = np.cumsum([np.round(shares.get(split, 0) * totals) for split in OWNERS[1:]], axis=0).astype(
        np.int64
    )
    before = (np.cumsum(by_label, axis=1) - by_label).reshape(-1)
    # For each bin: the number of splits that end at or before its first row, and whether one ends inside.
    ends_of = np.repeat(ends, bins, axis=1)
    done = (ends_of <= before).sum(axis=0)
    cut = np.sum((ends_of > before) & (ends_of < before + counts), axis=0) > 0
    owner_of = np.array([1, 2, 0], np.int8)
    owner, open_ = np.empty(rows, np.int8), []
    for part, keys, place in drawn():
        owner[part] = owner_of[done[place]]
        inside = np.flatnonzero(cut[place] & there[part])
        open_.append((place[inside], keys[inside], part.start + inside))
    place, keys, numbers = (np.concatenate(each) for each in zip(*open_, strict=True))
    order = np.lexsort((keys, place))
    place, numbers = place[order], numbers[order]
    rank = before[place] + np.arange(len(place)) - np.searchsorted(place, place)
    owner[numbers] = owner_of[(ends[:, place // bins] <= rank).sum(axis=0)]
    return owner


def _by_group(shares: dict[str, float], seed: int, groups: Array, there: Array) -> Array:
    counts = np.bincount(groups[there])
    rows = int(counts.sum())
    order = np.argsort(generator(seed, Purpose.SPLIT).random(len(counts)), kind="stable")
    owner_of = np.zeros(len(counts) + 1, np.int8)
    waiting = iter(order.tolist())
    for number, split in enumerate(OWNERS[1:], 1):
        wanted, have = shares.get(split, 0) * rows, 0
        while have < wanted and (group := next(waiting, None)) is not None:
            owner_of[group] = number
            have += int(counts[group])
    return owner_of[np.where(there, groups, 0)]


def _by_time(shares: dict[str, float], times: Array, there: Array) -> Array:
    ordered = np.sort(times[there])
    owner = np.zeros(len(times), np.int8)
    stop: float = np.inf
    place = len(ordered)
    for number, split in enumerate(OWNERS[1:], 1):
        count = round(shares.get(split, 0) * len(ordered))
        if count:
            place -= count
            start = float(ordered[max(0, place)])
            owner[(times >= start) & (times < stop)] = number
            stop = start
    return owner
