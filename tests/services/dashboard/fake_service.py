"""A service in a few lines that speaks the API's language, with recorded runs, for the dashboard to talk to.

Everything is in memory and in the hands of the test: it pushes rows and events, and reads what was asked.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distbp_service.api.guard import HEADERS
from serving import Serving
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

DASHBOARD = Path(__file__).parents[3] / "services" / "distbp_service" / "dashboard"
RECORDED = Path(__file__).parent / "recorded"
TOKEN = "dbp_0123456789ab_secret"
READER = "dbp_0123456789cd_reader"
TERMINAL = ("completed", "failed", "cancelled")


def recorded(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RECORDED / f"{name}.json").read_text())
    return found


@dataclass
class FakeJob:
    fields: dict[str, Any]
    job: dict[str, Any]
    rows: list[dict[str, Any]] = field(default_factory=list)  # with serials, as the stream gives them
    events: list[dict[str, Any]] = field(default_factory=list)
    logs: list[dict[str, Any]] = field(default_factory=list)
    result: dict[str, Any] | None = None
    model_id: str | None = None
    attempts: list[dict[str, Any]] = field(default_factory=list)

    @property
    def ended(self) -> bool:
        return self.fields["state"] in TERMINAL

    def out(self) -> dict[str, Any]:
        return {**self.fields, "metrics": (self.result or {}).get("metrics")}

    def detail(self) -> dict[str, Any]:
        return {
            **self.out(),
            "job": self.job,
            "result": self.result,
            "model_id": self.model_id,
            "attempts": self.attempts,
        }


class FakeService:
    """Its methods may be called from the test's thread."""

    def __init__(self) -> None:
        self.jobs: dict[str, FakeJob] = {}
        self.models: dict[str, dict[str, Any]] = {}
        self.asked: list[tuple[str, str, str, Any]] = []  # method, path with query, authorization, body
        self.away = False
        self.address = ""
        self._changed = asyncio.Event()
        self._serving: Serving | None = None

    # What the test does

    def start(self) -> str:
        """Listens on a free port of this machine; the address."""
        self._serving = Serving(self.app())
        return self._serving.address

    def stop(self) -> None:
        assert self._serving is not None
        self._serving.stop()

    def wake(self) -> None:
        loop = None if self._serving is None else self._serving.loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._changed.set)

    def push(
        self,
        job_id: str,
        *,
        row: Any = None,
        event: Any = None,
        log: str = "",
        progress: Any = None,
        **fields: Any,
    ) -> None:
        """A row of metrics, an event {kind, ...}, log text, progress, or other fields of the job."""
        job = self.jobs[job_id]
        attempt = max(1, job.fields["attempt"])
        now = time.time()
        if row is not None:
            job.rows.append({"step": row["step"], "attempt": attempt, "data": row})
            job.fields["step"] = row["step"]
        if event is not None:
            data = {name: value for name, value in event.items() if name != "kind"}
            number = len(job.events) + 1
            job.events.append(
                {"number": number, "at": now, "attempt": attempt, "kind": event["kind"], "data": data}
            )
        if log:
            job.logs.append({"number": len(job.logs) + 1, "at": now, "attempt": attempt, "text": log})
        if progress is not None:
            job.fields["progress"] = progress
        job.fields.update(fields)
        self.wake()

    def posts(self) -> list[tuple[str, Any]]:
        return [(path, body) for method, path, _, body in self.asked if method == "POST"]

    # What the page sees

    def app(self) -> Any:
        def api(path: str, call: Callable[..., Any], method: str = "GET") -> Route:
            return Route(path, self._checked(call), methods=[method])

        routes = [
            api("/v1/whoami", self._whoami),
            api("/v1/jobs", self._jobs),
            api("/v1/jobs/{id}/metrics", self._metrics),
            api("/v1/jobs/{id}/checkpoints", self._checkpoints),
            api("/v1/jobs/{id}/events:stream", self._stream("event", "events")),
            api("/v1/jobs/{id}/metrics:stream", self._stream("metric", "rows")),
            api("/v1/jobs/{id}/logs:stream", self._stream("log", "logs")),
            api("/v1/jobs/{id}:{verb}", self._act, "POST"),
            api("/v1/jobs/{id}", self._job),
            api("/v1/models", self._models),
            api("/v1/models/{id}:predict", self._predict, "POST"),
            api("/v1/models/{id}/inputs", self._inputs),
            api("/v1/models/{id}", self._model),
            Mount("/", StaticFiles(directory=DASHBOARD, html=True)),
        ]
        inner = Starlette(routes=routes)

        async def guarded(scope: Any, receive: Any, send: Any) -> None:
            async def answer(message: Any) -> None:
                if message["type"] == "http.response.start":
                    message["headers"] += [(k.lower().encode(), v.encode()) for k, v in HEADERS.items()]
                await send(message)

            await inner(scope, receive, answer)

        return guarded

    def _checked(self, call: Callable[..., Any]) -> Callable[[Request], Any]:
        async def checked(request: Request) -> Response:
            text = await request.body()
            key = request.headers.get("authorization", "").removeprefix("Bearer ")
            path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
            self.asked.append((request.method, path, key, json.loads(text) if text else None))
            if self.away:
                return _problem(503, "unavailable", "the database does not answer; try again")
            if key not in (TOKEN, READER):
                return _problem(401, "unauthorized", "this token opens nothing")
            job_id = request.path_params.get("id", "")
            if job_id not in self.jobs and job_id not in self.models and job_id:
                return _problem(404, "not_found", f"there is no {job_id.partition('_')[0]} with this id")
            found = await call(request)
            return found if isinstance(found, Response) else JSONResponse(found)

        return checked

    async def _whoami(self, request: Request) -> Any:
        reader = READER in request.headers["authorization"]
        token = {
            "id": "0123456789ab",
            "name": "test",
            "project": "default",
            "scopes": ["read"] if reader else ["read", "submit", "manage"],
        }
        return {"token": token, "version": "0.1.0"}

    async def _jobs(self, request: Request) -> Any:
        states, name = request.query_params.getlist("state"), request.query_params.get("name", "")
        found = [job.out() for _, job in sorted(self.jobs.items(), reverse=True)]
        items = [
            j for j in found if (not states or j["state"] in states) and name.lower() in j["name"].lower()
        ]
        return {"items": items, "cursor": None}

    async def _job(self, request: Request) -> Any:
        return self.jobs[request.path_params["id"]].detail()

    async def _metrics(self, request: Request) -> Any:
        first = int(request.query_params.get("from", 0))
        rows = [row for row in self.jobs[request.path_params["id"]].rows if row["step"] >= first]
        return {"items": rows, "total": len(rows)}

    async def _checkpoints(self, request: Request) -> Any:
        job = self.jobs[request.path_params["id"]]
        steps = [e["data"]["step"] for e in job.events if e["kind"] == "checkpoint_saved"][-2:]
        return {
            "items": [
                {"step": step, "bytes": 58_112, "sha256": f"{step:064x}", "created_at": time.time() - 60}
                for step in steps
            ]
        }

    async def _act(self, request: Request) -> Any:
        job, verb = self.jobs[request.path_params["id"]], request.path_params["verb"]
        if verb == "scale":
            job.fields["workers"] = (await request.json())["workers"]
        elif job.ended:
            return _problem(409, "conflict", f"the job has ended ({job.fields['state']})")
        else:
            job.fields["state"] = {"cancel": "cancelling", "pause": "pausing", "resume": "queued"}[verb]
            job.fields["reason"] = f"{verb} asked by test"
        self.wake()
        return JSONResponse(job.out(), 202)

    async def _models(self, request: Request) -> Any:
        return {"items": sorted(self.models.values(), key=lambda m: m["id"], reverse=True), "cursor": None}

    async def _model(self, request: Request) -> Any:
        return self.models[request.path_params["id"]]

    async def _inputs(self, request: Request) -> Any:
        task = {"task": "classification", "classes": None, "target": None}
        parts = [{"name": None, "shape": [64], "steps": "all"}]
        return {**task, "shape": [64], "parts": parts, "is_table": False, "rows": 1, "columns": None}

    async def _predict(self, request: Request) -> Any:
        body = await request.json()
        if any(len(row) != 64 for row in body["inputs"]):
            width = len(body["inputs"][0])
            return _problem(422, "invalid", f"inputs have {width} numbers in a row; the model takes 64")
        labels = [int(sum(row)) % 10 for row in body["inputs"]]
        chances = [[0.91 if k == label else 0.01 for k in range(10)] for label in labels]
        told = {"unseen": {}, "ignored": [], "ignored_count": 0}
        return {
            "predictions": labels,
            "probabilities": chances if body.get("probabilities") else None,
            **told,
        }

    def _stream(self, kind: str, name: str) -> Callable[[Request], Any]:
        async def stream(request: Request) -> Response:
            job = self.jobs[request.path_params["id"]]
            after = int(request.headers.get("last-event-id") or 0)
            return StreamingResponse(self._follow(job, kind, name, after), media_type="text/event-stream")

        return stream

    async def _follow(self, job: FakeJob, kind: str, name: str, after: int) -> AsyncIterator[bytes]:
        yield b"retry: 1000\n\n"
        shown = None
        while self._serving is not None and not self._serving.stopping and not self.away:
            self._changed.clear()
            ended, rows = job.ended, getattr(job, name)
            for row in rows[after:]:
                after += 1
                yield f"id: {after}\nevent: {kind}\ndata: {json.dumps(row)}\n\n".encode()
            progress = job.fields["progress"]
            if progress is not None and progress != shown and not ended:
                shown = progress
                yield f"event: progress\ndata: {json.dumps(progress)}\n\n".encode()
            if ended:
                yield f'event: end\ndata: {{"state": "{job.fields["state"]}"}}\n\n'.encode()
                return
            # Streams share the event, and one may clear it before another has looked: so nobody waits long.
            try:
                await asyncio.wait_for(self._changed.wait(), 0.05)
            except TimeoutError:
                yield b": still here\n\n"


def _problem(status: int, code: str, message: str) -> JSONResponse:
    return JSONResponse({"code": code, "message": message}, status)
