"""Rows that are in the training set and in one that only measures, which then measures too well."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from distbp.core.arrays import Array
from distbp.data.table import Table

MOST_ROWS = 1_000_000  # of all sets together; of more, looking would be felt
_CHUNK_ROWS = 1 << 16


def shared_rows(tables: Mapping[str, Table], targets: Mapping[str, Array]) -> Iterator[str]:
    """How many rows of each set are rows of the training set too, inputs and target, in words. targets: by
    set, (rows,) or (rows, outputs), as the loss takes them."""
    if targets.keys() != tables.keys() or sum(map(len, tables.values())) > MOST_ROWS:
        return  # where targets do not fit the job, that is said
    hashes = {
        name: _mixed(_of_rows(table.inputs)) + _of_rows(targets[name]) for name, table in tables.items()
    }
    for name, table in tables.items():
        found = 0 if name == "train" else int(np.isin(hashes[name], hashes["train"]).sum())
        if found:
            yield (
                f"{found:,} of {len(table):,} rows of the {name} set are in the training set too, with the"
                " same target, so that it measures too well"
            )


def _of_rows(values: Array) -> Array:
    """(rows,) uint64, a hash of the bits. Two rows that differ have the same one by chance: in tables of a
    million rows once in 10 million of them."""
    found = np.empty(len(values), np.uint64)
    for start in range(0, len(values), _CHUNK_ROWS):
        chunk = np.ascontiguousarray(values[start : start + _CHUNK_ROWS])
        rows = chunk.reshape(len(chunk), -1)
        size = rows.shape[1] * rows.itemsize
        words = np.zeros((len(rows), -(-size // 8)), np.uint64)
        words.view(np.uint8)[:, :size] = rows.view(np.uint8)
        factors = _mixed(np.arange(1, words.shape[1] + 1, dtype=np.uint64)) | np.uint64(1)
        np.sum(_mixed(words) * factors, axis=1, out=found[start : start + len(rows)])
    return found


def _mixed(words: Array) -> Array:
    """Every bit of the result depends on all of a word: the finalizer of SplitMix64 (Steele, Lea and Flood,
    2014)."""
    words = words + np.uint64(0x9E3779B97F4A7C15)
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(words ^ (words >> np.uint64(31)))
