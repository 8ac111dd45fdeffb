"""The search for rows that are not zero, in compiled code (Numba, optional)."""

from __future__ import annotations

import numpy as np

from distbp.core.arrays import Array
from distbp.machine.jit import jit


def live_rows(words: Array) -> Array:
    """See `sparse_sums.live_rows`."""
    rows = np.empty(len(words), np.int64)
    return rows[: _find(words, rows)].copy()  # a view would keep the whole array


@jit
def _find(words: Array, found: Array) -> int:
    """Writes the numbers of rows with a bit that is not 0; returns how many. words: (rows, words of a row),
    uint32; found: (rows,), int64."""
    count = 0
    for row in range(words.shape[0]):
        bits = words[row, 0]
        for k in range(words.shape[1]):  # without an early end, so that the loop gets vector instructions
            bits |= words[row, k]
        found[count] = row  # without a branch, which the processor could not predict
        count += bits != 0
    return count
