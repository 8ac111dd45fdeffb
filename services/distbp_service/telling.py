"""Turns the trainer's events into reports: events, metrics and lines of log."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from distbp.core.words import counted
from distbp.run import events
from distbp.run.run_directory import METRICS, json_line, last_line, read_lines
from distbp_service.reporter import Reporter
from distbp_service.spool import Spool

LINES_AT_ONCE = 500  # metrics in one report


def listener(spool: Spool, reporter: Reporter, clock: Callable[[], float] = time.time) -> events.Listener:
    """Returns a listener that spools every event but progress, of which only the latest is sent."""

    lines_file = Path()

    def listen(event: events.Event) -> None:
        nonlocal lines_file
        match event:
            case events.Progressed():
                reporter.progress = plain(asdict(event))
            case events.Started():
                start = {**_event("attempt_started", event, clock()), "from_step": event.first_step}
                reporter.progress = {"step": event.first_step, "total_steps": event.total_steps}
                spool.append(events=(start,), log=_worded(event))
                # An earlier attempt may have been lost before it could report these.
                lines_file = Path(event.run_dir) / METRICS
                tell_metrics(spool, lines_file)
            case events.EpochEnded():
                told = _event("epoch_ended", event, clock())
                del told["metrics"]
                # The event has only a part of the line.
                spool.append(events=(told,), metrics=(last_line(lines_file),), log=_worded(event))
            case events.CheckpointSaved():
                spool.append(events=(_event("checkpoint_saved", event, clock()),), log=_worded(event))
            case events.CheckpointSetAside():
                spool.append(events=(_event("checkpoint_set_aside", event, clock()),), log=_worded(event))
            case events.Stopped():
                spool.append(events=(_event("early_stopping", event, clock()),), log=_worded(event))
            case events.Noted():
                spool.append(events=(_event("noted", event, clock()),), log=_worded(event))
            case events.Waiting():
                spool.append(log=_worded(event))
            case events.TeamChanged():
                spool.append(events=(_event("team_changed", event, clock()),), log=_worded(event))
            case events.Finished():
                pass  # the report of the attempt's end has the result

    return listen


def tell_metrics(spool: Spool, path: Path) -> None:
    """Spools every line of a metrics.jsonl; the store adds those that it lacks."""
    for lines in _chunks(read_lines(path)):
        spool.append(metrics=lines)


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values as JSON: NumPy's numbers become Python's, NaN and infinities become null."""
    converted: dict[str, Any] = json.loads(json_line(values))
    return converted


def _event(kind: str, event: events.Event, now: float) -> dict[str, Any]:
    fields = plain(asdict(event))
    for name in ("path", "run_dir"):  # users may not see paths of the runner's machine
        if name in fields:
            fields[name] = Path(fields[name]).name
    return {**fields, "kind": kind, "at": now}


def _chunks(lines: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], ...]]:
    for first in range(0, len(lines), LINES_AT_ONCE):
        yield tuple(lines[first : first + LINES_AT_ONCE])


def _worded(event: events.Event) -> str:
    match event:
        case events.Started():
            text = (
                f"training from step {event.first_step} of {event.total_steps}:"
                f" {counted(event.parameters, 'parameter')}, {counted(event.shards, 'shard')} on"
                f" {counted(event.workers, 'worker')} ({event.exchange})"
            )
            text += "".join(f"\nnote: {note}" for note in event.notes)
        case events.EpochEnded():
            values = ", ".join(
                f"{name} {value:.6g}"
                for name, value in event.metrics.items()
                if name not in ("epoch", "step") and isinstance(value, int | float)
            )
            text = f"epoch {event.epoch}, step {event.step}: {values}"
        case events.CheckpointSaved():
            text = f"checkpoint of step {event.step} saved"
        case events.CheckpointSetAside():
            text = f"damaged checkpoint {Path(event.path).name} set aside: {event.reason}"
        case events.Stopped():
            text = f"stopped early: no better {event.metric} for {counted(event.epochs, 'epoch')}"
        case events.Noted():
            text = f"note: {event.text}"
        case events.Waiting():
            text = event.what
        case events.TeamChanged():
            text = f"step {event.step}: {event.reason}"
        case _:
            return ""
    return text + "\n"
