"""States that recurrent layers carry from one window of a series to the next.

    states     (shards * lanes, columns): a state for each row of each shard's slice, shard after shard
    shard      (1, 1): the number of the shard, int64
    begins     (rows, 1): not 0 if a series begins in the row, which then takes no state over

whole[0]: the lanes of a shard, at least the rows of its slice.
"""

from __future__ import annotations

import numpy as np

from distbp.core.arrays import Array
from distbp.nn.ops.base import Op, Real, Whole, element_ops


def _load_states(states: Array, shard: Array, begins: Array, out: Array, whole: Whole, real: Real) -> None:
    """out (rows, columns) <- the states of the shard; 0 for rows in which a series begins."""
    first = int(shard[0, 0]) * whole[0]
    out[:] = np.where(begins != 0, 0, states[first : first + len(out)])


def _store_states(a: Array, shard: Array, states: Array, whole: Whole, real: Real) -> None:
    """states <- a (rows, columns) in the shard's rows, else 0. So the sum over shards holds all states."""
    first = int(shard[0, 0]) * whole[0]
    states.fill(0)
    states[first : first + len(a)] = a


_HERE = "distbp.nn.ops.loops_states:"
STATES = (
    Op("load_states", "fifF", _load_states, f"{_HERE}load_states", "", element_ops(0)),
    Op("store_states", "fiF", _store_states, f"{_HERE}store_states", "", element_ops(0)),
)
