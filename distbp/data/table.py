"""A table: the data that a format opens. One sample is one row.

inputs   (n, *features), any real dtype, kept as stored (uint8 stays uint8); may be memory-mapped
targets  (n,) intp, bool or text: labels or values (see `distbp.data.targets`); or (n, outputs) float32 or
         float64: values; or None. Empty text is a missing label. For several outputs, a structured array (n,)
         with such a field for each output.
weights  (n,) float64, or None
lengths  (n,) int64, for inputs (n, steps, ...): how many steps of each row are not padding, which is 0. None:
         all
windows  if given, the samples are windows of the rows of inputs; targets, weights and lengths are of samples
named_inputs  if there are several inputs, the layout of a row of inputs, (numbers,), which holds all of them
begins   (n,) bool, for windows of series (see `distbp.data.series`): whether a series begins in a window.
         Inputs are then (n, steps, ...), targets (n, steps * outputs), weights (n, steps) or None
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from distbp.core.arrays import Array, Shape
from distbp.core.errors import DataError
from distbp.data.sequences import blanked, checked_lengths
from distbp.data.windows import Windows
from distbp.nn.losses.several import by_output
from distbp.nn.named_inputs import NamedInput

ColumnNames = tuple[str | int, ...]
_CHUNK_ELEMENTS = 2**18  # part of the numerics: the statistics are added up chunk by chunk


@dataclass(frozen=True, eq=False)
class Table:
    """`build` checks its arguments; the constructor does not.

    `row_number(i)` is the row's number in its file (0-based), for messages: `first_row + i`, unless rows
    were left out or shuffled and `row_numbers` lists them. `name`: of the file, for messages. `columns`: the
    names of the columns of inputs, or None. `marks`: of the files that hold the table (see
    `distbp.data.safety.DataFile`); () if it is not in files. `skipped`: how many rows were left out, by
    reason. `row_names`: the names of rows, by their numbers, if every row is a file of its own.
    """

    inputs: Array
    targets: Array | None = None
    weights: Array | None = None
    first_row: int = 0
    row_numbers: Array | None = None
    name: str = ""
    targets_name: str = ""
    columns: ColumnNames | None = None
    marks: tuple[tuple[int, ...], ...] = ()
    row_names: tuple[str, ...] | None = None
    skipped: Mapping[str, int] = field(default_factory=dict)
    lengths: Array | None = None
    windows: Windows | None = None
    begins: Array | None = None
    named_inputs: tuple[NamedInput, ...] = ()

    def __len__(self) -> int:
        return len(self.inputs if self.windows is None else self.windows)

    @property
    def features(self) -> Shape:
        """The shape of one sample of the inputs."""
        features = self.inputs.shape[1:]
        return features if self.windows is None else self.windows.shape(features)

    def row_number(self, row: int) -> int:
        return self.first_row + row if self.row_numbers is None else int(self.row_numbers[row])

    def slice(self, start: int, stop: int) -> Table:
        """Rows [start, stop), as views. Raises DataError if the table does not have them."""
        check_range((start, stop), len(self), self.name)
        numbers = None if self.row_numbers is None else self.row_numbers[start:stop]
        return self._of(slice(start, stop), first_row=self.first_row + start, row_numbers=numbers)

    def some(self, rows: Array) -> Table:
        """The rows with the numbers `rows`, in this order, copied."""
        numbers = rows + self.first_row if self.row_numbers is None else self.row_numbers[rows]
        return self._of(rows, row_numbers=numbers)

    def _of(self, rows: Any, **changes: Any) -> Table:
        """Some rows, or all in another order."""
        for name in ("inputs", "targets", "weights", "lengths"):
            array = getattr(self, name)
            changes[name] = None if array is None else array[rows]
        return replace(self, **changes)

    def at_row(self, first_row: int) -> Table:
        """The same rows, numbered from `first_row` of their file."""
        return replace(self, first_row=first_row)


def chunks(array: Array) -> Iterator[tuple[int, Array]]:
    """Yields pieces (first row, rows) of about 256 k elements. The cuts depend only on the width of a row.

    Pages of a memory-mapped array are released after each piece, so the resident size stays flat.
    """
    width = max(1, int(np.prod(array.shape[1:])))
    step = max(1, _CHUNK_ELEMENTS // width)
    for start in range(0, len(array), step):
        yield start, array[start : start + step]
        release_pages(array)


def release_pages(array: Array) -> None:
    """Releases the resident pages of the file mapping that holds `array`, if there is one.

    They are read again, from the file or the page cache, when they are next used.
    """
    base: Any = array
    backed = False  # by a file, from which pages can be read again; private changes ("c") would be lost
    while isinstance(base, np.ndarray):
        backed = backed or (isinstance(base, np.memmap) and base.mode != "c")
        base = base.base
    if backed and isinstance(base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)


def target_parts(table: Table) -> list[tuple[str, Array, str]]:
    """(name, targets, name for messages) for each output; the name of a single output is "". Views."""
    targets, where = table.targets, table.targets_name or table.name
    if targets is None:
        return []
    if targets.dtype.names is None:
        return [("", targets, where)]
    return [(name, targets[name], f"{where}, {name!r}") for name in targets.dtype.names]


def _structured(parts: Mapping[str, Array]) -> Array:
    kinds = [(name, values.dtype, values.shape[1:]) for name, values in parts.items()]
    found: Array = np.empty(len(next(iter(parts.values()))), kinds)
    for name, values in parts.items():
        found[name] = values
    return found


def build(
    inputs: Array,
    targets: Array | Mapping[str, Array] | None = None,
    weights: Array | None = None,
    lengths: Array | None = None,
    *,
    rows: tuple[int, int] | None = None,
    row_numbers: Array | None = None,
    name: str = "the array",
    targets_name: str = "",
    weights_name: str = "",
    columns: ColumnNames | None = None,
    marks: tuple[tuple[int, ...], ...] = (),
) -> Table:
    """Makes the table of rows [start, stop) (default: all) of raw arrays. Checks shapes, lengths and dtypes;
    `distbp.data.checks` checks the content.

    Targets that are whole numbers (n,), booleans or text keep their kind; all others are values, and 1-D
    values become one column. Targets of several outputs are a mapping from their names. Raises DataError.
    """
    targets_name, weights_name = (
        targets_name or f"the targets of {name}",
        weights_name or f"the weights of {name}",
    )
    check_real(inputs.dtype, name)
    if inputs.ndim < 2:
        raise DataError(
            f"{name}: the inputs have shape {inputs.shape}, but must be (rows, features) or have more"
            " dimensions; for a single feature use inputs.reshape(-1, 1)"
        )
    if 0 in inputs.shape:
        least = "number for each row" if len(inputs) else "row"
        raise DataError(
            f"{name}: the inputs have shape {inputs.shape}, which holds no data; give at least one {least}"
        )
    named = isinstance(targets, Mapping)
    outputs = by_output(targets)
    if not outputs:
        raise DataError(f"{targets_name}: the mapping of targets is empty; name each output")
    called = {name: f"{targets_name}, {name!r}" if named else targets_name for name in outputs}
    for array, its_name, kind in (
        *((one, called[name], "targets") for name, one in outputs.items()),
        (weights, weights_name, "weights"),
    ):
        if array is None:
            continue
        check_real(array.dtype, its_name, text=kind == "targets")
        if array.ndim == 0 or len(array) != len(inputs):
            count = len(array) if array.ndim else "no"
            raise DataError(
                f"{its_name}: {count} {kind} for the {len(inputs):,} rows of inputs in {name}; give one for"
                " each row"
            )
    start, stop = check_range(rows, len(inputs), name)
    given = inputs[start:stop]
    if lengths is not None:
        lengths = checked_lengths(lengths, len(inputs), inputs.shape[1], f"{name}: the lengths")[start:stop]
        given = blanked(given, lengths)
    parts = {
        name: _targets(one[start:stop], called[name]) for name, one in outputs.items() if one is not None
    }
    return Table(
        _numbers(given),
        _structured(parts) if named else parts.get(""),
        None if weights is None else _weights(weights[start:stop], weights_name),
        start,
        None if row_numbers is None else row_numbers[start:stop],
        name,
        targets_name,
        columns,
        marks,
        lengths=lengths,
    )


def check_range(rows: tuple[int, int] | None, count: int, name: str) -> tuple[int, int]:
    """`rows`, or all `count` of them. Raises DataError unless 0 <= start < stop <= count."""
    start, stop = rows if rows is not None else (0, count)
    if start < 0 or stop <= start:
        raise DataError(
            f"{name}: rows [{start}, {stop}] are none; write [first, one past the last], counted from 0"
        )
    if stop > count:
        raise DataError(f"{name}: rows [{start}, {stop}] go past the end; the data has {count:,} rows")
    return start, stop


def check_real(dtype: np.dtype[Any], name: str, *, text: bool = False) -> None:
    """Raises DataError unless `dtype` is bool, an integer, or a float of 2, 4 or 8 bytes; or text, if
    `text`."""
    if text and dtype.kind in "US":
        return
    if dtype.kind not in "biuf" or dtype.itemsize > 8:
        hint = "convert it to numbers first" + "; objects are never read from files" * dtype.hasobject
        raise DataError(
            f"{name}: values of type {dtype} cannot be trained on; allowed are bool, integers, and floats of"
            f" 16, 32 or 64 bits ({hint})"
        )


def _numbers(array: Array) -> Array:
    return array.view(np.uint8) if array.dtype.kind == "b" else array


def _targets(targets: Array, name: str) -> Array:
    if targets.ndim > 2:
        raise DataError(
            f"{name}: targets of shape {targets.shape}; give labels (rows,) or values (rows, outputs),"
            " for example targets.reshape(rows, -1)"
        )
    if targets.ndim == 2 and targets.shape[1] == 0:
        raise DataError(f"{name}: targets of shape {targets.shape} hold no data; give at least one column")
    if targets.dtype.kind in "USb" and targets.shape[1:] in ((), (1,)):
        return _text(targets.ravel(), name) if targets.dtype.kind in "US" else np.array(targets.ravel())
    if targets.dtype.kind in "US":
        raise DataError(f"{name}: text of shape {targets.shape}; give one label for each row, shape (rows,)")
    huge = targets.dtype == np.uint64 and bool((targets > np.iinfo(np.intp).max).any())
    if targets.ndim == 1 and targets.dtype.kind != "f" and not huge:
        return np.ascontiguousarray(targets, dtype=np.intp)
    dtype = np.float32 if targets.dtype.kind == "f" and targets.dtype.itemsize <= 4 else np.float64
    return np.asarray(targets.reshape(len(targets), -1), dtype=dtype)


def _text(labels: Array, name: str) -> Array:
    try:
        text = labels if labels.dtype.kind == "U" else np.char.decode(labels, "utf-8")
    except UnicodeDecodeError:
        raise DataError(f"{name}: the labels are bytes that are not UTF-8; write them as text") from None
    text = np.array(text, text.dtype.newbyteorder("="))
    points = text.view(np.uint32)
    if ((points > 0x10FFFF) | ((points >= 0xD800) & (points < 0xE000))).any():
        raise DataError(f"{name}: the labels hold text that is not Unicode; write them again as text")
    return text


def _weights(weights: Array, name: str) -> Array:
    if weights.ndim != 1:
        raise DataError(
            f"{name}: weights of shape {weights.shape}; give one number for each row, shape (rows,)"
        )
    return np.ascontiguousarray(weights, dtype=np.float64)
