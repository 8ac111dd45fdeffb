"""Finds rows of validation and test sets that are in the training set, too."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from distbp.core.arrays import Array
from distbp.data.table import Table

MOST_ROWS = 1_000_000  # of all sets together; for more rows the search would take too long
_CHUNK_ROWS = 1 << 16


def shared_rows(tables: Mapping[str, Table], targets: Mapping[str, Array]) -> Iterator[str]:
    """Yields a note for each set with rows that are in the training set, too, with equal inputs and target.
    targets: by set, (rows,) or (rows, outputs), as the loss takes them."""
    if targets.keys() != tables.keys() or sum(map(len, tables.values())) > MOST_ROWS:
        return  # targets that do not fit the job are another check's fault
    hashes = {
        name: _mixed(_of_rows(table.inputs)) + _of_rows(targets[name]) for name, table in tables.items()
    }
    for name, table in tables.items():
        count = 0 if name == "train" else int(np.isin(hashes[name], hashes["train"]).sum())
        if count:
            yield (
                f"{count:,} of {len(table):,} rows of the {name} set are in the training set too, with the"
                " same target, so it measures too well"
            )


def _of_rows(values: Array) -> Array:
    """A hash of the bits of each row, (rows,) uint64. In a table of a million rows, some pair of different
    rows has the same hash with a probability of 1 in 10 million."""
    hashes = np.empty(len(values), np.uint64)
    for start in range(0, len(values), _CHUNK_ROWS):
        chunk = np.ascontiguousarray(values[start : start + _CHUNK_ROWS])
        rows = chunk.reshape(len(chunk), -1)
        size = rows.shape[1] * rows.itemsize
        words = np.zeros((len(rows), -(-size // 8)), np.uint64)
        words.view(np.uint8)[:, :size] = rows.view(np.uint8)
        factors = _mixed(np.arange(1, words.shape[1] + 1, dtype=np.uint64)) | np.uint64(1)
        np.sum(_mixed(words) * factors, axis=1, out=hashes[start : start + len(rows)])
    return hashes


def _mixed(words: Array) -> Array:
    """Mixes each word, so that every bit of the result depends on all bits: the finalizer of SplitMix64
    (Steele, Lea and Flood, 2014)."""
    words = words + np.uint64(0x9E3779B97F4A7C15)
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(words ^ (words >> np.uint64(31)))
