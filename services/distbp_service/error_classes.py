"""The class of an error of a training run, which decides whether the job is tried again.

Classes are those of `policy.BUDGETS`. The first row that fits counts, so subclasses are above their parents.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from distbp.core import errors
from distbp.core.words import snake_case

CLASSES: tuple[tuple[type[BaseException], str], ...] = (
    (errors.NoMemoryError, "infrastructure"),  # other programs have the memory now
    (errors.JobError, "user"),
    (errors.ArgumentError, "internal"),
    (errors.SettingsError, "internal"),
    (errors.DataError, "user"),
    (errors.NumericsError, "user"),
    (errors.FingerprintError, "infrastructure"),  # another machine may compute the right bits
    (errors.QuotaError, "user"),
    (errors.StorageError, "infrastructure"),  # for example, a full disk
    (errors.CheckpointError, "internal"),
    (errors.ModelError, "user"),
    (errors.CorruptionError, "infrastructure"),  # a broken machine
    (errors.ExchangeError, "infrastructure"),
    (MemoryError, "infrastructure"),
    (OSError, "infrastructure"),
)


def class_of(error: BaseException) -> str:
    return next((name for kind, name in CLASSES if isinstance(error, kind)), "internal")


def described(error: BaseException, work: Path | None = None) -> dict[str, Any]:
    """The error as {class, code, message} for the job's owner; a JobError also has `faults`. `code`: the
    error's name, in snake case without "Error". work: the work volume; paths in it are made relative to it,
    because users may not see its place."""

    def shown(text: str) -> str:
        return text if work is None else text.replace(f"{work}/", "")

    name = type(error).__name__
    text = shown(str(error))
    known = isinstance(error, errors.DistbpError)
    found: dict[str, Any] = {
        "class": class_of(error),
        "code": snake_case(name.removesuffix("Error") or name),
        "message": text if known and text else f"{name}: {text}" if text else name,
    }
    if isinstance(error, errors.JobError):
        found["faults"] = [{"path": fault.path, "message": shown(fault.message)} for fault in error.faults]
    return found
