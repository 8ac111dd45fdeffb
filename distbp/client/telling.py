"""Translates the messages of a service about a job into the events of a local run (`distbp.run.events`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from typing import Any

from distbp.client.streams import Message
from distbp.run import events
from distbp.run.result import with_nan

KINDS: Mapping[str, Any] = {
    "attempt_started": events.Started,
    "checkpoint_saved": events.CheckpointSaved,
    "checkpoint_set_aside": events.CheckpointSetAside,
    "epoch_ended": events.EpochEnded,
    "early_stopping": events.Stopped,
    "noted": events.Noted,
    "team_changed": events.TeamChanged,
}
Rows = Callable[[int], Mapping[int, Mapping[str, Any]]]


class Translator:
    """A function of each message in a job's stream of events, which yields the events to show. rows: returns
    the metrics of all steps from a step on, by step. It is called only for metrics that are not known yet."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._known: dict[int, Mapping[str, Any]] = {}

    def __call__(self, message: Message) -> Iterator[events.Event]:
        if message.kind == "progress":
            found = _made(events.Progressed, message.data)
        elif message.kind == "event":
            found = self._event(message.data)
        else:
            return
        if found is not None:
            yield found

    def _event(self, row: Mapping[str, Any]) -> events.Event | None:
        kind, data = row["kind"], row["data"]
        if kind == "state":
            return events.StateChanged(data["to"], data.get("reason") or "", row["attempt"])
        if kind == "attempt_started":
            self._known.clear()  # the new attempt measures steps again
        if kind == "epoch_ended":
            found = _made(events.EpochEnded, {**data, "metrics": self._metrics(data["step"])})
        else:
            found = _made(KINDS.get(kind), data)
        return found

    def _metrics(self, step: int) -> Mapping[str, Any]:
        if step not in self._known:
            # The job may be ahead of this stream: one call fetches the metrics of the next events, too.
            self._known = dict(self._rows(step))
        return with_nan(self._known.pop(step, {}))


def _made(kind: Any, data: Mapping[str, Any]) -> events.Event | None:
    """The event of a kind, or None if fields are missing: the service may be older or newer than this
    library."""
    if kind is None:
        return None
    known = {field.name for field in fields(kind)}
    try:
        made: events.Event = kind(**{name: value for name, value in data.items() if name in known})
    except TypeError:
        return None
    return made
