"""What a person or a program sees of a running job: listeners for `train` and `resume`, and the summary.

On a terminal a live line (epoch, steps, samples/s, time left) below the table of epochs; elsewhere one plain
line for each thing that happens; for programs one JSON object a line.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, TextIO

from distbp import events
from distbp.result import Result

# The metrics that a line shows, as many as there are, before the others.
_FIRST = ("train_loss", "validation_loss", "validation_accuracy")
# The states of a job on a service that are worth a line; of the others, other lines tell.
_TOLD = frozenset({"queued", "pausing", "paused", "recovering", "cancelling"})


@contextmanager
def show(
    stream: TextIO, *, as_json: bool = False, notes: Callable[[events.Started], Sequence[str]] = lambda _: ()
) -> Iterator[events.Listener]:
    """A listener that shows events on `stream` as fits it. `notes`: what to say about a job once its data is
    known. The live display is taken away at the end of the block."""
    if as_json:
        yield json_lines(stream, notes)
    elif stream.isatty():
        with _live(stream, notes) as listen:
            yield listen
    else:
        yield plain_lines(stream, notes)


def json_lines(
    stream: TextIO, notes: Callable[[events.Started], Sequence[str]] = lambda _: ()
) -> events.Listener:
    """One JSON object a line: `event` is its kind, the other keys are its fields; NaN and Inf are null."""

    def listen(event: events.Event) -> None:
        fields = {"event": kind_of(event), **asdict(event)}
        if isinstance(event, events.Started):
            fields["notes"] = [*event.notes, *notes(event)]
        stream.write(json.dumps(finite(fields), separators=(", ", ": ")) + "\n")
        stream.flush()

    return listen


def plain_lines(
    stream: TextIO, notes: Callable[[events.Started], Sequence[str]] = lambda _: ()
) -> events.Listener:
    """One line for each thing worth a line; steps within an epoch are not."""

    def listen(event: events.Event) -> None:
        for text in _lines(event, notes):
            stream.write(text + "\n")
        stream.flush()

    return listen


def kind_of(event: events.Event) -> str:
    """EpochEnded -> "epoch_ended"."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", type(event).__name__).lower()


