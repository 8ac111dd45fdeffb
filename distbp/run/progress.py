"""What a person or a program sees of a running job: listeners for `train` and `resume`, and the summary.

On a terminal a live line (what goes on, steps, samples/s, time left) below the table of epochs; elsewhere the
same table in plain lines, and what goes on where nothing was written for some seconds; for programs one JSON
object a line.
"""

from __future__ import annotations

import json
import math
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TextIO

from distbp.core.metric_names import SPLITS
from distbp.core.words import counted, snake_case
from distbp.run import events
from distbp.run.epoch_table import WIDTH, in_order, number, table_head, table_row
from distbp.run.live import Pace, bar, duration
from distbp.run.result import Result
from distbp.run.run_directory import as_json

SILENCE_S, LATER_SILENCE_S = 4.0, 60.0  # in the first minute, and after it: then it would fill logs

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
        with never_silent(stream, plain_lines(stream, notes)) as listen:
            yield listen


def json_lines(
    stream: TextIO, notes: Callable[[events.Started], Sequence[str]] = lambda _: ()
) -> events.Listener:
    """One JSON object a line: `event` is its kind, the other keys are its fields; NaN and Inf are null."""

    def listen(event: events.Event) -> None:
        if isinstance(event, events.Waiting):
            return
        fields = {"event": snake_case(type(event).__name__), **asdict(event)}
        if isinstance(event, events.Started):
            fields["notes"] = [*event.notes, *notes(event)]
        stream.write(json.dumps(as_json(fields), separators=(", ", ": ")) + "\n")
        stream.flush()

    return listen


def plain_lines(
    stream: TextIO, notes: Callable[[events.Started], Sequence[str]] = lambda _: ()
) -> events.Listener:
    """One line for each thing worth a line; steps within an epoch are not."""
    lines = _worded(notes)

    def listen(event: events.Event) -> None:
        for text in lines(event):
            stream.write(text + "\n")
        stream.flush()

    return listen


Lines = Callable[[events.Event], Iterator[str]]


def _worded(notes: Callable[[events.Started], Sequence[str]]) -> Lines:
    """The lines of each event. Epochs are the rows of a table, whose head comes with the first of them."""
    columns: list[str] = []
    watched: str | None = None
    said: set[str] = set()

    def lines(event: events.Event) -> Iterator[str]:
        nonlocal columns, watched
        if isinstance(event, events.Started):
            columns, watched = [], event.watched
            yield from started_lines(event)
            yield from (f"note: {note}" for note in (*event.notes, *notes(event)) if note not in said)
        elif isinstance(event, events.EpochEnded):
            # A service tells whole lines of metrics.jsonl, the learning rate and the health among them.
            floats = [name for name, value in event.metrics.items() if isinstance(value, float)]
            names = [name for name in floats if name.split("_")[0] in SPLITS]
            if not set(names) <= set(columns):  # at first; and where not every epoch is evaluated
                columns = in_order({*columns, *names})
                yield from table_head(columns, watched, event.member)
            yield table_row(columns, event)
        else:
            if isinstance(event, events.TeamChanged):  # a note of the run, too
                said.add(event.reason)
            yield from _other_lines(event)

    return lines


def _other_lines(event: events.Event) -> Iterator[str]:
    if isinstance(event, events.CheckpointSetAside):
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
        of = "" if event.member is None else f"network {event.member} "
        yield (
            f"{of}stopped early: {event.metric} has not improved for {event.epochs} evaluations;"
            f" the best was {number(event.best)} in epoch {event.best_epoch}"
        )


def started_lines(event: events.Started) -> Iterator[str]:
    rows = ", ".join(counted(count, f"{name} row") for name, count in event.rows.items())
    hosts = f"{counted(event.workers, 'worker')}, {event.exchange}" if event.workers else "in this process"
    members = f"{event.members} networks of " if event.members > 1 else ""
    yield f"{event.name}: {members}{event.parameters:,} parameters, {counted(event.shards, 'shard')}, {hosts}"
    text = f"{rows}; {counted(event.epochs, 'epoch')} of {counted(event.steps_per_epoch, 'step')}"
    yield f"{text}; going on from step {event.first_step:,}" if event.first_step else text


