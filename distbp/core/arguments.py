"""What callers give: checked where it comes in, so that a wrong kind is said in words and not by a traceback
from far inside. Everything here raises ArgumentError, which names the argument and what to give."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from distbp.core.errors import ArgumentError
from distbp.core.storage import absolute

MAX_WORKERS = 4096


def kind_of(value: Any) -> str:
    return "None" if value is None else f"a value of type {type(value).__name__}"


def check_kind(value: Any, kinds: type | tuple[type, ...], what: str, instead: str) -> None:
    """`what`: the argument. `instead`: what it must be, in words."""
    if not isinstance(value, kinds):
        raise ArgumentError(f"{what} must be {instead}, not {kind_of(value)}")


def path_given(value: Any, what: str) -> Path:
    """A path from the root; a `~` at its beginning is the user's own folder. Raises StorageError where the
    working directory is gone."""
    check_kind(value, (str, os.PathLike), what, "a path (text or pathlib.Path)")
    return absolute(value)


def workers_given(value: Any, *, auto: bool = False) -> Any:
    """A number of workers as an int, or with `auto` also "auto" or None."""
    if auto and (value is None or (isinstance(value, str) and value == "auto")):
        return value
    whole = hasattr(value, "__index__") and not isinstance(value, bool) and getattr(value, "ndim", 0) == 0
    if not whole or not 0 <= value.__index__() <= MAX_WORKERS:
        more = " or 'auto'" if auto else ""
        raise ArgumentError(f"workers is {value!r}, but must be a whole number from 0 to {MAX_WORKERS}{more}")
    return value.__index__()
