"""An API over a SQLite store in a temporary folder, with tokens of two projects."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI

from services.api import ApiConfig, Limits, create_app
from services.store import Job, Store

JOB: dict[str, Any] = {
    "name": "blobs",
    "data": {"train": {"format": "blobs", "samples": 64}},
    "model": {"layers": [{"type": "dense", "units": 3}]},
    "loss": "softmax_cross_entropy",
    "batch_size": 32,
    "epochs": 1,
}
# Small where a test goes to the limit; the rates do not get in the way of the others.
LIMITS = Limits(small_bytes=2000, dataset_bytes=400_000, requests_per_s=1e6, requests_burst=10**6)


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
    app = create_app(store, settings)
    return Api(app, store, work, tokens, asyncio.Runner())
