"""How the API does under load: submits with many jobs in the store, a page of many, 200 streams at once.

    python -m benchmarks.service_streams [--jobs 10000] [--streams 200]

A real server (uvicorn, SQLite) on loopback in a process of its own; the clients are this process, on the same
machine, so their work counts against the numbers. Prints one JSON object; times in milliseconds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import socket
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

from services.api import ApiConfig, Limits, create_app
from services.reports import Report
from services.store import Store

JOB = {
    "data": {"train": {"format": "blobs"}},
    "model": {"layers": [{"type": "dense", "units": 3}]},
    "loss": "softmax_cross_entropy",
}
SUBMITS = 300


def serve(folder: str, fd: int) -> None:
    import uvicorn

    store = Store(f"sqlite:///{folder}/service.db")
    limits = Limits(requests_per_s=1e6, requests_burst=10**6)
    app = create_app(store, ApiConfig(Path(folder), limits=limits), dispatcher_seen=time.time)
    uvicorn.run(app, fd=fd, log_level="error", access_log=False)


def percentile(values: list[float], share: float) -> float:
    return round(1000 * sorted(values)[min(len(values) - 1, int(share * len(values)))], 1)


def submits(client: httpx.Client) -> list[float]:
    times = []
    for _ in range(SUBMITS):
        began = time.perf_counter()
        client.post("/v1/jobs", json={"job": JOB}).raise_for_status()
        times.append(time.perf_counter() - began)
    return times


async def follow(client: httpx.AsyncClient, path: str, open_: list[int], heard: list[float]) -> None:
    async with client.stream("GET", path) as answer:
        answer.raise_for_status()
        open_.append(1)
        async for line in answer.aiter_lines():
            if line.startswith("data: ") and "sent" in line:
                heard.append(time.time() - json.loads(line[6:])["data"]["sent"])
            if line == "event: end":
                return


async def streams(base: str, headers: dict[str, str], store: Store, count: int) -> list[float]:
    """Seconds from the runner's report until each of `count` clients has the metric; twenty metrics."""
    lease = store.queue.lease(10**6, 600.0)
    assert lease is not None
    job = lease.job
    token = store.queue.issue_token(job.id, lease.attempt)
    heard: list[float] = []
    open_: list[int] = []
    limits = httpx.Limits(max_connections=count + 5)
    async with httpx.AsyncClient(base_url=base, headers=headers, limits=limits, timeout=60) as client:
        path = f"/v1/jobs/{job.id}/metrics:stream"
        tasks = [asyncio.create_task(follow(client, path, open_, heard)) for _ in range(count)]
        while len(open_) < count:
            await asyncio.sleep(0.05)
        address = f"/v1/runner/jobs/{job.id}/reports"
        runner = {"Authorization": f"Bearer {token}"}
        start = {"kind": "attempt_started", "from_step": 0}
        for seq in range(1, 21):
            line = {"step": seq, "sent": time.time()}
            body = Report(lease.attempt, seq, (start,) if seq == 1 else (), (line,)).to_json()
            body = {name: value for name, value in body.items() if value is not None}
            (await client.post(address, json=body, headers=runner)).raise_for_status()
            await asyncio.sleep(0.5)
        end = {"attempt": lease.attempt, "seq": 21, "end": {"outcome": "completed"}}
        (await client.post(address, json=end, headers=runner)).raise_for_status()
        await asyncio.gather(*tasks)
    assert len(heard) == 20 * count, f"{len(heard)} metrics came, not {20 * count}"
    return heard


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--streams", type=int, default=200)
    given = parser.parse_args()
    found: dict[str, Any] = {"jobs": given.jobs, "streams": given.streams}
    with tempfile.TemporaryDirectory() as folder, socket.socket() as listener:
        store = Store(f"sqlite:///{folder}/service.db")
        _, secret = store.tokens.create("bench", ("read", "submit"))
        for _ in range(given.jobs):
            store.jobs.submit("bench", {**JOB, "name": "job"}, digest="0" * 64)
        listener.bind(("127.0.0.1", 0))
        listener.listen(1024)
        listener.set_inheritable(True)
        server = multiprocessing.get_context("fork").Process(target=serve, args=(folder, listener.fileno()))
        server.start()
        try:
            base = f"http://127.0.0.1:{listener.getsockname()[1]}"
            headers = {"Authorization": f"Bearer {secret}"}
            with httpx.Client(base_url=base, headers=headers, timeout=60) as client:
                client.get("/livez").raise_for_status()
                times = submits(client)
                found["submit_p50_ms"], found["submit_p99_ms"] = (
                    percentile(times, 0.5),
                    percentile(times, 0.99),
                )
                times = []
                for _ in range(50):
                    began = time.perf_counter()
                    client.get("/v1/jobs?limit=50").raise_for_status()
                    times.append(time.perf_counter() - began)
                found["page_p99_ms"] = percentile(times, 0.99)
            heard = asyncio.run(streams(base, headers, store, given.streams))
            found["metric_p50_ms"], found["metric_p99_ms"] = percentile(heard, 0.5), percentile(heard, 0.99)
            found["metric_max_ms"] = round(1000 * max(heard), 1)
        finally:
            server.terminate()
            server.join()
            store.close()
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
