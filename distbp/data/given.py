"""Converts a user's values (lists, frames, series, arrays) to arrays, and finds the names of their
columns."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np

from distbp.core.arrays import Array
from distbp.core.errors import DataError
from distbp.data.frames import names_of
from distbp.data.table import ColumnNames


def columns_of(values: Any, name: str) -> ColumnNames | None:
    """The names of a frame's columns; None for other values. Raises DataError if two columns have one
    name."""
    columns = names_of(values)
    if columns is None:
        return None
    names = tuple(c if type(c) is int else str(c) for c in columns)
    twice = (
        next((n for i, n in enumerate(names) if n in names[:i]), None)
        if len(set(names)) < len(names)
        else None
    )
    if twice is not None:
        raise DataError(f"{name}: two columns are named {twice!r}; give each a name of its own")
    return names


def arranged(inputs: Array, columns: ColumnNames | None, wanted: ColumnNames | None, name: str) -> Array:
    """Inputs (n, features) whose columns are named `columns`, in the order of `wanted`; unchanged if either
    is None. Raises DataError if a column is missing or not known."""
    if columns is None or wanted is None or columns == wanted:
        return inputs
    missing = [c for c in wanted if c not in columns]
    strange = [c for c in columns if c not in wanted]
    if missing or strange:
        what = [f"has no column {c!r}" for c in missing[:1]] + [f"has a column {c!r}" for c in strange[:1]]
        known = ", ".join(map(repr, wanted[:10])) + (", ..." if len(wanted) > 10 else "")
        raise DataError(
            f"{name} {' and '.join(what)}; training had the columns {known}. Give these, in any order, or an"
            " array without names"
        )
    place = {c: i for i, c in enumerate(columns)}
    return np.ascontiguousarray(inputs[:, [place[c] for c in wanted]])


_FRAME = (
    "; or keep the column of targets in the frame, name it in the job (data: {target: NAME}), and call"
    " train(job, data=frame), which takes text and dates, too"
)


def as_array(
    values: Any, name: str, *, labels: bool = False, ragged: str = "give rows of equal length"
) -> Array:
    """Converts lists, frames, series and categories to an array of numbers, or with `labels` also of booleans
    or text. Missing values become NaN or empty text. `ragged`: advice for rows of different lengths, in the
    message. Raises DataError."""
    if hasattr(values, "tocsr"):
        raise DataError(f"{name} are a sparse matrix; give a dense one: inputs.toarray()")
    if isinstance(values, np.ma.MaskedArray):
        raise DataError(f"{name} are a masked array; give a plain one, with values for the masked places")
    try:
        array = values if isinstance(values, np.memmap) else np.asarray(values)
        if array.dtype.kind not in "biuf" and (columns := names_of(values)) is not None:
            parts = [_plain(np.asarray(values[c]), f"{name}, column {c!r}", labels, _FRAME) for c in columns]
            return np.column_stack(parts)
        series = hasattr(values, "dtype") and not isinstance(values, np.ndarray)  # may have its own dtypes
        return _plain(array, name, labels) if labels or series else array
    except (ValueError, TypeError) as error:
        raise DataError(f"{name} are not an array of numbers ({error}); {ragged}") from None


def _plain(array: Array, name: str, labels: bool, otherwise: str = "") -> Array:
    """Converts an array of Python objects to numbers, booleans or text, if all are of one kind. name: for
    messages. otherwise: further advice in them. Raises DataError."""
    if array.dtype.kind not in "OTU" or (labels and array.dtype.kind == "U"):
        return array
    values = array.ravel().tolist()
    there = [v for v in values if not _is_missing(v)]
    kinds = sorted({"text" if isinstance(v, str) else _kind(v) for v in there})
    if kinds in ([], ["bool"], ["number"], ["bool", "number"]):
        found = np.array(there) if len(there) == len(values) else None
        if found is None or found.dtype.kind == "O":
            found = np.array([np.nan if _is_missing(v) else float(v) for v in values])
    elif kinds == ["text"] and labels:
        found = np.array(["" if _is_missing(v) else v for v in values], dtype=str)
    else:
        allowed = "numbers, booleans or text, all of one kind" if labels else f"numbers{otherwise}"
        raise DataError(f"{name} hold {' and '.join(kinds)}; give {allowed}")
    return found.reshape(array.shape)


def _kind(value: Any) -> str:
    if isinstance(value, bool | np.bool_):
        return "bool"
    return "number" if isinstance(value, int | float | np.number | Decimal) else type(value).__name__


def _is_missing(value: Any) -> bool:
    # pandas' NA is found by its type: a comparison with itself gives NA, which has no truth value.
    return value is None or type(value).__name__ in ("NAType", "NaTType") or bool(value != value)
