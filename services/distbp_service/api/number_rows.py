"""Turns the rows of numbers in a JSON body into an array. Errors name the place of the fault."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from distbp.core.arrays import Array
from distbp.core.errors import DataError
from distbp.data.given import arranged
from distbp.data.table import ColumnNames
from distbp_service.errors import BadValueError

_MOST_SHOWN = 40


def array_of(inputs: list[Any], columns: ColumnNames | None) -> Array:
    """The array (rows, ...) of the inputs. A row is a list of numbers, or a mapping from the names of the
    model's columns to numbers, in any order. columns: the model's names; None: it has none. Raises
    BadValueError."""
    names = tuple(inputs[0]) if isinstance(inputs[0], dict) else None
    if names is not None:
        if columns is None:
            raise _bad(
                "the model's inputs have no names; send JSON in which each row is a list of numbers:"
                ' {"inputs": [[1, 2], [3, 4]]}'
            )
        for number, row in enumerate(inputs):
            if not isinstance(row, dict) or row.keys() != inputs[0].keys():
                raise _bad(f"row {number} does not name the columns of row 0; name the same in all rows")
        inputs = [[row[name] for name in names] for row in inputs]
    for number, row in enumerate(inputs):
        if not isinstance(row, list):
            raise _bad(
                f"row {number} is {_shown(row)}, and no list of numbers; send a list of rows, also for a"
                ' single one: {"inputs": [[1, 2]]}'
            )
    try:
        x = np.array(inputs)
    except (ValueError, OverflowError):
        raise _bad(_no_number(inputs, names) or _unequal(inputs)) from None
    if x.dtype.kind not in "fiu":
        raise _bad(_no_number(inputs, names) or "the inputs are not all numbers of 64 bits")
    try:
        return x if columns is None else arranged(x, names, tuple(map(str, columns)), "each row")
    except DataError as error:
        raise _bad(str(error)) from None


def _no_number(rows: list[Any], names: tuple[str, ...] | None) -> str:
    """A message about the first value that is not a number; "" if all are numbers."""
    for row, *places in ((row, *found) for row, values in enumerate(rows) for found in _leaves(values)):
        value = places.pop()
        if isinstance(value, bool) or not isinstance(value, int | float):
            where = f"column {names[places[0]]!r}" if names else f"place {', '.join(map(str, places))}"
            return f"row {row}, {where}: {_shown(value)} is not a number; give one, or leave out that row"
    return ""


def _unequal(rows: list[Any]) -> str:
    counts = [sum(1 for _ in _leaves(row)) for row in rows]
    for number, count in enumerate(counts):
        if count != counts[0]:
            return f"row {number} has {count:,} numbers, and row 0 has {counts[0]:,}; give as many in each"
    return "the rows do not all have the same shape; nest the numbers of each row as in training"


def _leaves(value: Any, *place: int) -> Iterator[tuple[Any, ...]]:
    """Yields each value in nested lists as (*place, value)."""
    if isinstance(value, list):
        for number, one in enumerate(value):
            yield from _leaves(one, *place, number)
    else:
        yield (*place, value)


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."


def _bad(text: str) -> BadValueError:
    return BadValueError(text, "inputs")
