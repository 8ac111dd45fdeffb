"""Data of a network with several inputs: its rows hold the inputs side by side (`distbp.nn.named_inputs`)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from distbp.core.arrays import Array, Shape
from distbp.core.errors import DataError
from distbp.data.checks import Allowed, BadRows, check_rows
from distbp.data.frames import names_of
from distbp.data.given import as_array
from distbp.data.ids import as_ids
from distbp.data.preprocessing import Preprocessing, fit
from distbp.data.sequences import blanked, checked_lengths, differ, padded, room, with_lengths
from distbp.data.table import Table, check_real, chunks, release_pages
from distbp.nn.named_inputs import NamedInput


def side_by_side(given: Mapping[str, Any], named: Sequence[NamedInput], name: str) -> Array:
    """Joins arrays by input, each (n, *shape) or as `with_lengths` takes them, into rows (n, numbers of all
    inputs). Raises DataError."""
    names = [one.name for one in named]
    missing = [f"no input {one!r}" for one in names if one not in given]
    strange = [f"an input {one!r}" for one in given if one not in names]
    if missing or strange:
        raise DataError(
            f"{name}: has {' and '.join((*missing, *strange))}; the network's inputs are"
            f" {', '.join(map(repr, names))}"
        )
    parts = [_part(given[one.name], one, f"{name}, input {one.name!r}") for one in named]
    counts = {one.name: len(part) for one, (part, _) in zip(named, parts, strict=True)}
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{count:,} of {one!r}" for one, count in counts.items())
        raise DataError(f"{name}: the inputs have different numbers of rows ({told})")
    count = next(iter(counts.values()))
    dtypes = [part.dtype for part, _ in parts]
    dtypes += [np.min_scalar_type(one.shape[0]) for one in named if one.ragged]
    rows = room((count, named[-1].stop), np.result_type(*dtypes))
    for start, out in chunks(rows):
        stop = start + len(out)
        for one, (part, lengths) in zip(named, parts, strict=True):
            own = math.prod(part.shape[1:])
            out[:, one.first : one.first + own] = part[start:stop].reshape(len(out), own)
            out[:, one.first + own : one.end] = 0  # past the longest row
            if lengths is not None:
                out[:, one.end] = lengths[start:stop]
            release_pages(part)
    return rows


def _part(given: Any, one: NamedInput, name: str) -> tuple[Array, Array | None]:
    """The array of an input, 0 past the end of each row, and its lengths (None if it is not ragged)."""
    if names_of(given) is not None:
        raise DataError(
            f"{name}: is a frame, and columns of one of several inputs are not found by name; give an array,"
            " as by to_numpy()"
        )
    if not one.ragged and (isinstance(given, Mapping) or differ(given)):
        raise DataError(f"{name}: has rows of different lengths; give the layer ragged: true")
    if one.ragged and isinstance(given, list | tuple):
        values, lengths = padded(given, name, one.shape[0])
        if not lengths.any():
            values = np.zeros((len(values), 0, *one.shape[1:]), values.dtype)
    else:
        values, lengths = with_lengths(given, name)
    array = as_array(values, name)
    if array.dtype.hasobject:
        kinds = ", ".join(sorted({type(value).__name__ for value in array.flat}))
        raise DataError(f"{name}: holds values that are not all numbers of 64 bits ({kinds}); give numbers")
    check_real(array.dtype, name)
    if array.shape[1:] == () and one.shape == (1,):
        array = array.reshape(-1, 1)
    fits = array.shape[1:] == one.shape
    if one.ragged and array.ndim == 1 + len(one.shape):
        fits = array.shape[1] <= one.shape[0] and array.shape[2:] == one.shape[1:]
    if not fits:
        wanted = ", ".join(map(str, one.shape))
        hint = ", or fewer steps" if one.ragged else ""
        hint += "; put a single row into a list" if array.shape == one.shape else ""
        raise DataError(f"{name}: has the shape {array.shape}, but the layer takes (rows, {wanted}){hint}")
    if not one.ragged:
        return array, None
    if lengths is None:
        return array, np.full(len(array), array.shape[1])
    own = checked_lengths(np.asarray(lengths), len(array), array.shape[1], f"{name}: the lengths")
    return blanked(array, own), own


def joined(
    arrays: Mapping[str, Array], lengths: Mapping[str, Array], name: str
) -> tuple[tuple[NamedInput, ...], Array]:
    """Joins arrays by input, from a file, into rows. Returns the layout of a row, and the rows. Raises
    DataError."""
    if not arrays:
        raise DataError(f"{name}: the mapping of inputs is empty; name an array for each input")
    strange = [one for one in lengths if one not in arrays]
    if strange:
        known = ", ".join(map(repr, arrays))
        raise DataError(f"{name}: has lengths of {strange[0]!r}, which is none of the inputs {known}")
    named: list[NamedInput] = []
    for one, array in arrays.items():
        first = named[-1].stop if named else 0
        named.append(NamedInput(one, array.shape[1:] or (1,), one in lengths, first))
    given = {
        one: {"inputs": array, "lengths": lengths[one]} if one in lengths else array
        for one, array in arrays.items()
    }
    return tuple(named), side_by_side(given, named, name)


def checked(table: Table, named: Sequence[NamedInput], bad_rows: BadRows | None, allowed: Allowed) -> Table:
    """The table without bad rows (see `check_rows`), with several inputs in the order of the network's.
    Raises DataError if the inputs do not fit the network's."""
    table = check_rows(_fitted(table, named), bad_rows, allowed)
    check_parts(table.inputs, named, table.name, table.row_number)
    return table


