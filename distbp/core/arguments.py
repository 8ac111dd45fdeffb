"""Checks of callers' arguments, made at the entry of a function: a wrong type then gives a message in words,
not a traceback from deep inside. Every check raises ArgumentError, which names the argument and what to give.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from distbp.core.errors import ArgumentError
from distbp.core.storage import absolute

MAX_WORKERS = 4096
MAX_MEMBERS = 100  # networks of one job


def kind_of(value: Any) -> str:
    return "None" if value is None else f"a value of type {type(value).__name__}"


def check_kind(value: Any, kinds: type | tuple[type, ...], what: str, instead: str) -> None:
    """Raises ArgumentError unless `value` is of one of `kinds`. `what`: the argument's name. `instead`: the
    values that are allowed, in words."""
    if not isinstance(value, kinds):
        raise ArgumentError(f"{what} must be {instead}, not {kind_of(value)}")


def path_given(value: Any, what: str) -> Path:
    """`value` as an absolute path; a leading `~` stands for the user's home folder. Raises ArgumentError, and
    StorageError if the working directory was deleted."""
    check_kind(value, (str, os.PathLike), what, "a path (text or pathlib.Path)")
    return absolute(value)


def workers_given(value: Any, *, auto: bool = False) -> Any:
    """`value` as an int from 0 to MAX_WORKERS. `auto`: "auto" and None are allowed too, and returned as they
    are. Raises ArgumentError."""
    if auto and (value is None or (isinstance(value, str) and value == "auto")):
        return value
    whole = hasattr(value, "__index__") and not isinstance(value, bool) and getattr(value, "ndim", 0) == 0
    if not whole or not 0 <= value.__index__() <= MAX_WORKERS:
        more = " or 'auto'" if auto else ""
        raise ArgumentError(f"workers is {value!r}, but must be a whole number from 0 to {MAX_WORKERS}{more}")
    return value.__index__()