def _doing() -> Callable[[events.Event], str]:
    """Of one event after the other: what goes on after it for as long as nothing else is told, or ""."""
    pace, epochs, one = Pace(0, 1, time.monotonic()), 0, True

    def doing(event: events.Event) -> str:
        nonlocal pace, epochs, one
        if isinstance(event, events.Waiting):
            return event.what
        if isinstance(event, events.StateChanged):
            return f"{event.state}: {event.reason}" if event.reason else event.state
        if isinstance(event, events.Started):
            pace, epochs = Pace(event.first_step, event.total_steps, time.monotonic()), event.epochs
            one = event.members == 1
        if not isinstance(event, events.Progressed):
            return ""
        left_s = pace.seconds_left(event.step, time.monotonic())
        parts = [f"epoch {event.epoch} of {epochs}"] if one else []
        parts += [f"step {event.step:,} of {event.total_steps:,}"]
        parts += [f"{event.samples_per_second:,.0f} samples/s"] if event.samples_per_second else []
        parts += [f"{duration(left_s)} left"] if left_s is not None else []
        return ", ".join(parts)

    return doing


@contextmanager
def never_silent(
    stream: TextIO,
    tell: events.Listener,
    *,
    clock: Callable[[], float] = time.monotonic,
    over: threading.Event | None = None,
) -> Iterator[events.Listener]:
    """A listener that passes events on to `tell`. Where none came for some seconds, a thread of its own says
    on `stream` what goes on."""
    follow, lock = _doing(), threading.Lock()
    began = written = heard = clock()
    doing = ""
    over = over or threading.Event()

    def listen(event: events.Event) -> None:
        nonlocal doing, written, heard
        with lock:
            heard = clock()
            doing = follow(event) or doing
            tell(event)
            if not isinstance(event, events.Waiting | events.Progressed):
                written = heard

    def watch() -> None:
        nonlocal written
        while not over.wait(0.25):
            with lock:
                now = clock()
                if doing and now - written >= (SILENCE_S if now - began < 60 else LATER_SILENCE_S):
                    since = f" (for {now - heard:.0f} s)" if now - heard >= 1 else ""
                    stream.write(f"... {doing}{since}\n")
                    stream.flush()
                    written = now

    thread = threading.Thread(target=watch, name="distbp-progress", daemon=True)
    thread.start()
    try:
        yield listen
    finally:
        over.set()
        thread.join()


@contextmanager
def _live(stream: TextIO, notes: Callable[[events.Started], Sequence[str]]) -> Iterator[events.Listener]:
    with bar(stream) as (console, update):
        lines, follow = _worded(notes), _doing()

        def listen(event: events.Event) -> None:
            for text in lines(event):
                console.print(text, markup=False)
            status = follow(event)
            if isinstance(event, events.Started):
                update(total=event.total_steps, completed=event.first_step)
            elif isinstance(event, events.Progressed):
                update(completed=event.step)
            if status:
                update(status=status)

        yield listen


def summary(result: Result) -> str:
    """What came out and where it lies, for the end of a run."""
    shown = {name: value for name, value in result.metrics.items() if isinstance(value, int | float)}
    epochs = f"{result.epochs:g} epoch{'s' if result.epochs != 1 else ''}"
    lines = [
        f"{result.status}: {counted(result.steps, 'step')} ({epochs}) in"
        f" {duration(result.wall_seconds)}, {result.samples_per_second:,.0f} samples/s"
    ]
    if result.model_epoch is not None and result.model_epoch != math.ceil(result.epochs):
        lines += [f"  the model is that of epoch {result.model_epoch}, the best; so are these:"]
    wide = max([22, *(len(name) + 2 for name in shown)])
    lines += [f"  {name.replace('_', ' '):<{wide}}{number(value)}" for name, value in shown.items()]
    lines += [f"  weights       {result.params_sha256}"]
    if result.fetch is None:
        lines += [f"  {'model':<22}{result.path / 'model'}"]
        curves = result.path / "curves.svg"
        if curves.exists():
            lines += [f"  {'curves':<22}{curves}"]
    lines += [textwrap.fill(f"  note: {note}", WIDTH, subsequent_indent="    ") for note in result.notes]
    return "\n".join(lines)
