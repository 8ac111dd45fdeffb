"""Recognizes frames (tables with named columns) among a user's values, without importing a library of
frames."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

FrameKind = Literal["lazy", "pandas", "arrow", "polars", "stream", "columns"]


def frame_kind(values: Any) -> FrameKind | None:
    """The kind of a frame, by its attributes. lazy: a query that has not been computed. pandas: columns by
    place. arrow, polars: an Arrow stream and names. stream: only an Arrow stream. columns: arrays by name.
    None: a mapping, a series, an array, or another value."""

    def has(name: str) -> bool:
        return hasattr(values, name)

    if isinstance(values, Mapping):
        return None
    if not has("__arrow_c_stream__"):
        if has("collect") and not has("to_numpy"):  # checked first: a lazy frame computes its `columns`
            return "lazy"
        arrays = has("columns") and (has("to_numpy") or has("__array__"))
        return None if not arrays else "pandas" if has("iloc") else "columns"
    if not has("columns"):
        return None if has("to_numpy") else "stream"
    return "pandas" if has("iloc") else "arrow" if has("column_names") else "polars"


def is_frame(values: Any) -> bool:
    """Whether a value is a table with named columns, and not a lazy one without rows."""
    return frame_kind(values) not in (None, "lazy")


def names_of(values: Any) -> list[Any] | None:
    """The names of a frame's columns; None for streams, lazy frames and other values."""
    kind = frame_kind(values)
    if kind == "arrow":
        return list(values.column_names)
    return list(values.columns) if kind in ("pandas", "polars", "columns") else None
