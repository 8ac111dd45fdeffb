"""Listeners that show a running job to a person or a program, and the summary at its end.

A terminal shows the table of epochs, and below it a live line: current work, steps, samples/s, time left.
Other streams get the same table in plain lines, and a line with the current work after some seconds of
silence. A program gets one JSON object a line.
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

SILENCE_S, LATER_SILENCE_S = 4.0, 60.0  # in the first minute; and later, when more lines would fill logs

# The states of a job on a service that get a line. Other events already show the other states.
_TOLD = frozenset({"queued", "pausing", "paused", "recovering", "cancelling"})


@contextmanager
def show(
    stream: TextIO, *, as_json: bool = False, notes: Callable[[events.Started], Sequence[str]] = lambda _: ()
) -> Iterator[events.Listener]:
    """Yields a listener that shows events on `stream`: live on a terminal, else in plain lines; with
    `as_json` as JSON. `notes`: returns further notes when a job starts. The live line is removed at the end
    of the block."""
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
    """A listener that writes plain lines. Steps within an epoch get none."""
    lines = _worded(notes)

    def listen(event: events.Event) -> None:
        for text in lines(event):
            stream.write(text + "\n")
        stream.flush()

    return listen


Lines = Callable[[events.Event], Iterator[str]]


def _worded(notes: Callable[[events.Started], Sequence[str]]) -> Lines:
    """Returns a function from an event to its lines. Epochs are rows of a table; the first brings its
    head."""
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
            # Events of a service have whole lines of metrics.jsonl, with learning rate and health.
            floats = [name for name, value in event.metrics.items() if isinstance(value, float)]
            names = [name for name in floats if name.split("_")[0] in SPLITS]
            if not set(names) <= set(columns):  # the first epoch, or the first one that is evaluated
                columns = in_order({*columns, *names})
                yield from table_head(columns, watched, event.member)
            yield table_row(columns, event)
        else:
            if isinstance(event, events.TeamChanged):  # its reason is also a note of the run
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
    """Returns a function from each event to a text of the work that follows it, or ""."""
    pace, epochs, single = Pace(0, 1, time.monotonic()), 0, True

    def doing(event: events.Event) -> str:
        nonlocal pace, epochs, single
        if isinstance(event, events.Waiting):
            return event.what
        if isinstance(event, events.StateChanged):
            return f"{event.state}: {event.reason}" if event.reason else event.state
        if isinstance(event, events.Started):
            pace, epochs = Pace(event.first_step, event.total_steps, time.monotonic()), event.epochs
            single = event.members == 1
        if not isinstance(event, events.Progressed):
            return ""
        left_s = pace.seconds_left(event.step, time.monotonic())
        parts = [f"epoch {event.epoch} of {epochs}"] if single else []
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
    """Yields a listener that passes events on to `tell`. After some seconds without a line, a thread writes
    the current work to `stream`."""
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
    """The result of a run as lines of text: metrics, weights, files, notes."""
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
