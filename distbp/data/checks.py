"""Checks of what a table holds: finite inputs and targets, labels that are there, weights that can be summed.

All of them stream, so memory stays flat for memory-mapped tables.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from typing import Literal

import numpy as np

from distbp import settings
from distbp.data.table import Table, chunks
from distbp.errors import DataError
from distbp.nn.layers.base import Array

BadRows = Literal["refuse", "skip"]


def check_rows(table: Table, bad_rows: BadRows = "refuse") -> Table:
    """The table without bad rows: NaN or Inf anywhere, no label, a weight below 0.

    "refuse": raises DataError with the file, row and column of the first, and the number of bad rows.
    "skip": leaves them out; DataError only if none is left, or no row weighs anything.
    """
    keep = np.ones(len(table), dtype=bool)
    first = ""
    for array, name, what in (
        (table.inputs, table.name, "inputs"),
        (table.targets, table.targets_name or table.name, "targets"),
        (table.weights, table.name, "weights"),
    ):
        if array is not None:
            first = _mark_bad(array, keep, table, name, what, first)
    bad = len(table) - int(keep.sum())
    if bad and bad_rows == "refuse":
        raise DataError(f"{first}. {bad:,} of {len(table):,} rows are bad; mend them, or set bad_rows: skip")
    if bad == len(table):
        raise DataError(f"{first}. All {bad:,} rows are bad, so that none is left; mend the data")
    if bad:
        table = _without(table, keep)
    if table.weights is not None and not table.weights.any():
        raise DataError(
            f"{table.name}: all weights are 0, so that nothing can be learned; give some row a weight"
        )
    return table


def _mark_bad(array: Array, keep: Array, table: Table, name: str, what: str, first: str) -> str:
    """Clears `keep` for the bad rows of `array`; returns the description of the first bad row so far."""
    floats, text, signed = array.dtype.kind == "f", array.dtype.kind == "U", what == "weights"
    if not floats and not text and not signed:
        return first
    for start, chunk in chunks(array):
        good = np.isfinite(chunk) if floats else chunk != "" if text else np.ones(chunk.shape, dtype=bool)
        if signed:
            good &= chunk >= 0
        if good.all():
            continue
        if not first:
            place = np.unravel_index(int(good.argmin()), good.shape)
            value = chunk[place]
            shown = (
                "missing"
                if text
                else "NaN"
                if value != value
                else ("Inf" if value > 0 else "-Inf")
                if np.isinf(value)
                else f"{value}"
            )
            column = place[1] if len(place) == 2 else tuple(int(p) for p in place[1:])
            where = f", column {column}" if len(place) > 1 else ""
            first = f"{name}: row {table.row_number(start + int(place[0]))}{where} of the {what} is {shown}"
        keep[start : start + len(chunk)] &= good.reshape(len(chunk), -1).all(axis=1)
    return first


def _without(table: Table, keep: Array) -> Table:
    kept = np.flatnonzero(keep)
    numbers = table.row_numbers[kept] if table.row_numbers is not None else table.first_row + kept
    return replace(
        table,
        inputs=_compact(table.inputs, keep),
        targets=None if table.targets is None else _compact(table.targets, keep),
        weights=None if table.weights is None else table.weights[kept],
        row_numbers=numbers,
    )


def _compact(array: Array, keep: Array) -> Array:
    """The kept rows: in memory up to DISTBP_PREPARE_BYTES, else mapped from an unnamed temporary file."""
    shape = (int(keep.sum()), *array.shape[1:])
    if int(np.prod(shape)) * array.dtype.itemsize <= settings.get("DISTBP_PREPARE_BYTES"):
        return array[keep]
    with tempfile.TemporaryFile() as file:  # the mapping keeps the space; it is freed with the array
        for start, chunk in chunks(array):
            file.write(np.ascontiguousarray(chunk[keep[start : start + len(chunk)]]).data)
        file.flush()
        return np.memmap(file, dtype=array.dtype, mode="r", shape=shape)
