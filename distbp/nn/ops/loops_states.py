"""The ops of `states`, compiled (Numba, optional)."""

from __future__ import annotations

import numpy as np

from distbp.nn.ops.rows import flat, labels, single, whole

_ZERO = np.float32(0)


def load_states(row: int, spaces: int, rows: int) -> None:
    states, shard = single(row, spaces, rows, 0), labels(row, spaces, rows, 1)
    begins, out = single(row, spaces, rows, 2), single(row, spaces, rows, 3)
    first = shard[0, 0] * whole(row, 0)
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            out[i, j] = _ZERO if begins[i, 0] != _ZERO else states[first + i, j]


def store_states(row: int, spaces: int, rows: int) -> None:
    a, shard = single(row, spaces, rows, 0), labels(row, spaces, rows, 1)
    states, everything = single(row, spaces, rows, 2), flat(row, spaces, rows, 2)
    first = shard[0, 0] * whole(row, 0)
    for k in range(everything.size):
        everything[k] = _ZERO
    for i in range(a.shape[0]):
        for j in range(a.shape[1]):
            states[first + i, j] = a[i, j]
