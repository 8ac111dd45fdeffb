"""The ops of `picks`, compiled (Numba, optional)."""

from __future__ import annotations

import numpy as np

from distbp.machine.scalars import larger, smaller
from distbp.nn.ops.rows import flat, labels, single

_ZERO = np.float32(0)


def gather_rows(row: int, spaces: int, rows: int) -> None:
    ids, table, out = labels(row, spaces, rows, 0), single(row, spaces, rows, 1), single(row, spaces, rows, 2)
    number, taken = 0, out.shape[0] // larger(1, ids.shape[0])
    for i in range(ids.shape[0]):
        for k in range(taken):
            source = smaller(larger(ids[i, k], 0), table.shape[0] - 1)  # inside the table for any id
            for j in range(table.shape[1]):
                out[number, j] = table[source, j]
            number += 1


def scatter_add_rows(row: int, spaces: int, rows: int) -> None:
    ids, d, out = labels(row, spaces, rows, 0), single(row, spaces, rows, 1), single(row, spaces, rows, 2)
    everything = flat(row, spaces, rows, 2)
    for k in range(everything.size):
        everything[k] = _ZERO
    number, taken = 0, d.shape[0] // larger(1, ids.shape[0])
    for i in range(ids.shape[0]):
        for k in range(taken):
            to = smaller(larger(ids[i, k], 0), out.shape[0] - 1)
            for j in range(out.shape[1]):
                out[to, j] += d[number, j]
            number += 1
