"""Arrays in memory, given to `train()` from Python."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from distbp.data.checks import ANY, Allowed, BadRows, check_rows
from distbp.data.table import Table, build
from distbp.errors import DataError
from distbp.nn.layers.base import Array
from distbp.options import option


@dataclass(frozen=True, kw_only=True)
class Arrays:
    """Data that is not in a file. `sha256` ties the job to its data, so that a resume with other arrays
    is noticed."""

    type: Literal["arrays"] = "arrays"
    sha256: str = option("", help="digest of the table, filled in by train()")

    def open(self, folder: Path, confined: bool = False) -> Table:
        raise DataError(
            "the data of this job was given as arrays in memory and is in no file; give the arrays again,"
            " from Python"
        )


def from_arrays(
    inputs: Any,
    targets: Any = None,
    weights: Any = None,
    *,
    bad_rows: BadRows = "refuse",
    name: str = "the arrays",
    allowed: Allowed = ANY,
) -> Table:
    """A checked table of array-likes: inputs (n, *features), targets (n,) labels or values, or
    (n, outputs); weights (n,). Arrays of numbers are not copied. Raises DataError."""
    table = build(
        _array(inputs, f"{name}: inputs"),
        None if targets is None else _array(targets, f"{name}: targets"),
        None if weights is None else _array(weights, f"{name}: weights"),
        name=name,
    )
    return check_rows(table, bad_rows, allowed)


def _array(values: Any, name: str) -> Array:
    if hasattr(values, "tocsr"):
        raise DataError(f"{name} are a sparse matrix; give a dense one: inputs.toarray()")
    if isinstance(values, np.ma.MaskedArray):
        raise DataError(f"{name} are a masked array; give a plain one, with values for the masked places")
    try:
        return values if isinstance(values, np.memmap) else np.asarray(values)
    except (ValueError, TypeError) as error:
        raise DataError(f"{name} are not an array of numbers ({error}); give rows of equal length") from None
