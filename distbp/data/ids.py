"""Ids: inputs that are whole numbers, for layers that look up vectors by them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from distbp.core.arrays import Array
from distbp.core.errors import DataError
from distbp.data.table import Table, chunks


def with_ids(table: Table, below: int) -> Table:
    """The table with int64 inputs from 0 to `below` - 1. Raises DataError that names the first invalid id."""
    return replace(table, inputs=as_ids(table.inputs, below, table.name, table.row_number))


def as_ids(inputs: Array, below: int, name: str, row_number: Callable[[int], int] = int) -> Array:
    """Inputs (rows, ...) as int64; the same array if it is int64 already. Raises DataError with row and
    column of the first value that is not a whole number from 0 to `below` - 1."""
    ready = inputs.dtype == np.int64
    ids = inputs if ready else np.empty(inputs.shape, np.int64)
    for start, rows in chunks(inputs):
        good = (rows >= 0) & (rows < below)  # false for NaN
        if rows.dtype.kind == "f":
            good &= rows == np.floor(rows)
        if not good.all():
            row, *column = (int(part) for part in np.unravel_index(int(good.argmin()), good.shape))
            place = "" if not column else f", column {column[0] if len(column) == 1 else tuple(column)}"
            raise DataError(
                f"{name}: row {row_number(start + row)}{place} of the inputs is {rows[(row, *column)]},"
                f" but ids are whole numbers from 0 to {below - 1}, as the embedding has {below} entries;"
                " mend the data, or give it more entries"
            )
        if not ready:
            ids[start : start + len(rows)] = rows
    return ids
