"""Turns the events of several networks of a job into the events of one run."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from distbp.job import TrainingJob
from distbp.run import events
from distbp.run.run_directory import METRICS, RunDirectory, json_line, last_line


def place(number: int, per_member: int, step: int) -> int:
    """The number of a network's step among the steps of the whole job, as if the networks were trained one
    after the other and none stopped early."""
    return number * per_member + step


def as_line(line: dict[str, Any], number: int, per_member: int) -> bytes:
    """The line of the job's metrics.jsonl for a line of a network's."""
    told = {**line, "step": place(number, per_member, line["step"]), "member": number}
    return json_line(told, ("step", "epoch", "member"))


class MembersTold:
    """Passes the events of all networks, from any thread, on to `listener`, as events of one run of `count` *
    `per_member` steps. Each epoch also adds a line to the metrics.jsonl of `run`."""

    def __init__(
        self,
        run: RunDirectory,
        listener: events.Listener,
        job: TrainingJob,
        count: int,
        per_member: int,
        notes: Sequence[str],
    ) -> None:
        self._run, self._listener, self._job = run, listener, job
        self._count, self._per_member = count, per_member
        self._lock = threading.Lock()
        self._notes = list(notes)
        self._began = False
        self._steps = dict.fromkeys(range(count), 0)
        self._speeds: dict[int, float] = {}
        self._told: set[tuple[int, int]] = set()  # (network, step) of the lines in metrics.jsonl
        self._first: dict[str, int] = {}  # text of a note -> the network whose note was passed on

    def wrote(self, number: int, step: int) -> None:
        """Records that metrics.jsonl already has the line of a network's step."""
        self._told.add((number, step))

    def listener(self, number: int) -> events.Listener:
        """The listener for the trainer of one network."""
        return partial(self._hear, number)

    def waiting(self, what: str) -> None:
        with self._lock:
            self._listener(events.Waiting(what))

    def ended(self, number: int) -> None:
        """Counts all steps of the network as done, also if it stopped early."""
        with self._lock:
            self._steps[number] = self._per_member
            self._speeds.pop(number, None)

    def steps_done(self) -> int:
        return sum(self._steps.values())

    def _hear(self, number: int, event: events.Event) -> None:
        with self._lock:
            told = self._as_one(number, event)
            if told is not None:
                self._listener(told)
        if isinstance(event, events.Finished):
            self.ended(number)

    def _as_one(self, number: int, event: events.Event) -> events.Event | None:
        match event:
            case events.Started():
                return self._started(number, event)
            case events.Progressed():
                self._steps[number] = event.step
                self._speeds[number] = event.samples_per_second
                total, speed = self._count * self._per_member, sum(self._speeds.values())
                return replace(event, step=self.steps_done(), total_steps=total, samples_per_second=speed)
            case events.EpochEnded():
                if (number, event.step) not in self._told:
                    self._told.add((number, event.step))
                    lines = Path(self._run.path / "members" / str(number) / METRICS)
                    self._run.append_metric_text(as_line(last_line(lines), number, self._per_member))
                step = place(number, self._per_member, event.step)
                metrics = {**event.metrics, "step": step, "member": number}
                return replace(event, step=step, metrics=metrics, member=number)
            case events.Stopped():
                return replace(event, member=number)
            case events.Noted(text=text) if self._first.setdefault(text, number) != number:
                return None
            case events.TeamChanged() | events.CheckpointSaved():
                return replace(event, step=place(number, self._per_member, event.step))
            case events.Finished():
                return None
        return event

    def _started(self, number: int, event: events.Started) -> events.Event | None:
        self._steps[number] = event.first_step
        first, self._began = not self._began, True
        if not first:
            return None
        return replace(
            event,
            name=self._job.name,
            run_dir=str(self._run.path),
            job_digest=self._job.digest,
            total_steps=self._count * self._per_member,
            first_step=self.steps_done(),
            members=self._count,
            notes=(*self._notes, *event.notes),
        )
