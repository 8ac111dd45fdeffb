"""An API over a SQLite store in a temporary folder, with tokens of two projects."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from distbp_service.api import ApiConfig, Limits, create_app
from distbp_service.api.app import ROUTERS
from distbp_service.store import Job, Store
from fastapi import FastAPI

JOB: dict[str, Any] = {
    "name": "blobs",
    "data": {"train": {"format": "blobs", "samples": 64}},
    "model": {"layers": [{"type": "dense", "units": 3}]},
    "loss": "softmax_cross_entropy",
    "batch_size": 32,
    "epochs": 1,
}
# Small where a test goes to the limit; the rates do not get in the way of the others.
LIMITS = Limits(
    small_bytes=2000,
    dataset_bytes=400_000,
    requests_per_s=1e6,
    requests_burst=10**6,
    failures_per_s=1e6,
    failures_burst=10**6,
)


@dataclass(frozen=True)
class Api:
    """`call(method, path, token=...)`: a request with one of the tokens by name; "" for none."""

    app: FastAPI
    store: Store
    work: Path
    tokens: dict[str, str]
    runner: asyncio.Runner

    def call(self, method: str, path: str, token: str = "all", **more: Any) -> httpx.Response:
        headers = dict(more.pop("headers", {}))
        if token:
            headers["Authorization"] = f"Bearer {self.tokens.get(token, token)}"
        return self.runner.run(_send(self.app, method, path, headers, more))

    def submit(self, token: str = "all", **changes: Any) -> str:
        answer = self.call("POST", "/v1/jobs", token, json={"job": {**JOB, **changes}})
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def start(self) -> tuple[Job, str]:
        """Leases the next job; returns it and the token of its runner."""
        lease = self.store.queue.lease(1000, 60.0)
        assert lease is not None
        return lease.job, self.store.queue.issue_token(lease.job.id, lease.attempt)

    def report(self, job: Job, token: str, seq: int, **fields: Any) -> httpx.Response:
        body = {"attempt": job.attempt, "seq": seq, **fields}
        return self.call("POST", f"/v1/runner/jobs/{job.id}/reports", token, json=body)


def operations() -> list[tuple[str, str]]:
    """(method, path) of every route."""
    routes = [route for router in ROUTERS for route in router.routes]
    return sorted((next(iter(route.methods)), route.path) for route in routes)  # type: ignore[attr-defined]


async def _send(app: FastAPI, method: str, path: str, headers: Any, more: Any) -> httpx.Response:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as client:
        return await client.request(method, path, headers=headers, **more)


def problem_of(answer: httpx.Response, status: int, code: str | None = None) -> dict[str, Any]:
    """The body of an error, after checks that hold for all of them."""
    assert answer.status_code == status, answer.text
    body: dict[str, Any] = answer.json()
    assert set(body) <= {"code", "message", "param", "faults", "expected"}, body
    assert body["code"] and body["message"]
    assert "Traceback" not in answer.text and 'File "' not in answer.text
    assert code is None or body["code"] == code, body
    return body


def make_api(folder: Path, limits: Limits = LIMITS, **config: Any) -> Api:
    """A fresh one. `config`: of ApiConfig, and `dispatcher_seen` of create_app."""
    seen = config.pop("dispatcher_seen", time.time)
    store = Store(f"sqlite:///{folder}/service.db")
    work = folder / "work"
    work.mkdir()
    tokens = {
        "all": store.tokens.create("blue", ("read", "submit", "manage", "admin"), name="all")[1],
        "reads": store.tokens.create("blue", ("read",))[1],
        "submits": store.tokens.create("blue", ("submit",))[1],
        "manages": store.tokens.create("blue", ("manage",))[1],
        "other": store.tokens.create("red", ("admin",))[1],
    }
    hosts = ("localhost", "127.0.0.1", "testserver")
    settings = ApiConfig(work, hosts=hosts, limits=limits, **{"heartbeat_s": 0.05, "poll_s": 0.02, **config})
    app = create_app(store, settings, dispatcher_seen=seen)
    return Api(app, store, work, tokens, asyncio.Runner())


class Stream:
    """An answer that is read while it is made. `status` and `headers` are known when it has begun."""

    def __init__(self, body: bytes | None = None) -> None:
        self.status = 0
        self._body = body
        self._pieces: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._text = ""
        self.began = asyncio.Event()
        self.gone = asyncio.Event()

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.began.set()
        else:
            self._pieces.put_nowait(message.get("body", b""))
            if not message.get("more_body"):
                self._pieces.put_nowait(None)

    async def receive(self) -> Any:
        if self._body is not None:
            body, self._body = self._body, None
            self.began.set()  # it answers when the body has come, and it never does
            return {"type": "http.request", "body": body, "more_body": True}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def message(self) -> dict[str, Any] | None:
        """The next message {id, event, data} or comment {"": text}; None at the end."""
        while "\n\n" not in self._text:
            async with asyncio.timeout(30):
                piece = await self._pieces.get()
            if piece is None:
                assert not self._text
                return None
            self._text += piece.decode()
        text, self._text = self._text.split("\n\n", 1)
        fields: dict[str, Any] = {}
        for line in text.split("\n"):
            name, _, value = line.partition(":")
            fields[name] = value.removeprefix(" ")
        if "data" in fields:
            fields["data"] = json.loads(fields["data"])
        return fields

    async def data(self) -> dict[str, Any] | None:
        """The next message that is no comment and not the first line's advice."""
        while (found := await self.message()) is not None and "data" not in found:
            pass
        return found

    async def all(self, kind: str) -> list[dict[str, Any]]:
        """Every message of this kind, to the end."""
        found = []
        while (message := await self.data()) is not None:
            if message["event"] == kind:
                found.append(message)
        return found


@asynccontextmanager
async def streaming(
    api: Api,
    path: str,
    token: str = "all",
    headers: dict[str, str] | None = None,
    method: str = "GET",
    body: bytes | None = None,
) -> AsyncIterator[Stream]:
    """Opens a stream in the event loop that runs; leaving it is a client that goes away. body: the beginning
    of one that never ends."""
    stream = Stream(body)
    target, _, query = path.partition("?")
    fields = {
        "host": "testserver",
        "authorization": f"Bearer {api.tokens.get(token, token)}",
        **(headers or {}),
    }
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": target,
        "raw_path": target.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(name.lower().encode(), value.encode()) for name, value in fields.items()],
        "client": ("127.0.0.1", 1),
        "server": ("testserver", 80),
    }
    task = asyncio.create_task(api.app(scope, stream.receive, stream.send))
    try:
        async with asyncio.timeout(30):
            await stream.began.wait()
        yield stream
    finally:
        stream.gone.set()
        async with asyncio.timeout(30):
            await task
