"""Shows a training while it runs: `train(progress=True)`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from distbp.core.arguments import check_kind
from distbp.core.errors import Interrupted
from distbp.run import events
from distbp.run.card import card
from distbp.run.measured import Metrics
from distbp.run.notebook import live_card
from distbp.run.progress import show
from distbp.run.run_directory import METRICS, read_lines


@contextmanager
def seen(progress: bool, listener: events.Listener | None) -> Iterator[events.Listener | None]:
    """Yields `listener`, or with `progress` a listener that passes events on to it and also shows them: as a
    live card in a notebook, else as the command line does. Raises ArgumentError."""
    check_kind(progress, bool, "progress", "True or False")
    if not progress:
        yield listener
        return
    run = RunCard()
    with live_card(run.html) or show(sys.stdout) as display:

        def listen(event: events.Event) -> None:
            run.listen(event)
            display(event)
            if listener is not None:
                listener(event)

        try:
            yield listen
        except BaseException as error:
            run.ended(error)
            raise


class RunCard:
    """The live card of a training in this process."""

    def __init__(self) -> None:
        self._status: dict[str, Any] = {"id": "", "name": "training", "state": "starting", "attempt": 1}
        self._rows: list[Mapping[str, Any]] = []

    def listen(self, event: events.Event) -> None:
        status = self._status
        if isinstance(event, events.Waiting):
            status["reason"] = event.what
        elif isinstance(event, events.Started):
            status.update(id=event.run_dir, name=event.name, state="running", reason=None)
            status["attempt"] = event.attempt
            self._at(event.first_step, event.total_steps)
            lines = read_lines(Path(event.run_dir) / METRICS) if event.first_step else []
            self._rows = [line for line in lines if line["step"] <= event.first_step]
        elif isinstance(event, events.Progressed):
            status["reason"] = None
            self._at(event.step, event.total_steps)
        elif isinstance(event, events.EpochEnded):
            self._rows.append({**event.metrics, "epoch": event.epoch, "step": event.step})
            if event.member is None:  # else steps are counted over all members
                self._at(event.step)
        elif isinstance(event, events.Finished):
            status.update(state="completed", result=event.result, metrics=event.result.get("metrics"))
            self._at(event.result.get("steps", 0))

    def ended(self, error: BaseException) -> None:
        """Shows that the training ended without a result."""
        stopped = isinstance(error, Interrupted | KeyboardInterrupt)
        self._status.update(state="cancelled" if stopped else "failed", error={"message": str(error)})

    def html(self) -> str:
        return card(self._status, Metrics(sorted(self._rows, key=lambda row: row["step"])))

    def _at(self, step: int, total: int | None = None) -> None:
        before = self._status.get("progress") or {}
        total = before.get("total_steps") if total is None else total
        self._status["progress"] = {"step": step, "total_steps": total}
