"""Encodes raw rows for a model, from a file, a frame, a mapping of columns, or a list of mappings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from distbp.core.arrays import Array
from distbp.core.errors import DataError
from distbp.data.columns import cells as c
from distbp.data.columns.arrow import arrow
from distbp.data.columns.loading import Use, load_columns
from distbp.data.columns.plan import Plan, Seen
from distbp.data.columns.reading import NamedTable
from distbp.data.columns.store import Column, read_cells
from distbp.data.frames import frame_kind
from distbp.data.windows import Windows

_READ_AS = {"number": "a number", "date": "a date", "boolean": "yes or no", "level": "text"}


@dataclass(frozen=True, eq=False)
class EncodedRows:
    """Encoded rows. `inputs`: (n, width), as the first layer of a model takes them. `seen`: what encoding
    found. `windows`: if the samples are windows of the rows."""

    inputs: Array
    seen: Seen = field(default_factory=Seen)
    windows: Windows | None = None

    def __len__(self) -> int:
        return len(self.inputs if self.windows is None else self.windows)


def encode_file(plan: Plan, table: NamedTable, dtype: Any, ahead: int = 0) -> EncodedRows:
    """Encodes the rows of a file. For series only windows with `ahead` rows after them are kept. Raises
    DataError with all missing columns, or with the place of a bad cell."""
    seen = Seen(extra=plan.check_names(table.names, table.name))
    parts, groups, times = [], [], []
    time = _time(plan, table.names)
    for row, cells in table.pieces([*plan.needs, *time]):
        parts.append(_piece(plan, cells, dtype, seen, lambda index, row=row: table.place(row + index)))
        groups += _groups(plan, cells)
        times += _times(plan, cells)
    return _encoded(plan, np.concatenate(parts), seen, groups, times, ahead, table.name)


class GoodRows(NamedTuple):
    """The usable rows of a file, with further columns. `kept`: their numbers in the file. `skipped`: the
    number of other rows, by reason."""

    rows: EncodedRows
    columns: Mapping[str, Column]
    kept: Array
    skipped: Mapping[str, int]


def encode_good(plan: Plan, table: NamedTable, dtype: Any, others: Mapping[str, Use]) -> GoodRows:
    """Encodes the rows of a file that training would use if it skips bad rows. others: columns besides the
    inputs. Raises DataError with all missing columns, or if no row is left."""
    seen = Seen(extra=plan.check_names(table.names, table.name))
    uses = {column.name: Use(column.reads, column.numeric) for column in plan.columns}
    loaded = load_columns(table, {**uses, **others}, plan.missing, skip=True)
    kept = np.arange(len(loaded)) if loaded.kept is None else np.flatnonzero(loaded.kept)
    found = {name: Column(of.values[kept], of.levels) for name, of in loaded.columns.items()}
    inputs = np.empty((len(kept), plan.width), dtype)
    plan.encode_piece({name: (found[name].values, found[name].levels) for name in uses}, inputs, seen)
    good, skipped = np.isfinite(inputs).all(axis=1), dict(loaded.skipped)
    if not good.all():  # numbers that the inputs' dtype cannot hold
        skipped["too large inputs"] = int((~good).sum())
    columns = {name: Column(found[name].values[good], found[name].levels) for name in others}
    return GoodRows(EncodedRows(inputs[good], seen), columns, kept[good], skipped)


def encode_given(plan: Plan, given: Any, dtype: Any) -> EncodedRows:
    """Encodes the rows of a value from Python: a frame of pandas or Polars, a table of Arrow, a mapping of
    columns, a list of mappings, or one mapping of single values. Raises DataError."""
    if isinstance(given, list | tuple):  # mappings, which may have different columns
        names = _names_of(given)
        seen = Seen(extra=plan.check_names(names, "the data"))
        table = as_arrow(given, [*plan.needs, *_time(plan, names)])
    else:
        table = as_arrow(given)
        seen = Seen(extra=plan.check_names(table.column_names, "the data"))
    if not table.num_rows:
        return EncodedRows(np.empty((0, plan.width), dtype), seen)
    cells = {name: _one(table.column(name)) for name in (*plan.needs, *_time(plan, table.column_names))}
    inputs = _piece(plan, cells, dtype, seen, lambda index: f"row {index:,}")
    return _encoded(plan, inputs, seen, _groups(plan, cells), _times(plan, cells), 0, "the data")


def _groups(plan: Plan, cells: Mapping[str, Any]) -> list[str]:
    """The series of each row, as text; [] without groups."""
    group = "" if plan.series is None else plan.series.group
    return [str(cell) for cell in cells[group].to_pylist()] if group else []


def _time(plan: Plan, names: Sequence[str]) -> list[str]:
    """The column of time, if it exists and is not an input; else []."""
    time = "" if plan.series is None else plan.series.time
    return [time] if time in names and time not in plan.needs else []


def _times(plan: Plan, cells: Mapping[str, Any]) -> list[Array]:
    """The times of a piece as one array of numbers; NaN for cells that are neither numbers nor dates. []
    without a column of time."""
    raw = None if plan.series is None else cells.get(plan.series.time)
    if raw is None:
        return []
    found = [read_cells(c.cleaned(raw, plan.missing), how)[0] for how in ("date", "number")]
    return [np.where(np.isnan(found[0]), found[1], found[0])]


def _encoded(
    plan: Plan, inputs: Array, seen: Seen, groups: list[str], times: list[Array], ahead: int, where: str
) -> EncodedRows:
    if plan.series is None:
        return EncodedRows(inputs, seen)
    known = np.concatenate(times) if times else None
    windows = plan.series.windows(groups or None, known, len(inputs), ahead, where)
    return EncodedRows(inputs, seen, windows)


def as_arrow(given: Any, only: Sequence[str] | None = None) -> Any:
    """An Arrow table of a value with named columns. only: for a list of mappings, the columns to take. Raises
    DataError."""
    table = _table_of(given, only)
    twice = next((name for name, count in Counter(table.column_names).items() if count > 1), None)
    if twice is not None:
        raise DataError(f"two columns of the frame are named {twice!r}; give each a name of its own")
    return table


def _table_of(given: Any, only: Sequence[str] | None) -> Any:
    pa = arrow().pa
    if isinstance(given, list | tuple):
        wanted = _names_of(given) if only is None else only
        by_name = [{str(k): v for k, v in row.items()} for row in given]
        return _columns({name: [row.get(name) for row in by_name] for name in wanted})
    if isinstance(given, Mapping):
        single = all(isinstance(v, str | bytes) or not isinstance(v, Iterable) for v in given.values())
        return _columns({str(k): [v] if single else v for k, v in given.items()})
    kind = frame_kind(given)
    if kind == "lazy":
        raise DataError(f"a {type(given).__name__} has no rows yet; give what its .collect() returns")
    # The Arrow stream of pandas has the index as a column. Other streams need no copy.
    if kind in ("arrow", "polars", "stream"):
        return pa.table(given)
    if kind is not None:
        names = [str(name) for name in given.columns]
        if kind == "pandas":
            columns = [given.iloc[:, i] for i in range(len(names))]
        else:
            columns = [given[name] for name in given.columns]
        return pa.Table.from_arrays(list(map(_array, names, columns)), names=names)
    raise DataError(
        "the model takes rows with named columns: a frame, a mapping from name to values, a list of mappings,"
        f" a table of Arrow; not a value of type {type(given).__name__}"
    )


def _names_of(rows: Sequence[Any]) -> list[str]:
    """The names in mappings, in the order of their first occurrence. Raises DataError."""
    names: dict[str, None] = {}
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise DataError(f"row {number} is not a mapping from column to value; give one for each row")
        names.update(dict.fromkeys(map(str, row)))
    return list(names)


def _columns(columns: Mapping[str, Any]) -> Any:
    pa = arrow().pa
    arrays = {name: _array(name, values) for name, values in columns.items()}
    counts = {name: len(values) for name, values in arrays.items()}
    if len(set(counts.values())) > 1:
        shown = ", ".join(f"{name!r} {count:,}" for name, count in list(counts.items())[:5])
        raise DataError(f"the columns have different lengths ({shown}); give one value for each row")
    return pa.table(arrays) if arrays else pa.table({})


def _array(name: str, values: Any) -> Any:
    pa = arrow().pa
    try:
        found = pa.array(values, from_pandas=True)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):  # a column with values of several types
        try:
            texts = [None if v is None or v != v else str(v) for v in values]
        except (TypeError, ValueError):
            raise DataError(f"column {name!r}: give one value for each row") from None
        found = pa.array(texts, pa.string())
    return _one(found)


def _one(column: Any) -> Any:
    """A column, which may have several chunks, as one array."""
    return arrow().pa.concat_arrays(column.chunks) if getattr(column, "num_chunks", 0) else column


def _piece(plan: Plan, cells: Mapping[str, Any], dtype: Any, seen: Seen, place: Any) -> Array:
    """Encodes a piece: (rows, width). Raises DataError with the first bad cell of every column."""
    values, faults = {}, []
    for column in plan.columns:
        raw = cells[column.name]
        piece = c.cleaned(raw, plan.missing)
        found, levels, bad = read_cells(piece, column.reads, column.numeric)
        said = f"is not {_READ_AS[column.reads]}"
        if column.reads == "number" and np.isinf(found).any():
            bad = np.isinf(found) if bad is None else bad | np.isinf(found)
        elif bad is None and column.reads == "number" and (large := _too_large(column, found, dtype)).any():
            bad, said = large, f"is too large for numbers of type {np.dtype(dtype)}"
        if bad is not None:
            index = int(bad.argmax())
            shown = raw[index].as_py()
            said += c.comma_hint(shown) if column.reads == "number" else ""
            shown = repr(shown[:40]) if isinstance(shown, str) else str(shown)
            faults.append(f"{place(index)}, column {column.name!r}: {shown} {said}")
        values[column.name] = (found, levels)
    if faults:
        more = f" ({len(faults) - 5} more columns have such cells)" if len(faults) > 5 else ""
        raise DataError("; ".join(faults[:5]) + more + ". Mend these cells, or leave them empty")
    out = np.empty((len(next(iter(values.values()))[0]), plan.width), dtype)
    plan.encode_piece(values, out, seen)
    return out


def _too_large(column: Any, values: Array, dtype: Any) -> Array:
    """Which numbers are too large for the inputs' dtype after scaling. Logarithms and ranks never are."""
    if column.log or column.ranks:
        return np.zeros(len(values), bool)
    with np.errstate(over="ignore"):
        return np.asarray(np.abs((values - column.center) / column.spread) > np.finfo(dtype).max)
