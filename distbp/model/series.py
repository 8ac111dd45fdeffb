"""Predicts whole series with a network that takes them window by window."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from distbp.core.arrays import Array
from distbp.data.sequences import Samples
from distbp.data.series import side_by_side, take_windows, windows_of
from distbp.model.joined import Joined
from distbp.nn.kernels import NUMPY
from distbp.nn.losses.several import Heads
from distbp.nn.network import Network

Prepare = Callable[[Samples, int, Array], None]  # see `Model.prepare`


def outputs_of_series(
    network: Network, heads: Heads, vectors: Sequence[Array], x: Samples, most: int, prepare: Prepare
) -> Array:
    """The outputs of every step of series, (n, steps, outputs); 0 past the end of each series.

    most: the rows of a forward pass. prepare: writes rows as the network takes them."""
    assert x.lengths is not None
    most = max(1, min(most, len(x)))
    joined = Joined(heads, network, vectors, most, NUMPY)
    count, steps = x.inputs.shape[1], network.input_shape[0]
    found = np.zeros((len(x), count, *network.answer_shapes[0]), network.dtype)
    series, first = windows_of(x.lengths, steps)
    room = np.empty((most, *network.row_shape), network.input_dtype)
    for rows in side_by_side(first == 0, most):
        of, start = series[rows], first[rows]
        own = np.minimum(x.lengths[of] - start, steps)
        windows = Samples(take_windows(x.inputs, of, start, steps), own, begins=start == 0)
        prepare(windows, 0, room[: len(rows)])
        y = joined.outputs(room[: len(rows)])  # goes on from the states after the last call
        for t in range(steps):
            there = np.flatnonzero(t < own)
            found[of[there], start[there] + t] = y[there, t]
    return found


def each_step(y: Array, x: Samples, answer: Callable[[Array], Array]) -> Array:
    """Applies `answer` to the outputs of every step and returns an array (n, steps, ...). Floats are NaN past
    the end of each series. y: (n, steps, outputs), the outputs for the series x."""
    assert x.lengths is not None
    found = answer(y.reshape(-1, y.shape[-1]))
    found = found.reshape(*y.shape[:2], *found.shape[1:])
    if found.dtype.kind == "f":
        found[np.arange(y.shape[1]) >= x.lengths[:, None]] = np.nan
    return found
