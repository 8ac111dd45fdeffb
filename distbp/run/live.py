"""A live line on a terminal: a progress bar, and the time left."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import Console


def duration(seconds: float) -> str:
    """A duration as text: 7.2 s, 3 min 20 s, 2 h 5 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


class Pace:
    """Time left, from an exponential moving average of the speed, with a half-life of 5 s."""

    def __init__(self, first_step: int, total_steps: int, now: float) -> None:
        self._step, self._total, self._then = first_step, total_steps, now
        self._rate = 0.0

    def seconds_left(self, step: int, now: float) -> float | None:
        """The seconds left after `step` at the time `now`; None before the first step."""
        elapsed = now - self._then
        if step > self._step and elapsed > 0:
            rate = (step - self._step) / elapsed
            keep = 0.5 ** (elapsed / 5) if self._rate else 0.0
            self._rate = keep * self._rate + (1 - keep) * rate
            self._step, self._then = step, now
        return (self._total - step) / self._rate if self._rate else None


@contextmanager
def counting(stream: TextIO, what: str) -> Iterator[Callable[[int, int], None]]:
    """Yields a function to call with the number done and the total. On a terminal a live line shows both, and
    the time left; elsewhere nothing is written. `what`: the things counted, in the plural."""
    if not stream.isatty():
        yield lambda done, total: None
        return
    with bar(stream) as (_, update):
        pace: Pace | None = None

        def tell(done: int, total: int) -> None:
            nonlocal pace
            pace = pace or Pace(0, total, began)
            left_s = pace.seconds_left(done, time.monotonic())
            left = f", {duration(left_s)} left" if left_s is not None else ""
            update(total=total, completed=done, status=f"{done:,} of {total:,} {what}{left}")

        began = time.monotonic()
        yield tell


@contextmanager
def bar(stream: TextIO) -> Iterator[tuple[Console, Callable[..., None]]]:
    """A live line on a terminal, which is removed at the end of the block. Yields a console, which prints
    lines above it, and a function that changes its `total`, `completed` and `status`."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    console = Console(file=stream, highlight=False)
    columns = BarColumn(bar_width=16), TextColumn("{task.fields[status]}")
    with Progress(*columns, console=console, transient=True, refresh_per_second=8) as display:
        task = display.add_task("", total=None, status="")
        yield console, lambda **fields: display.update(task, **fields)
