"""All rows of metrics of a job on a service."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_MOST_POINTS = 10_000  # the most rows in one answer of the service


def all_rows(ask: Callable[[int, int | None, int], Any], first: int = 0) -> list[dict[str, Any]]:
    """Every row from step `first` on, in order. ask(start, stop, points): requests the rows of some steps. If
    there are more than `points`, the service returns a selection; then each half of the steps is requested
    separately."""
    found: list[dict[str, Any]] = []
    waiting: list[tuple[int, int | None]] = [(first, None)]
    while waiting:
        start, stop = waiting.pop()
        answer = ask(start, stop, _MOST_POINTS)
        items = answer["items"]
        if answer["total"] > len(items) and len(items) > 1:
            last = items[-1]["step"]
            middle = (items[0]["step"] + last) // 2
            waiting += [(middle + 1, stop if stop is not None else last), (start, middle)]
            if stop is None:
                waiting.insert(0, (last + 1, None))  # rows that have been added since
        else:
            found += [item["data"] for item in items]
    return found
