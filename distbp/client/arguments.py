"""Checks of the client's arguments, made before anything is sent. Every check returns the value, or raises
the same RemoteError as a service: `code` is "invalid", and `param` names the argument at fault.
"""

from __future__ import annotations

import math
import operator
import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from distbp.client.names import STATES
from distbp.core.errors import RemoteError, cut
from distbp.core.metric_names import SPLITS
from distbp.core.storage import user_path
from distbp.data.frames import frame_kind, is_frame
from distbp.job import TrainingJob

KEY = re.compile(r"[\x21-\x7e]{1,200}")
NAME = re.compile(r"[A-Za-z0-9 ._-]{1,100}")
_MOST_S = 1e9


def refused(param: str, wanted: str, value: Any) -> RemoteError:
    return RemoteError(f"{param} must be {wanted}, not {cut(repr(value), 80)}", code="invalid", param=param)


def text(param: str, value: Any, pattern: re.Pattern[str], wanted: str) -> str:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise refused(param, wanted, value)
    return value


def whole(param: str, value: Any, low: int, high: int) -> int:
    try:
        found = operator.index(value)
    except TypeError:
        found = low - 1
    if isinstance(value, bool) or not low <= found <= high:
        raise refused(param, f"a whole number from {low} to {high}", value)
    return found


def seconds(param: str, value: Any, *, zero: bool = False) -> float:
    wanted = f"seconds, {'at least' if zero else 'more than'} 0 and at most {_MOST_S:g}"
    try:
        found = math.nan if isinstance(value, bool | str | bytes) else float(value)
    except (TypeError, ValueError, OverflowError):
        found = math.nan
    if not (0 <= found <= _MOST_S and (zero or found > 0)):
        raise refused(param, wanted, value)
    return found


def flag(param: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise refused(param, "True or False", value)
    return value


def path(param: str, value: Any) -> Path:
    if not isinstance(value, str | os.PathLike) or "\0" in os.fspath(value):
        raise refused(param, "a path", value)
    return user_path(value)


def job(value: Any) -> TrainingJob:
    if not isinstance(value, TrainingJob):
        raise refused("job", "a TrainingJob", value)
    return value


def states(param: str, value: Any) -> list[str]:
    known = f"some of {', '.join(STATES)}"
    if isinstance(value, str) or not isinstance(value, Collection):
        raise refused(param, f"a tuple of {known}", value)
    for state in value:
        if state not in STATES:
            raise refused(param, known, state)
    return list(value)


def data(value: Any, job: TrainingJob) -> dict[str, Any]:
    """Returns the data of each split: (inputs, targets), (inputs, targets, weights), or a frame that holds
    the target. Targets may be missing if the job names its own (`data.targets`)."""
    needed = 2 if job.data.targets is None else 1
    whole = not isinstance(value, Mapping)
    found = {} if value is None else {"train": value} if whole else value
    wanted = "(inputs, targets) or (inputs, targets, weights), or a frame"
    for split, given in found.items():
        if split not in SPLITS:
            raise refused("data", f"arrays or frames by split, of {', '.join(SPLITS)}", split)
        where = "data" if whole else f"data[{split!r}]"
        if is_frame(given) or (given is None and split != "train"):
            continue
        if not isinstance(given, tuple | list):
            lazy = " (call its .collect() first)" if frame_kind(given) == "lazy" else ""
            raise refused(where, wanted, f"{type(given).__name__}{lazy}")
        if len(given) not in (2, 3) or any(part is None for part in given[:needed]):
            what = "without targets" if len(given) in (1, 2, 3) else f"{len(given)} arrays"
            raise RemoteError(f"{where} must be {wanted}, not {what}", code="invalid", param=where)
    kinds = {split: is_frame(given) for split, given in found.items() if given is not None}
    if len(set(kinds.values())) > 1:
        message = "data must be frames alone or arrays alone, not some of each"
        raise RemoteError(message, code="invalid", param="data")
    return {split: found[split] if kinds[split] else tuple(found[split]) for split in kinds}
