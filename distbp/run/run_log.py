"""A listener that writes the events of a run to events.jsonl."""

from __future__ import annotations

from dataclasses import asdict

from distbp.core.words import snake_case
from distbp.run import events
from distbp.run.run_directory import RunDirectory


def log_events(run: RunDirectory, then: events.Listener | None = None) -> events.Listener:
    """Returns a listener that writes every event but Progressed and Waiting to events.jsonl, and passes every
    event on to `then`."""

    def listen(event: events.Event) -> None:
        if not isinstance(event, events.Progressed | events.Waiting):
            fields = asdict(event)
            if isinstance(event, events.EpochEnded):
                fields["metrics"] = {k: v for k, v in event.metrics.items() if k != "health"}
            run.append_event(snake_case(type(event).__name__), **fields)
        if then is not None:
            then(event)

    return listen
