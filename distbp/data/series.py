"""Series that are cut into windows, through which recurrent layers carry their states.

A window is a row. The windows of a series stand one after the other, and each says whether a series begins in
it: the last number of a row, as it is computed with. A shard owns whole series. A batch has some *lanes*, the
rows of the shard's slice: the slice of the next step has the windows that follow those of this one. So the
state that row i leaves is what row i of the next step goes on from.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from distbp.core.arrays import Array


def begins_of(inputs: Array, rows: Array | slice = slice(None)) -> Array:
    """Of some rows whether a series begins in them, bool. inputs: (n, numbers), as they are computed with."""
    return np.asarray(inputs[rows, -1] != 0)


def windows_of(lengths: Array, steps: int) -> tuple[Array, Array]:
    """The windows of series of these lengths, (n,): of each the number of its series, and its first step."""
    counts = -(-lengths // steps)
    series = np.repeat(np.arange(len(lengths)), counts)
    return series, (np.arange(len(series)) - np.repeat(np.cumsum(counts) - counts, counts)) * steps


def take_windows(values: Array, series: Array, first: Array, steps: int) -> Array:
    """(windows, steps, ...) of values (n, steps of all, ...); 0 past the end of these."""
    out = np.zeros((len(series), steps, *values.shape[2:]), values.dtype)
    for t in range(steps):
        there = np.flatnonzero(first + t < values.shape[1])
        out[there, t] = values[series[there], first[there] + t]
    return out


def in_series(begins: Array, generator: np.random.Generator | None, kept: int = 0) -> Array:
    """Places 0 to n - 1 in another order: whole series are shuffled, and the windows of each stay in their
    order. begins: (n,), the first one true. generator: None: nothing is shuffled. kept: so many series stay
    in front."""
    starts = np.flatnonzero(begins)
    if generator is None or not len(starts):
        return np.arange(len(begins))
    order = np.concatenate([np.arange(kept), kept + generator.permutation(len(starts) - kept)])
    lengths = np.diff(starts, append=len(begins))[order]
    return np.repeat(starts[order] - (np.cumsum(lengths) - lengths), lengths) + np.arange(len(begins))


def in_lanes(windows: Array, lanes: int) -> Array:
    """The windows, (n,), slice after slice: each slice takes the next window of every lane. Lanes are
    consecutive windows, the first n % lanes of them one longer than the others, so that the last slice is a
    smaller one."""
    full, longer = divmod(len(windows), max(1, lanes))
    starts = np.arange(lanes) * full + np.minimum(np.arange(lanes), longer)
    places = (starts + np.arange(full)[:, None]).ravel()
    return np.asarray(windows[np.concatenate([places, starts[:longer] + full])])


def next_begin(begins: Array, place: int) -> int:
    """The first place from `place` on where a series begins; after the last one the number of places."""
    after = np.flatnonzero(begins[place:])
    return place + int(after[0]) if len(after) else len(begins)


def side_by_side(begins: Array, most: int) -> Iterator[Array]:
    """The places of windows, slice after slice: up to `most` series at a time, each in a row of its own,
    longer ones before shorter ones, so that those that have ended leave no gap."""
    starts = np.flatnonzero(begins)
    lengths = np.diff(starts, append=len(begins))
    order = np.argsort(-lengths, kind="stable")
    for group in range(0, len(order), most):
        some = order[group : group + most]
        for number in range(int(lengths[some[0]])):
            yield starts[some[lengths[some] > number]] + number
