"""The order in which metrics are shown, and whether their axis is logarithmic."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

SPLITS = ("train", "validation", "test")
_FIRST = ("loss", "accuracy", "class_accuracy", "r2", "f1", "auc")
_WIDE = 30  # largest / smallest value; above this, small values cannot be told apart on a linear axis


def measured(names: Iterable[str]) -> list[str]:
    """The metrics in names such as "validation_f1", each once: those of `_FIRST`, then the others."""
    found = [name for split, _, name in (full.partition("_") for full in names) if split in SPLITS and name]
    return [n for n in _FIRST if n in found] + [n for n in dict.fromkeys(found) if n not in _FIRST]


def spans_decades(values: Sequence[float]) -> bool:
    """Whether values, all finite, are above 0 and span a range that needs a logarithmic axis."""
    return bool(values) and min(values) > 0 and max(values) > _WIDE * min(values)
