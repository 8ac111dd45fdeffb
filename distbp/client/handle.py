"""`JobHandle`: one job on a service, for its user."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distbp.client import arguments as given
from distbp.client.measured import all_rows
from distbp.client.models import fetch_model
from distbp.client.streams import follow
from distbp.client.telling import Translator
from distbp.client.transport import Transport, fields
from distbp.core.errors import JobCancelledError, JobFailedError, RemoteError
from distbp.model.predictor import Model
from distbp.run.events import Listener
from distbp.run.measured import Metrics
from distbp.run.result import Result

if TYPE_CHECKING:
    from contextlib import AbstractContextManager


class JobHandle:
    """A job on a service. Every method sends a request. It raises RemoteError, and UnreachableError if the
    service does not answer for longer than the `patience_s` of `connect`. A notebook shows the job as a
    card."""

    def __init__(self, transport: Transport, job_id: str) -> None:
        self.id = job_id
        self._transport = transport
        self._path = f"/v1/jobs/{job_id}"

    def status(self) -> dict[str, Any]:
        """All facts about the job: `state`, `reason`, `step`, `progress`, `metrics`, `error`, `result`,
        `attempts`, `job`, ... Does not wait for the job."""
        found: dict[str, Any] = self._transport.call("GET", self._path)
        return found

    @property
    def state(self) -> str:
        """The current state: queued, starting, running, pausing, paused, recovering or cancelling; after the
        end: completed, failed or cancelled."""
        return str(self.status()["state"])

    def events(self, *, follow: bool = False) -> Iterator[dict[str, Any]]:
        """The job's events, oldest first: {number, at, attempt, kind, data}. at: seconds since 1970. follow:
        waits for new events until the job ends. A restart of the service leaves no gap."""
        return self._rows("events", "event", follow)

    def logs(self, *, follow: bool = False, times: bool = False) -> Iterator[str]:
        """The log, in pieces of whole lines. follow: as in `events`. times: puts the local time before each
        line."""
        rows = self._rows("logs", "log", follow)
        return (_timed(row) if times else str(row["text"]) for row in rows)

    def metrics(self) -> Metrics:
        """The metrics so far: arrays by name. `.to_frame()` gives a pandas frame, `.rows` the rows."""
        return Metrics(all_rows(self._metrics))

    def wait(
        self,
        *,
        progress: bool = False,
        listener: Listener | None = None,
        timeout_s: float | None = None,
    ) -> Result:
        """Waits until the job has ended, and returns its result. The service may be restarted meanwhile.

        progress: shows the same display as a local training. listener: is called with each event, from the
        job's beginning on. timeout_s: seconds after which it raises TimeoutError, while the job goes on;
        None: no limit. Raises JobFailedError with the job's error, or JobCancelledError. Ctrl-C ends the
        waiting, not the job.
        """
        transport = self._transport
        if timeout_s is not None:
            timeout_s = given.seconds("timeout_s", timeout_s, zero=True)
        if listener is not None and not callable(listener):
            raise given.refused("listener", "a function of an event", listener)
        given.flag("progress", progress)
        until = None if timeout_s is None else transport.clock() + timeout_s
        translate = Translator(self._by_step)
        with self._display(progress) as listen:
            for message in follow(transport, f"{self._path}/events:stream", until=until):
                for event in translate(message) if progress or listener else ():
                    listen(event)
                    if listener is not None:
                        listener(event)
                if message.kind == "timeout":
                    raise TimeoutError(f"{self.id} is not done after {timeout_s:g} s; it goes on")
        return self._outcome(self.status())

    def result(self, *, timeout_s: float | None = None) -> Result:
        """Waits as `wait` does, without a display, and returns the result."""
        return self.wait(timeout_s=timeout_s)

    def model(self, path: str | Path | None = None) -> Model:
        """Waits for the job, downloads its model and checks the digests. path: where the model is kept, too:
        a folder (absent or empty), or a file whose name ends in .tar (absent). Raises ModelError and the
        errors of `wait`."""
        folder = None if path is None else given.path("path", path)
        status = self.status()
        if status["state"] != "completed":
            self.wait()
            status = self.status()
        if status["model_id"] is None:
            raise RemoteError(f"the model of {self.id} was deleted", code="not_found")
        about = self._transport.call("GET", f"/v1/models/{status['model_id']}")
        return fetch_model(self._transport, about, folder)

    def cancel(self) -> None:
        """Ends the job for good. Does not wait: its runner ends soon after. May be repeated."""
        self._ask("cancel")

    def pause(self) -> None:
        """Ends the job's runner after a checkpoint. Does not wait. May be repeated."""
        self._ask("pause")

    def resume(self) -> None:
        """Queues the job again. It goes on from its checkpoint, with the same bits. Does not wait. May be
        repeated."""
        self._ask("resume")

    def scale(self, workers: int) -> None:
        """Changes the number of workers (0 to 4096), never the result. Does not wait for the change."""
        body = {"workers": given.whole("workers", workers, 0, 4096)}
        self._transport.call("POST", f"{self._path}:scale", json=body)

    def delete(self) -> None:
        """Removes a job that has ended, and its checkpoints, from the service. Its model stays."""
        self._transport.call("DELETE", self._path)

    def __repr__(self) -> str:
        return f"JobHandle({self.id!r})"

    def _repr_html_(self) -> str:
        from distbp.run.card import card

        return card(self.status(), self.metrics())

    def _display(self, progress: bool) -> AbstractContextManager[Listener]:
        if not progress:
            return nullcontext(lambda event: None)
        from distbp.run.notebook import live_card
        from distbp.run.progress import show

        return live_card(self._repr_html_) or show(sys.stdout)

    def _outcome(self, status: Mapping[str, Any]) -> Result:
        if status["state"] == "completed":
            return result_of(status, self.model, lambda: self.metrics().rows)
        error = status["error"] or {}
        if status["state"] == "cancelled":
            why = f": {status['reason']}" if status["reason"] else ""
            raise JobCancelledError(self.id, f"{self.id} was cancelled{why}", "cancelled")
        message = error.get("message") or status["reason"] or "it left no word"
        raise JobFailedError(self.id, f"{self.id} failed: {message}", str(error.get("code") or ""))

    def _rows(self, what: str, kind: str, follow_it: bool) -> Iterator[dict[str, Any]]:
        if follow_it:
            stream = follow(self._transport, f"{self._path}/{what}:stream")
            yield from (message.data for message in stream if message.kind == kind)
            return
        after = 0
        while True:
            page = self._transport.call("GET", f"{self._path}/{what}", params={"after": after, "limit": 1000})
            yield from page["items"]
            if not page["items"]:
                return
            after = page["after"]

    def _metrics(self, start: int, stop: int | None, points: int) -> Any:
        params = fields({"from": start, "to": stop, "points": points})
        return self._transport.call("GET", f"{self._path}/metrics", params=params)

    def _by_step(self, first: int) -> dict[int, dict[str, Any]]:
        return {row["step"]: row for row in all_rows(self._metrics, first)}

    def _ask(self, what: str) -> None:
        self._transport.call("POST", f"{self._path}:{what}")


def _timed(row: Mapping[str, Any]) -> str:
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(row["at"]))
    return "".join(f"{at}  {line}" for line in str(row["text"]).splitlines(keepends=True))


def result_of(status: Mapping[str, Any], fetch: Any, measured: Any = None) -> Result:
    """The Result of a completed job. status: of `JobHandle.status`. fetch, measured: functions that load the
    model and the rows of metrics."""
    return dataclasses.replace(Result.from_json(status["result"]), fetch=fetch, measured=measured)
