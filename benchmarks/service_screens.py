"""How soon clients that follow a job see a metric that its runner reports."""

from __future__ import annotations

import asyncio
import json
import time

import httpx
from distbp_service.reports import Report
from distbp_service.store import Store

METRICS, PAUSE_S = 20, 0.5


async def screens(url: str, headers: dict[str, str], store: Store, count: int) -> list[float]:
    """Milliseconds from just before a runner's report until each of `count` clients has read the metric from
    its stream, for METRICS of them, PAUSE_S apart. Takes a job that waits."""
    lease = store.queue.lease(10**6, 600.0)
    assert lease is not None
    job = lease.job
    token = store.queue.issue_token(job.id, lease.attempt)
    heard: list[float] = []
    open_ = asyncio.Semaphore(0)
    limits = httpx.Limits(max_connections=count + 5)
    async with httpx.AsyncClient(
        base_url=url, headers=headers, limits=limits, timeout=60, trust_env=False
    ) as client:
        path = f"/v1/jobs/{job.id}/metrics:stream"
        tasks = [asyncio.create_task(_follow(client, path, open_, heard)) for _ in range(count)]
        for _ in range(count):
            await open_.acquire()
        address = f"/v1/runner/jobs/{job.id}/reports"
        runner = {"Authorization": f"Bearer {token}"}
        for seq in range(1, METRICS + 1):
            start = ({"kind": "attempt_started", "from_step": 0},) if seq == 1 else ()
            report = Report(lease.attempt, seq, start, ({"step": seq, "sent": time.time()},))
            body = {name: value for name, value in report.to_json().items() if value is not None}
            (await client.post(address, json=body, headers=runner)).raise_for_status()
            await asyncio.sleep(PAUSE_S)
        end = {"attempt": lease.attempt, "seq": METRICS + 1, "end": {"outcome": "completed"}}
        (await client.post(address, json=end, headers=runner)).raise_for_status()
        await asyncio.gather(*tasks)
    assert len(heard) == METRICS * count, f"{len(heard)} metrics came, not {METRICS * count}"
    return heard


async def _follow(client: httpx.AsyncClient, path: str, open_: asyncio.Semaphore, heard: list[float]) -> None:
    async with client.stream("GET", path) as answer:
        answer.raise_for_status()
        async for line in answer.aiter_lines():
            if line.startswith("retry:"):
                open_.release()
            if line.startswith("data: ") and "sent" in line:
                heard.append(1000 * (time.time() - json.loads(line[6:])["data"]["sent"]))
            if line == "event: end":
                return
