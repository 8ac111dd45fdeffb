"""Rows of different lengths: padded to one number of steps, together with their lengths.

Padding is always set to 0, so no digest, statistic or result depends on its values.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from distbp.core import settings
from distbp.core.arrays import Array, Shape
from distbp.core.errors import DataError
from distbp.data.windows import Windows
from distbp.machine.memory import mapped

_KEYS = ("inputs", "lengths")
_BLOCK = 2**18  # elements that are copied at a time


@dataclass(frozen=True, eq=False)
class Samples:
    """`inputs`: (n, ...). `lengths`: (n,) int64, how many steps of each sample are not padding; None: all.
    `windows`: if given, the samples are windows of the inputs. `begins`: for windows of series (see
    `distbp.data.series`), (n,) bool, whether a series begins in a window."""

    inputs: Array
    lengths: Array | None = None
    windows: Windows | None = None
    begins: Array | None = None

    def __len__(self) -> int:
        return len(self.inputs if self.windows is None else self.windows)

    def take(self, rows: slice | Array) -> Samples:
        if self.windows is not None:
            return Samples(self.windows.take(self.inputs, rows))
        lengths, begins = (None if a is None else a[rows] for a in (self.lengths, self.begins))
        return Samples(self.inputs[rows], lengths, begins=begins)


def with_lengths(values: Any, name: str, steps: int | None = None) -> tuple[Any, Any]:
    """Splits a user's inputs into inputs and lengths: a mapping of both; a list of arrays (length, ...) of
    different lengths, which is padded to the longest, or to `steps`; other values have no lengths (None).
    Raises DataError."""
    if isinstance(values, Mapping) and set(values) == set(_KEYS):
        return values["inputs"], values["lengths"]
    if differ(values):
        return padded(values, name, steps)
    return values, None


def differ(values: Any) -> bool:
    """Whether `values` is a list of rows of different lengths."""
    return isinstance(values, list | tuple) and len({_size(row) for row in values} - {None}) > 1


def in_step(splits: Mapping[str, tuple[Any, ...]]) -> dict[str, tuple[Any, ...]]:
    """Pads the inputs of splits, (inputs, ...) each, to the same number of steps: if a split is a list of
    rows of different lengths, all lists are padded to the longest row of all splits. Raises DataError."""
    lists = {name: x for name, (x, *_) in splits.items() if isinstance(x, list | tuple)}
    if not any(with_lengths(x, name)[1] is not None for name, x in lists.items()):
        return dict(splits)
    steps = max(_size(row) or 0 for x in lists.values() for row in x)
    equal = dict(splits)
    for name, x in lists.items():
        inputs, lengths = padded(x, f"the {name} arrays", steps)
        equal[name] = ({"inputs": inputs, "lengths": lengths}, *splits[name][1:])
    return equal


def _size(row: Any) -> int | None:
    """The length of a row, which may be a list or an array; None for a number."""
    if isinstance(row, list | tuple):
        return len(row)
    shape = getattr(row, "shape", ())
    return int(shape[0]) if shape else None


def padded(rows: Sequence[Any], name: str, steps: int | None = None) -> tuple[Array, Array]:
    """Pads rows (length, ...) to one array (n, steps, ...), and returns it with their lengths (n,) int64.
    Raises DataError if rows have different features, or if a row is longer than `steps`."""
    arrays = []
    for number, row in enumerate(rows):
        try:
            array = np.asarray(row)
        except (ValueError, TypeError) as error:
            raise DataError(f"{name}: row {number} is not an array of numbers ({error})") from None
        if array.ndim == 0 or array.dtype.kind not in "biuf":
            raise DataError(
                f"{name}: row {number} is not an array of numbers (steps, ...); give a list of such arrays"
            )
        arrays.append(array)
    full = [(number, array) for number, array in enumerate(arrays) if len(array)]
    features = full[0][1].shape[1:] if full else ()
    for number, array in full:
        if array.shape[1:] != features:
            raise DataError(
                f"{name}: a step of row {number} has the shape {array.shape[1:]}, but one of row"
                f" {full[0][0]} has {features}; give each step the same features"
            )
    lengths = np.array([len(array) for array in arrays], np.int64)
    most = int(lengths.max(initial=0))
    if steps is not None and most > steps:
        raise DataError(
            f"{name}: row {int(lengths.argmax())} has {most} steps, but at most {steps} are taken; cut it off"
        )
    dtype = np.result_type(*(array.dtype for _, array in full)) if full else np.dtype(np.float32)
    out = np.zeros((len(arrays), most if steps is None else steps, *features), dtype)
    for number, array in full:
        out[number, : len(array)] = array
    return out, lengths


def checked_lengths(lengths: Array, rows: int, steps: int, name: str) -> Array:
    """Lengths as (rows,) int64. Raises DataError unless they are whole numbers from 0 to `steps`."""
    if lengths.shape != (rows,):
        raise DataError(
            f"{name}: lengths of shape {lengths.shape} for {rows:,} rows of inputs; give one whole number for"
            " each row"
        )
    bad = ~((lengths >= 0) & (lengths <= steps)) if lengths.dtype.kind in "iuf" else np.ones(rows, bool)
    if lengths.dtype.kind == "f":
        bad |= lengths != np.floor(lengths)
    if bad.any():
        row = int(bad.argmax())
        raise DataError(
            f"{name}: the length of row {row} is {lengths[row]}, but lengths are whole numbers from 0 to"
            f" {steps}, the steps of the inputs"
        )
    return lengths.astype(np.int64)


def blanked(inputs: Array, lengths: Array) -> Array:
    """A copy of inputs (n, steps, ...) that is 0 past each row's end."""
    out = room(inputs.shape, inputs.dtype)
    step = max(1, _BLOCK // max(1, int(np.prod(inputs.shape[1:]))))
    for start in range(0, len(inputs), step):
        part = out[start : start + step]
        part[:] = inputs[start : start + step]
        part[np.arange(part.shape[1]) >= lengths[start : start + step, None]] = 0
    return out


def room(shape: Shape, dtype: np.dtype[Any]) -> Array:
    """A new array, not initialized: in memory up to DISTBP_PREPARE_BYTES, else mapped from an unnamed
    temporary file."""
    if int(np.prod(shape)) * dtype.itemsize <= settings.get("DISTBP_PREPARE_BYTES"):
        return np.empty(shape, dtype)
    with tempfile.TemporaryFile() as file:  # the mapping keeps the space; it is freed with the array
        return np.asanyarray(mapped(file, shape, dtype, "w+"))