def finite(value: Any) -> Any:
    """`value` with NaN and Inf as None, keys as text, tuples as lists: what JSON can hold."""
    if isinstance(value, Mapping):
        return {str(k): finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _lines(event: events.Event, notes: Callable[[events.Started], Sequence[str]]) -> Iterator[str]:
    if isinstance(event, events.Started):
        yield started_line(event)
        yield from (f"note: {note}" for note in (*event.notes, *notes(event)))
    elif isinstance(event, events.EpochEnded):
        yield epoch_line(event)
    elif isinstance(event, events.CheckpointSetAside):
        yield (
            f"warning: the damaged checkpoint {event.path} was set aside ({event.reason});"
            " the one before is used"
        )
    elif isinstance(event, events.Noted):
        yield f"note: {event.text}"
    elif isinstance(event, events.TeamChanged):
        yield f"step {event.step}, attempt {event.attempt}: {event.reason}"
    elif isinstance(event, events.StateChanged):
        if event.state in _TOLD:
            yield f"{event.state}: {event.reason}" if event.reason else event.state
    elif isinstance(event, events.Stopped):
        yield (
            f"stopped early: {event.metric} has not improved for {event.epochs} evaluations;"
            f" the best was {number(event.best)} in epoch {event.best_epoch}"
        )


def started_line(event: events.Started) -> str:
    rows = ", ".join(f"{count:,} {name} rows" for name, count in event.rows.items())
    hosts = f"{event.workers} workers, {event.exchange}" if event.workers else "in this process"
    text = (
        f"{event.name}: {event.parameters:,} parameters, {rows}, {_many(event.shards, 'shard')}, {hosts};"
        f" {_many(event.epochs, 'epoch')} of {_many(event.steps_per_epoch, 'step')}"
    )
    return f"{text}; going on from step {event.first_step}" if event.first_step else text


def epoch_line(event: events.EpochEnded) -> str:
    names = [name for name in _FIRST if name in event.metrics]
    names += [
        name
        for name, value in event.metrics.items()
        if name not in (*_FIRST, "epoch", "step") and isinstance(value, float)
    ]
    values = "  ".join(f"{name.replace('_', ' ')} {number(event.metrics[name])}" for name in names)
    best = "  *" if event.improved else ""
    return f"epoch {event.epoch:>3}  {values}  {event.samples_per_second:,.0f} samples/s{best}"


def number(value: float) -> str:
    """Four significant digits; no exponent where five digits will do."""
    if not math.isfinite(value):
        return str(value)
    return f"{value:.4f}" if 0.001 <= abs(value) < 1000 or value == 0 else f"{value:.4g}"


def duration(seconds: float) -> str:
    """7.2 s, 3 min 20 s, 2 h 5 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def _many(count: int, word: str) -> str:
    return f"{count:,} {word}" if count == 1 else f"{count:,} {word}s"


class Pace:
    """Time left, from the speed of the last few seconds (a mean that forgets: 5 s halve its weight)."""

    def __init__(self, first_step: int, total_steps: int, now: float) -> None:
        self._step, self._total, self._then = first_step, total_steps, now
        self._rate = 0.0

    def seconds_left(self, step: int, now: float) -> float | None:
        """None while nothing is known."""
        elapsed = now - self._then
        if step > self._step and elapsed > 0:
            rate = (step - self._step) / elapsed
            keep = 0.5 ** (elapsed / 5) if self._rate else 0.0
            self._rate = keep * self._rate + (1 - keep) * rate
            self._step, self._then = step, now
        return (self._total - step) / self._rate if self._rate else None


@contextmanager
def _live(stream: TextIO, notes: Callable[[events.Started], Sequence[str]]) -> Iterator[events.Listener]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    console = Console(file=stream, highlight=False)
    columns = TextColumn("epoch {task.fields[epoch]}"), BarColumn(), TextColumn("{task.fields[status]}")
    with Progress(*columns, console=console, transient=True, refresh_per_second=8) as display:
        task = display.add_task("", total=None, epoch="", status="", visible=False)
        pace = Pace(0, 1, time.monotonic())
        epochs = 0

        def listen(event: events.Event) -> None:
            nonlocal pace, epochs
            for text in _lines(event, notes):
                console.print(text, markup=False, soft_wrap=True)
            if isinstance(event, events.Started):
                pace, epochs = Pace(event.first_step, event.total_steps, time.monotonic()), event.epochs
                display.update(task, total=event.total_steps, completed=event.first_step, visible=True)
            elif isinstance(event, events.Progressed):
                left = pace.seconds_left(event.step, time.monotonic())
                status = (
                    f"step {event.step:,}/{event.total_steps:,}  {event.samples_per_second:,.0f} samples/s"
                )
                if left is not None:
                    status += f"  {duration(left)} left"
                display.update(task, completed=event.step, epoch=f"{event.epoch}/{epochs}", status=status)

        yield listen


def summary(result: Result) -> str:
    """What came out and where it lies, for the end of a run."""
    shown = {name: value for name, value in result.metrics.items() if isinstance(value, int | float)}
    lines = [
        f"{result.status} after {_many(result.steps, 'step')} ({result.epochs:g} epochs) in"
        f" {duration(result.wall_seconds)}, {result.samples_per_second:,.0f} samples/s while training"
    ]
    lines += [f"  {name.replace('_', ' '):<22}{number(value)}" for name, value in shown.items()]
    lines += [f"  {'weights (SHA-256)':<22}{result.params_sha256}"]
    if result.fetch is None:
        lines += [f"  {'model':<22}{result.path / 'model'}"]
        curves = result.path / "curves.svg"
        if curves.exists():
            lines += [f"  {'curves':<22}{curves}"]
    lines += [f"  note: {note}" for note in result.notes]
    return "\n".join(lines)
