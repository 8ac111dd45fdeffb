"""The metrics of a job on a service, all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_MOST_POINTS = 10_000  # of one answer of the service


def all_rows(ask: Callable[[int, int | None, int], Any], first: int = 0) -> list[dict[str, Any]]:
    """Every row from step `first` on. ask(start, stop, points): an answer of the service, which chooses among
    its rows where they are more than `points`; then the steps are asked for in halves."""
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
                waiting.insert(0, (last + 1, None))  # what has come since
        else:
            found += [item["data"] for item in items]
    return found
