"""The door to pyarrow, which reads every file of a table. It is loaded when the first table is opened."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

from distbp.core.errors import DataError
from distbp.core.imports import missing


class Arrow(NamedTuple):
    """Modules of pyarrow. `errors`: what they raise for files that are damaged."""

    pa: Any
    compute: Any
    csv: Any
    json: Any
    ipc: Any
    parquet: Any
    errors: tuple[type[Exception], ...]


@functools.cache
def arrow() -> Arrow:
    """Raises DataError where pyarrow is not installed."""
    try:
        import pyarrow as pa
        from pyarrow import compute, csv, ipc, json, parquet
    except ModuleNotFoundError:
        raise DataError(missing("a table", "pyarrow", "distbp[tables]")) from None
    errors = (pa.ArrowException, OSError, UnicodeError, ValueError)
    return Arrow(pa, compute, csv, json, ipc, parquet, errors)


def is_text(kind: Any) -> bool:
    """Whether a type of Arrow's holds text."""
    types = arrow().pa.types
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))
