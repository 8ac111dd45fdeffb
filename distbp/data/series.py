"""Series that are cut into windows. Recurrent layers carry their states from window to window.

A window is a row. The windows of a series are consecutive rows. The last number of a prepared row says
whether a series begins in this window. A shard owns whole series. The rows of a shard's slice are *lanes*:
row i of the next slice is the window that follows row i of this slice. So it goes on from the state that row
i leaves.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from distbp.core.arrays import Array


def begins_of(inputs: Array, rows: Array | slice = slice(None)) -> Array:
    """Whether a series begins in each of some rows, bool. inputs: (n, numbers), prepared rows."""
    return np.asarray(inputs[rows, -1] != 0)


def windows_of(lengths: Array, steps: int) -> tuple[Array, Array]:
    """Cuts series of these lengths, (n,), into windows. Returns for each window the number of its series, and
    its first step."""
    counts = -(-lengths // steps)
    series = np.repeat(np.arange(len(lengths)), counts)
    return series, (np.arange(len(series)) - np.repeat(np.cumsum(counts) - counts, counts)) * steps


def take_windows(values: Array, series: Array, first: Array, steps: int) -> Array:
    """The windows (windows, steps, ...) of values (n, all steps, ...); 0 past the end of a series."""
    out = np.zeros((len(series), steps, *values.shape[2:]), values.dtype)
    for t in range(steps):
        there = np.flatnonzero(first + t < values.shape[1])
        out[there, t] = values[series[there], first[there] + t]
    return out


def in_series(begins: Array, generator: np.random.Generator | None, kept: int = 0) -> Array:
    """The places 0 to n - 1 in a random order of whole series; the windows of each series stay in order.
    begins: (n,), the first is true. generator: None: nothing is shuffled. kept: the number of series that
    stay in front."""
    starts = np.flatnonzero(begins)
    if generator is None or not len(starts):
        return np.arange(len(begins))
    order = np.concatenate([np.arange(kept), kept + generator.permutation(len(starts) - kept)])
    lengths = np.diff(starts, append=len(begins))[order]
    return np.repeat(starts[order] - (np.cumsum(lengths) - lengths), lengths) + np.arange(len(begins))


def in_lanes(windows: Array, lanes: int) -> Array:
    """The windows, (n,), slice after slice; a slice has the next window of every lane. A lane is a stretch of
    consecutive windows. The first n % lanes lanes are one window longer, so the last slice may be smaller."""
    full, longer = divmod(len(windows), max(1, lanes))
    starts = np.arange(lanes) * full + np.minimum(np.arange(lanes), longer)
    places = (starts + np.arange(full)[:, None]).ravel()
    return np.asarray(windows[np.concatenate([places, starts[:longer] + full])])


def next_begin(begins: Array, place: int) -> int:
    """The first place from `place` on at which a series begins; the number of places if there is none."""
    after = np.flatnonzero(begins[place:])
    return place + int(after[0]) if len(after) else len(begins)


def side_by_side(begins: Array, most: int) -> Iterator[Array]:
    """Yields the places of windows, slice after slice: up to `most` series at a time, each in a row of its
    own. Longer series come first, so series that have ended leave no gap."""
    starts = np.flatnonzero(begins)
    lengths = np.diff(starts, append=len(begins))
    order = np.argsort(-lengths, kind="stable")
    for group in range(0, len(order), most):
        some = order[group : group + most]
        for number in range(int(lengths[some[0]])):
            yield starts[some[lengths[some] > number]] + number
