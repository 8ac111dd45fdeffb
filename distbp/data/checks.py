"""Checks of a table's content: numbers are finite in the job's dtype, labels are not missing, weights are not
below 0.

All checks stream, so memory stays flat for memory-mapped tables.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from distbp.core import settings
from distbp.core.arrays import Array
from distbp.core.errors import DataError
from distbp.data.preprocessing import Preprocessing
from distbp.data.table import Table, chunks, target_parts
from distbp.machine.memory import mapped
from distbp.nn.named_inputs import NamedInput

BadRows = Literal["refuse", "skip"]

_NAN, _INF, _LARGE, _NEGATIVE, _MISSING = 1, 2, 3, 4, 5
_REASONS = {
    _NAN: "NaN in the {}",
    _INF: "Inf in the {}",
    _LARGE: "too large {}",
    _NEGATIVE: "{} below 0",
    _MISSING: "missing {}",
}


@dataclass(frozen=True)
class Allowed:
    """The numbers that a table may hold: finite in the job's `dtype`, the inputs after `preprocessing` (None:
    any finite inputs, because preprocessing makes them small). `split`: the set's name for messages, or
    ""."""

    dtype: np.dtype[Any] = field(default_factory=lambda: np.dtype(np.float64))
    preprocessing: Preprocessing | None = field(default_factory=Preprocessing)
    split: str = ""

    def limit(self, what: str) -> float:
        """The largest magnitude of inputs, targets or weights."""
        free = what == "inputs" and self.preprocessing is None
        return float(np.finfo(np.float64 if free else self.dtype).max)

    def faults(self, values: Array, what: str, signed: bool) -> Array | None:
        """An array of reasons (see `_REASONS`) why values are bad, 0 for good values; None if all are
        good."""
        limit = self.limit(what)
        if values.dtype.kind == "U":
            missing = np.where(values == "", np.uint8(_MISSING), np.uint8(0))
            return missing if missing.any() else None
        if values.dtype.kind == "f" or what == "inputs":
            used = self._prepared(values) if what == "inputs" else values
            low, high = float(used.min()), float(used.max())  # NaN if a value is; comparisons are then false
            if low >= (0 if signed else -limit) and high <= limit:
                return None
            reasons = np.zeros(values.shape, np.uint8)
            reasons[np.abs(used, dtype=np.float64) > limit] = _LARGE
            reasons[np.isinf(values)] = _INF
            reasons[np.isnan(values)] = _NAN
        else:
            reasons = np.zeros(values.shape, np.uint8)
        if signed:
            reasons[values < 0] = _NEGATIVE
        return reasons if reasons.any() else None

    def _prepared(self, values: Array) -> Array:
        if self.preprocessing is None or self.preprocessing.is_identity(np.float64):
            return values
        prepared = np.empty(values.shape)
        self.preprocessing.apply(values, prepared)
        return prepared

    def told(self, reason: int, what: str) -> str:
        """A sentence on what is allowed in place of a value that is bad for `reason`."""
        if reason == _MISSING:
            return "Every row needs one"
        if reason != _LARGE:
            return "Allowed are numbers of 0 or more" if reason == _NEGATIVE else "Allowed are finite numbers"
        limit = self.limit(what)
        plain = self.preprocessing is None or self.preprocessing.is_identity(np.float64)
        after = "" if plain or what != "inputs" else ", once they are preprocessed"
        return f"A {self.dtype} job takes numbers from {-limit:.3g} to {limit:.3g}{after}"


ANY = Allowed()  # all numbers that are finite as float64


def check_rows(table: Table, bad_rows: BadRows | None = "refuse", allowed: Allowed = ANY) -> Table:
    """The table without bad rows. A row is bad if a number is not `allowed`, its label is missing, or its
    weight is below 0.

    "refuse": raises DataError with the file, row and column of the first bad value, and the number of bad
    rows. "skip": leaves bad rows out and counts them in `skipped`; raises DataError if no row is left, or if
    all rows weigh 0. None: as "refuse", but the message does not name the option `bad_rows`.
    """
    bad = np.zeros(len(table), dtype=np.uint8)  # whether a row is bad
    counts: dict[str, int] = {}
    first = told = ""
    for array, name, what in (
        (table.inputs, table.name, "inputs"),
        *((targets, where, "targets") for _, targets, where in target_parts(table)),
        (table.weights, table.name, "weights"),
    ):
        if array is not None and array.size:
            found = _mark_bad(array, bad, allowed, what, counts, table.named_inputs)
            if found and not first:
                row, place, told = found
                first = f"{name}: row {table.row_number(row)}{place}"
    skipped = sum(counts.values())
    if skipped and bad_rows != "skip":
        way = "leave them out" if bad_rows is None else "set bad_rows: skip"
        raise DataError(f"{first}. {skipped:,} of {len(table):,} rows are bad; mend them, or {way}. {told}")
    if skipped == len(table):
        raise DataError(f"{first}. All {skipped:,} rows are bad, so none is left; mend the data. {told}")
    if skipped:
        before = table.skipped
        table = _without(table, bad == 0)
        table = replace(table, skipped={k: before.get(k, 0) + counts.get(k, 0) for k in {**before, **counts}})
    if table.weights is not None and not table.weights.any():
        raise DataError(f"{table.name}: all weights are 0, so nothing can be learned; give some row a weight")
    return table


def first_bad(
    array: Array, allowed: Allowed, first_row: int = 0, named: Sequence[NamedInput] = ()
) -> str | None:
    """A text on the first bad row of inputs, and on what is allowed; None if all rows are good. named: the
    inputs that a row holds side by side."""
    if not array.size:
        return None
    found = _mark_bad(array, np.zeros(len(array), np.uint8), allowed, "inputs", {}, named)
    return None if found is None else f"row {first_row + found[0]}{found[1]}. {found[2]}"


def _mark_bad(
    array: Array,
    bad: Array,
    allowed: Allowed,
    what: str,
    counts: dict[str, int],
    named: Sequence[NamedInput],
) -> tuple[int, str, str] | None:
    """Marks the bad rows of `array` in `bad`, and counts newly marked rows by reason in `counts`. Returns the
    first bad row, its fault as text, and what is allowed; None if all rows are good."""
    signed, text = what == "weights", array.dtype.kind == "U"
    unscaled = allowed.preprocessing is None or allowed.preprocessing.scale >= 1
    if array.dtype.kind != "f" and not signed and not text and (what != "inputs" or unscaled):
        return None
    first = None
    with np.errstate(all="ignore"):
        for start, chunk in chunks(array):
            found = allowed.faults(chunk, what, signed)
            if found is None:
                continue
            flat = found.reshape(len(chunk), -1)
            reasons = flat[np.arange(len(chunk)), (flat != 0).argmax(axis=1)]
            if first is None:
                row = int((reasons != 0).argmax())
                place = np.unravel_index(int((found[row] != 0).argmax()), found.shape[1:])
                parts = named if what == "inputs" else ()
                worded = _worded(chunk[(row, *place)], place, reasons[row], allowed, what, parts)
                first = start + row, worded, allowed.told(reasons[row], what)
            part = bad[start : start + len(chunk)]
            for reason, count in enumerate(np.bincount(reasons[part == 0], minlength=len(_REASONS) + 1)):
                if reason and count:
                    told = _REASONS[reason].format(what)
                    counts[told] = counts.get(told, 0) + int(count)
            part[(part == 0) & (reasons != 0)] = 1
    return first


def _worded(
    value: Any,
    place: tuple[Any, ...],
    reason: int,
    allowed: Allowed,
    what: str,
    named: Sequence[NamedInput],
) -> str:
    for part in named:
        if part.first <= place[0] < part.end:
            what, place = f"input {part.name!r}", np.unravel_index(place[0] - part.first, part.shape)
            break
    column = place[0] if len(place) == 1 else tuple(int(p) for p in place)
    where = f", column {column}" if place else ""
    shown = f"{value}"
    if reason in (_NAN, _MISSING):
        shown = "NaN" if reason == _NAN else "missing"
    elif reason == _INF:
        shown = "Inf" if value > 0 else "-Inf"
    split = f"{allowed.split} " if allowed.split else ""
    return f"{where} of the {split}{what} is {shown}"


def _without(table: Table, keep: Array) -> Table:
    kept = np.flatnonzero(keep)
    numbers = table.row_numbers[kept] if table.row_numbers is not None else table.first_row + kept
    return replace(
        table,
        inputs=_compact(table.inputs, keep),
        targets=None if table.targets is None else _compact(table.targets, keep),
        weights=None if table.weights is None else table.weights[kept],
        lengths=None if table.lengths is None else table.lengths[kept],
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
        return np.asanyarray(mapped(file, shape, array.dtype))
