"""Arrays in memory, given to `train()` from Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import numpy as np

from distbp.core.errors import DataError
from distbp.core.options import option
from distbp.data.checks import ANY, Allowed, BadRows, check_rows
from distbp.data.frames import names_of
from distbp.data.named_inputs import fitted, side_by_side
from distbp.data.sequences import with_lengths
from distbp.data.table import Columns, Table, build
from distbp.nn.layers.base import Array
from distbp.nn.named_inputs import NamedInput


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
    outputs: Sequence[str] = (),
    named: Sequence[NamedInput] = (),
) -> Table:
    """A checked table of array-likes: inputs (n, *features), or as `with_lengths` takes them; targets (n,)
    labels (numbers, booleans, text) or values, or values (n, outputs), or a mapping from the names of
    several outputs to such; weights (n,). Frames and series will
    do for each, and the names of the columns of a frame of inputs are kept. A frame of targets has a column
    for each of several `outputs`. named: the inputs of the network, where it has several; then inputs may be
    a mapping from their names to such. Arrays of numbers are not copied. Raises DataError."""
    inputs, lengths = with_lengths(inputs, name)
    if isinstance(inputs, Mapping) and lengths is None:
        if not named:
            raise DataError(
                f"{name}: the inputs are a mapping, but the network has none with names; give it layers of"
                " the type input, or one array"
            )
        inputs = side_by_side(inputs, named, name)
    columns = columns_of(inputs, name)
    table = build(
        as_array(inputs, f"{name}: inputs"),
        _given_targets(targets, name, outputs),
        None if weights is None else as_array(weights, f"{name}: weights"),
        None if lengths is None else as_array(lengths, f"{name}: lengths"),
        name=name,
        columns=columns,
    )
    return check_rows(fitted(table, named), bad_rows, allowed)


def _given_targets(targets: Any, name: str, outputs: Sequence[str]) -> Array | dict[str, Array] | None:
    if targets is None:
        return None
    names = getattr(getattr(targets, "dtype", None), "names", None)
    if outputs and not isinstance(targets, Mapping):
        names = names or columns_of(targets, f"{name}: targets")
    if names:  # as tables and frames have them
        targets = {output: targets[output] for output in names}
    if not isinstance(targets, Mapping):
        return as_array(targets, f"{name}: targets", labels=True)
    found = {}
    for output, values in targets.items():
        if not isinstance(output, str):
            raise DataError(f"{name}: targets have the key {output!r}; keys are the names of outputs")
        found[output] = as_array(values, f"{name}: targets of {output!r}", labels=True)
    return found


def columns_of(values: Any, name: str) -> Columns | None:
    """The names of the columns of a frame (of pandas, or one like it); None for what has none.

    Raises DataError for a name that two columns have.
    """
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


def arranged(inputs: Array, columns: Columns | None, wanted: Columns | None, name: str) -> Array:
    """Inputs (n, features) with the names `columns` in the order of `wanted`; as they are where one of them
    has no names. Raises DataError for a column that is missing or not known."""
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


def as_array(values: Any, name: str, *, labels: bool = False) -> Array:
    """An array of numbers, or with `labels` of booleans or text, of what can be seen as one: lists, frames,
    series, categories. What is missing in them becomes NaN, or empty text. Raises DataError."""
    if hasattr(values, "tocsr"):
        raise DataError(f"{name} are a sparse matrix; give a dense one: inputs.toarray()")
    if isinstance(values, np.ma.MaskedArray):
        raise DataError(f"{name} are a masked array; give a plain one, with values for the masked places")
    try:
        array = values if isinstance(values, np.memmap) else np.asarray(values)
        if array.dtype.kind not in "biuf" and (columns := names_of(values)) is not None:
            parts = [_plain(np.asarray(values[c]), f"{name}, column {c!r}", labels, _FRAME) for c in columns]
            return np.column_stack(parts)
        series = hasattr(values, "dtype") and not isinstance(values, np.ndarray)  # whose types are its own
        return _plain(array, name, labels) if labels or series else array
    except (ValueError, TypeError) as error:
        raise DataError(f"{name} are not an array of numbers ({error}); give rows of equal length") from None


def _plain(array: Array, name: str, labels: bool, otherwise: str = "") -> Array:
    """Numbers, booleans or text in place of Python objects that are of one of these kinds."""
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
    # pandas' NA is not even equal to itself: the comparison gives another NA, which has no truth.
    return value is None or type(value).__name__ in ("NAType", "NaTType") or bool(value != value)
