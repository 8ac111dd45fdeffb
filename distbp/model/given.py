"""Turns the inputs that a user gives a model into the rows that its network takes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from distbp.core.arrays import Array, Shape
from distbp.core.errors import DataError, ModelError
from distbp.data.checks import Allowed, first_bad
from distbp.data.given import arranged, as_array, columns_of
from distbp.data.ids import as_ids
from distbp.data.named_inputs import check_parts, side_by_side
from distbp.data.sequences import Samples, blanked, checked_lengths, padded, with_lengths
from distbp.data.table import ColumnNames
from distbp.nn.named_inputs import NamedInput
from distbp.nn.network import Network

_NAME = "the inputs"


def rows_with_lengths(network: Network, x: Any, lengths: Any) -> Samples:
    """Pads rows to the steps of a network whose rows have lengths. x: a list of arrays (steps, ...) of
    different lengths, a mapping with `inputs` and `lengths`, or an array together with `lengths`. Raises
    ModelError."""
    try:
        if lengths is None:
            x, lengths = with_lengths(x, _NAME)
        if lengths is None and not isinstance(x, list | tuple):
            raise ModelError(
                "this model was trained on rows with lengths; give lengths=..., or a list of arrays"
                " (steps, ...)"
            )
        if lengths is None:
            x, lengths = padded(x, _NAME)
        return _fitted(network, as_array(x, _NAME), as_array(lengths, "the lengths"))
    except DataError as error:
        raise ModelError(str(error)) from None


def whole_series(network: Network, x: Any, lengths: Any) -> Samples:
    """Checks series of any length for a network that takes them window by window. x: an array (rows, steps,
    ...), a list of arrays (steps, ...), a mapping with `inputs` and `lengths`, or an array together with
    `lengths`. Raises ModelError."""
    features = network.input_shape[1:]
    try:
        if lengths is None:
            x, lengths = with_lengths(x, _NAME)
        x = as_array(x, _NAME)
        if x.dtype.kind not in "fiub":
            raise ModelError(f"expected numbers as inputs, got an array of dtype {x.dtype}")
        if x.ndim < 2 or x.shape[2:] != features:
            wanted = ", ".join(("rows", "steps", *map(str, features)))
            raise ModelError(f"expected series of shape ({wanted}), got {x.shape}; give them as in training")
        own = np.full(len(x), x.shape[1])
        if lengths is not None:
            own = checked_lengths(as_array(lengths, "the lengths"), len(x), x.shape[1], "the lengths")
            x = blanked(x, own)
        if network.ids_below is not None:
            x = as_ids(x, network.ids_below, _NAME)
        elif problem := first_bad(x, Allowed(network.dtype)):
            raise ModelError(f"{problem}; mend or leave out that row")
        return Samples(x, own)
    except DataError as error:
        raise ModelError(str(error)) from None


def _fitted(network: Network, x: Array, lengths: Array) -> Samples:
    steps, *features = network.input_shape
    if x.ndim < 2 and lengths.any():
        raise ModelError(f"expected inputs of shape (rows, {steps} or fewer, ...), got {x.shape}")
    lengths = checked_lengths(lengths, len(x), x.shape[1] if x.ndim > 1 else 0, "the lengths")
    if not lengths.any():
        return Samples(np.zeros((len(x), steps, *features), network.input_dtype), lengths)
    if x.shape[2:] != tuple(features):
        raise ModelError(
            f"expected steps of shape {tuple(features)}, got {x.shape[2:]}; give them as in training"
        )
    if lengths.max() > steps:
        raise ModelError(
            f"row {int(lengths.argmax())} has {int(lengths.max())} steps, but the model takes at most"
            f" {steps}, the most that training had; cut it off"
        )
    out = np.zeros((len(x), steps, *features), x.dtype)
    most = min(steps, x.shape[1])
    out[:, :most] = blanked(x[:, :most], lengths)
    return Samples(out, lengths)


def rows_of_inputs(named: Sequence[NamedInput], names: ColumnNames | None, x: Any) -> Array:
    """The rows (n, numbers) with several inputs side by side. x: a mapping from the inputs' names to arrays,
    a list of mappings for single rows, or rows of this form, whose columns may have names. Raises
    ModelError."""
    if isinstance(x, list | tuple) and x and isinstance(x[0], Mapping):
        for number, row in enumerate(x):
            if not isinstance(row, Mapping) or row.keys() != x[0].keys():
                raise ModelError(f"{_NAME}: row {number} names other inputs than row 0; name all in each")
        x = {name: [row[name] for row in x] for name in x[0]}
    try:
        if isinstance(x, Mapping):
            x = side_by_side(x, named, _NAME)
        rows = plain_rows((named[-1].stop,), names, x)
        rows = rows.reshape(len(rows), named[-1].stop)
        check_parts(rows, named, _NAME)
    except DataError as error:
        raise ModelError(str(error)) from None
    return rows


def plain_rows(wanted: Shape, names: ColumnNames | None, given: Any) -> Array:
    """Inputs as an array of numbers (rows, *wanted), or (rows, ...) with as many numbers in a row if `wanted`
    is flat. names: of the columns; the columns of a frame are found by them. Raises ModelError."""
    try:
        columns = columns_of(given, "the inputs")
        x = arranged(as_array(given, "the inputs"), columns, names, "the frame of inputs")
    except DataError as error:
        raise ModelError(str(error)) from None
    if x.dtype.kind not in "fiub":
        raise ModelError(f"expected numbers as inputs, got an array of dtype {x.dtype}")
    flat = len(wanted) == 1 and x.ndim > 1 and math.prod(x.shape[1:]) == wanted[0]
    if x.shape[1:] == wanted or flat:
        return x
    expected = f"expected inputs of shape (rows, {', '.join(map(str, wanted))}), got {x.shape}"
    if x.shape == wanted:
        raise ModelError(f"{expected}; for a single row give x[None]")
    raise ModelError(f"{expected}; give the same columns as in training")
