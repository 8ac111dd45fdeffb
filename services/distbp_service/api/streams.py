"""Server-sent events. A stream starts after a number, misses nothing, and ends with its job.

    id: 12
    event: event | metric | log
    data: {...}

Two kinds have no id: `progress` (the runner's latest), and at the end `end` with the job's state. Comments
keep the connection open while nothing happens. Format: WHATWG HTML, "Server-sent events".
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Any

from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from distbp_service.api.auth import Caller, authorize
from distbp_service.api.errors import ForbiddenError, RateError, UnauthorizedError
from distbp_service.api.service import Service
from distbp_service.errors import BadValueError
from distbp_service.states import TERMINAL
from distbp_service.store import Pulse

BATCH = 500
# Returns (number, data) of at most BATCH records after a number.
Read = Callable[[int], Sequence[tuple[int, Any]]]


def message(kind: str, data: Any, number: int | None = None) -> bytes:
    head = "" if number is None else f"id: {number}\n"
    text = json.dumps(data, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    return f"{head}event: {kind}\ndata: {text}\n\n".encode()


def start_after(request: Request, after: int) -> int:
    """The number after which a stream starts: that in Last-Event-ID, else `after`. Raises BadValueError."""
    last = request.headers.get("last-event-id")
    if last is None or last == "":
        return after
    if not (last.isascii() and last.isdecimal() and len(last) <= 18):
        raise BadValueError("Last-Event-ID is not a number that this stream gave", "Last-Event-ID")
    return int(last)


class _Stream(StreamingResponse):
    """A response that calls `give_back` however it ends."""

    def __init__(self, content: AsyncIterator[bytes], give_back: Callable[[], None]) -> None:
        headers = {"X-Accel-Buffering": "no"}  # else a proxy may buffer events
        super().__init__(content, media_type="text/event-stream", headers=headers)
        self._give_back = give_back

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._give_back()


def stream(
    service: Service, request: Request, caller: Caller, job_id: str, after: int, kind: str, read: Read
) -> StreamingResponse:
    """Streams the job's events, metrics or logs (`kind`) after number `after`. The caller must have checked
    that the job is in its project. Raises RateError if too many streams are open.
    """
    give_back = service.streams.take(caller.key)
    return _Stream(_follow(service, request, caller, job_id, after, kind, read), give_back)


async def _follow(
    service: Service, request: Request, caller: Caller, job_id: str, after: int, kind: str, read: Read
) -> AsyncIterator[bytes]:
    hub, shown = service.hub, None
    yield b"retry: 1000\n\n"
    async with hub.watch(job_id) as watch:
        while not hub.ended:
            # The state is read first: if it has ended, the records read after it are complete.
            try:
                pulses = await hub.shared(job_id, "pulse", 0, lambda: service.store.jobs.pulses((job_id,)))
                rows = await hub.shared(job_id, kind, after, partial(_written, kind, read, after))
            except SQLAlchemyError:
                return  # the client connects again and goes on after its last number
            found: Pulse | None = pulses.get(job_id)
            if rows[1] > after:
                after = rows[1]
                yield rows[0]
            if rows[2] == BATCH:
                continue
            if found is None or found.state in TERMINAL:
                if rows[2] == 0:
                    yield message("end", {"state": "deleted" if found is None else found.state})
                    return
                continue
            if found.progress is not None and found.progress != shown:
                shown = found.progress
                yield message("progress", shown)
            while not await watch.changed(service.config.heartbeat_s):
                if not await _still_welcome(service, request, caller):
                    return
                yield b": still here\n\n"


def _written(kind: str, read: Read, after: int) -> tuple[bytes, int, int]:
    """The messages as bytes, the last number (0: none), and the number of messages."""
    rows = read(after)
    text = b"".join(message(kind, data, number) for number, data in rows)
    return text, rows[-1][0] if rows else 0, len(rows)


async def _still_welcome(service: Service, request: Request, caller: Caller) -> bool:
    """Whether the token is still valid. It may have been revoked while the stream was open. False if the
    database does not answer; the client then connects again."""
    try:
        return (await authorize(service, request, "read")).key == caller.key
    except (UnauthorizedError, ForbiddenError, RateError, SQLAlchemyError):
        return False


async def checked_job(service: Service, caller: Caller, job_id: str) -> None:
    """Raises NotFoundError if the job is not in the caller's project."""
    await run_in_threadpool(service.store.jobs.get, caller.project, job_id)