def _fitted(table: Table, named: Sequence[NamedInput]) -> Table:
    if not named and table.named_inputs:
        raise DataError(
            f"{table.name}: has inputs with names, but the network has none; give it layers of the type input"
        )
    if not named:
        return table
    if table.lengths is not None:
        raise DataError(
            f"{table.name}: has lengths, and several inputs have them each; give ragged: true to those with"
            " rows of different lengths"
        )
    if table.named_inputs and _layout(table.named_inputs) != _layout(named):
        table = replace(table, inputs=side_by_side(_views(table), named, table.name))
    table = replace(table, inputs=table.inputs.reshape(len(table), -1), named_inputs=tuple(named))
    numbers = table.inputs.shape[1]
    if numbers != named[-1].stop:
        what = ", ".join(f"{one.name!r} {list(one.shape)}" for one in named)
        raise DataError(
            f"{table.name}: a row has {numbers} numbers, but the inputs {what} take {named[-1].stop}; give a"
            " mapping from their names, or such rows"
        )
    return table


def _layout(named: Sequence[NamedInput]) -> list[tuple[str, Shape, bool]]:
    """The facts that decide the place of each number in a row."""
    return [(entry.name, entry.shape, entry.ragged) for entry in named]


def check_parts(rows: Array, named: Sequence[NamedInput], name: str, row_number: Any = int) -> None:
    """Raises DataError if an id or a length in `rows` is not valid."""
    for entry in named:
        its_name = f"{name}, input {entry.name!r}"
        if entry.ids_below is not None:
            as_ids(rows[:, entry.first : entry.end], entry.ids_below, its_name, row_number)
        if entry.ragged:
            checked_lengths(rows[:, entry.end], len(rows), entry.shape[0], its_name)
            release_pages(rows)


def _views(table: Table) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for one in table.named_inputs:
        values = table.inputs[:, one.first : one.end].reshape(len(table), *one.shape)
        found[one.name] = {"inputs": values, "lengths": table.inputs[:, one.end]} if one.ragged else values
    return found


def fit_each(table: Table, named: Sequence[NamedInput], standardize: bool) -> Preprocessing:
    """The preprocessing of several inputs: each is divided by its scale; with `standardize` one whose scale
    is 1 gets mean 0 and deviation 1, each number over the training rows (see `fit`). Ids and lengths stay.
    Raises DataError."""
    mean, std = np.zeros(table.features), np.ones(table.features)
    for one in named:
        own = slice(one.first, one.end)
        if one.ids_below is not None:
            continue
        std[own] = one.scale
        if standardize and one.scale == 1:
            lengths = table.inputs[:, one.end].astype(np.int64) if one.ragged else None
            values = table.inputs[:, own].reshape(len(table), *one.shape)
            found = fit(Table(values, name=f"{table.name}, input {one.name!r}", lengths=lengths), 1.0, True)
            assert found.mean is not None and found.std is not None
            mean[own], std[own] = found.mean.ravel(), found.std.ravel()
    if not mean.any() and (std == 1).all():
        return Preprocessing()
    return Preprocessing(1.0, mean, std)
