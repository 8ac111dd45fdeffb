"""Frames with more than numbers. They are trained on as tables, and the plan of the table is part of the
model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from distbp.core.arrays import Array
from distbp.core.errors import ArgumentError
from distbp.data.columns.arrow import arrow, is_text
from distbp.data.columns.cells import MISSING, cleaned, numbers_of
from distbp.data.columns.rows import as_arrow
from distbp.data.frames import frame_kind
from distbp.sklearn.settings import TAKEN


def rows_of(x: Any, named: bool = False) -> tuple[Any, bool]:
    """Returns the inputs, and whether to train on them as a table, in which case they are a table of Arrow:
    frames with text, dates or holes, or, if `named`, all frames. Other inputs are for scikit-learn; batches
    and streams of Arrow become tables, which have names. Raises ArgumentError for a lazy frame."""
    kind = frame_kind(x)
    if kind == "lazy":
        raise ArgumentError(f"a {type(x).__name__} has no rows yet; give what its .collect() returns")
    if kind == "pandas":
        numbers = all(dtype.kind in "iufb" for dtype in x.dtypes) and not x.isna().to_numpy().any()
        return (x, False) if numbers and not named else (_plain(as_arrow(x)), True)
    if kind not in ("arrow", "polars", "stream"):
        return x, False
    table = as_arrow(x)
    if not named and all(_numbers(column) for column in table.columns):
        return (x if kind == "polars" else table), False
    return _plain(table), True


def _plain(table: Any) -> Any:
    """The table without string views, from which pyarrow cannot take rows."""
    pa = arrow().pa
    kinds = [pa.large_string() if pa.types.is_string_view(f.type) else f.type for f in table.schema]
    return table.cast(pa.schema(list(zip(table.column_names, kinds, strict=True))))


def _numbers(column: Any) -> bool:
    """Whether a column holds numbers or booleans, and no holes."""
    types, compute = arrow().pa.types, arrow().compute
    if types.is_floating(column.type):
        return not column.null_count and not compute.any(compute.is_nan(column)).as_py()
    return (types.is_integer(column.type) or types.is_boolean(column.type)) and not column.null_count


def categories_in(table: Any) -> list[str]:
    """The columns that are stored as categories, but whose cells alone would be taken for numbers."""
    return [name for name in table.column_names if _is_coded(table.column(name).combine_chunks())]


def different_numbers(table: Any, rows: int) -> list[int]:
    """The number of different values in the first `rows` rows, for each column that is stored as numbers."""
    first, types, compute = table.slice(0, rows), arrow().pa.types, arrow().compute
    numbers = (types.is_integer, types.is_floating, types.is_decimal)
    return [
        compute.count_distinct(first.column(place)).as_py()
        for place, field in enumerate(first.schema)
        if any(kind(field.type) for kind in numbers)
    ]


def _is_coded(column: Any) -> bool:
    types = arrow().pa.types
    if not types.is_dictionary(column.type):
        return False
    kind, levels = column.type.value_type, cleaned(column.dictionary, MISSING).drop_null()
    if is_text(kind):
        return len(levels) > 0 and numbers_of(levels) is not None
    return bool(types.is_integer(kind) or types.is_floating(kind))


def with_targets(
    table: Any, y: Array, weights: Array | None, names: Sequence[str], known: bool = False
) -> tuple[Any, list[str], str | None]:
    """The table with targets and weights as further columns, and the names of these columns. y: (n,) or (n,
    outputs). names: wanted for the targets. `known`: the targets must have these names, and replace columns
    of the table with such a name; else a taken name is changed."""
    targets = []
    for name, column in zip(names, y.reshape(len(y), -1).T, strict=True):
        if known and name in table.column_names:
            table = table.drop_columns([name])
        targets.append(_free(table, name))
        table = table.append_column(targets[-1], arrow().pa.array(column))
    if weights is None:
        return table, targets, None
    weight = _free(table, "weight")
    return table.append_column(weight, arrow().pa.array(weights)), targets, weight


def _free(table: Any, name: str) -> str:
    """The name with as many "_" as make it unlike all columns and the words of a job."""
    while name in table.column_names or name in TAKEN:
        name += "_"
    return name


def named(x: Any, names: Array) -> Any:
    """Inputs for a model of a table: a frame as it is, an array with the names of the columns."""
    if frame_kind(x) is not None or np.ndim(x) != 2:
        return x
    if np.shape(x)[1] != len(names):
        raise ArgumentError(f"X has {np.shape(x)[1]} features, and fit saw {len(names)}")
    numbers = isinstance(x, np.ndarray) and x.dtype.kind == "f"
    columns = x.T if numbers else map(list, np.asarray(x, object).T)
    found = dict(zip(map(str, names), columns, strict=True))
    return arrow().pa.table(found) if numbers else found
