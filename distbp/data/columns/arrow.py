"""Access to pyarrow, which reads every file of a table. The first call of `arrow` imports it."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

from distbp.core.errors import DataError
from distbp.core.imports import missing


class Arrow(NamedTuple):
    """Modules of pyarrow. `errors`: the exceptions that they raise for damaged files."""

    pa: Any
    compute: Any
    csv: Any
    json: Any
    ipc: Any
    parquet: Any
    errors: tuple[type[Exception], ...]


@functools.cache
def arrow() -> Arrow:
    """Imports pyarrow at the first call. Raises DataError if pyarrow is not installed."""
    try:
        import pyarrow as pa
        from pyarrow import compute, csv, ipc, json, parquet
    except ModuleNotFoundError:
        raise DataError(missing("a table", "pyarrow", "distbp[tables]")) from None
    errors = (pa.ArrowException, OSError, UnicodeError, ValueError)
    return Arrow(pa, compute, csv, json, ipc, parquet, errors)


def is_text(kind: Any) -> bool:
    """Whether an Arrow type is a type of text."""
    types = arrow().pa.types
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))
