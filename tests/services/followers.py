"""Clients that follow jobs through server-sent events, come again when they are cut off, and note all."""

from __future__ import annotations

import asyncio
import json
import threading
from dataclasses import dataclass, field
from typing import Any

import httpx


@dataclass
class Followed:
    """What one stream told: (id, data), in the order of arrival. `cuts`: how often it came again."""

    told: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    ended: dict[str, Any] | None = None
    cuts: int = 0

    def numbers(self) -> list[int]:
        return [number for number, _ in self.told]

    def metrics(self) -> list[dict[str, Any]]:
        """The rows that a client shows at the end: a step that comes again replaces itself and all later."""
        shown: list[dict[str, Any]] = []
        for _, data in self.told:
            while shown and shown[-1]["step"] >= data["step"]:
                shown.pop()
            shown.append(data["data"])
        return shown


class Followers:
    """A thread with a stream of events and one of metrics for every job."""

    def __init__(self, url: str, token: str, jobs: list[str]) -> None:
        self.events = {job: Followed() for job in jobs}
        self.metrics = {job: Followed() for job in jobs}
        self._url, self._token = url, token
        self._thread = threading.Thread(target=lambda: asyncio.run(self._follow_all()), daemon=True)
        self._thread.start()

    def join(self, timeout_s: float) -> None:
        """Waits for the ends of all streams."""
        self._thread.join(timeout_s)
        assert not self._thread.is_alive(), "a stream did not end"

    async def _follow_all(self) -> None:
        limits = httpx.Limits(max_connections=2 * len(self.events) + 2)
        async with (
            httpx.AsyncClient(
                base_url=self._url,
                headers={"Authorization": f"Bearer {self._token}"},
                limits=limits,
                timeout=httpx.Timeout(30, pool=None),
                trust_env=False,
            ) as client,
            asyncio.TaskGroup() as group,
        ):
            for kind, all_ in (("events", self.events), ("metrics", self.metrics)):
                for job, followed in all_.items():
                    group.create_task(_follow(client, f"/v1/jobs/{job}/{kind}:stream", followed))


async def _follow(client: httpx.AsyncClient, path: str, followed: Followed) -> None:
    while followed.ended is None:
        last = followed.told[-1][0] if followed.told else 0
        try:
            async with client.stream("GET", path, headers={"Last-Event-ID": str(last)}) as answer:
                if answer.status_code == 200:
                    await _read(answer, followed)
                else:
                    assert answer.status_code in (429, 503), answer.status_code
        except httpx.TransportError:
            pass
        if followed.ended is None:
            followed.cuts += 1
            await asyncio.sleep(0.2)


async def _read(answer: httpx.Response, followed: Followed) -> None:
    fields: dict[str, str] = {}
    async for line in answer.aiter_lines():
        name, _, value = line.partition(":")
        if line:
            fields[name] = value.removeprefix(" ")
            continue
        if fields.get("event") == "end":
            followed.ended = json.loads(fields["data"])
            return
        if "id" in fields:
            followed.told.append((int(fields["id"]), json.loads(fields["data"])))
        fields = {}
