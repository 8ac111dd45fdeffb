"""Server-sent events: a stream that starts after a number, misses nothing, and ends with its job.

    id: 12
    event: event | metric | log
    data: {...}

Without an id: `progress` (what the runner says of itself now) and, last of all, `end` with the job's state.
A comment keeps the line open while nothing happens. Format: WHATWG HTML, "Server-sent events".
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
# (number, data) of what comes after a number, at most BATCH
Read = Callable[[int], Sequence[tuple[int, Any]]]


def message(kind: str, data: Any, number: int | None = None) -> bytes:
    head = "" if number is None else f"id: {number}\n"
    text = json.dumps(data, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    return f"{head}event: {kind}\ndata: {text}\n\n".encode()


def start_after(request: Request, after: int) -> int:
    """Where a client goes on: after the number in Last-Event-ID, or else after `after`."""
    last = request.headers.get("last-event-id")
    if last is None or last == "":
        return after
    if not (last.isascii() and last.isdecimal() and len(last) <= 18):
        raise BadValueError("Last-Event-ID is not a number that this stream gave", "Last-Event-ID")
    return int(last)


class _Stream(StreamingResponse):
    """Gives back its place among the streams, however it ends."""

    def __init__(self, content: AsyncIterator[bytes], give_back: Callable[[], None]) -> None:
        headers = {"X-Accel-Buffering": "no"}  # or a proxy keeps events until it has a page of them
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
    """The job's events, metrics or logs (`kind`) after a number. The job is known to be the caller's.

    Raises RateError where too many streams are open.
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
            # The state first: what is read after it was seen to have ended is all there will ever be.
            try:
                pulses = await hub.shared(job_id, "pulse", 0, lambda: service.store.jobs.pulses((job_id,)))
                rows = await hub.shared(job_id, kind, after, partial(_written, kind, read, after))
            except SQLAlchemyError:
                return  # the client comes again, and goes on where it was
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
    """The messages, the last number, and how many there are."""
    rows = read(after)
    text = b"".join(message(kind, data, number) for number, data in rows)
    return text, rows[-1][0] if rows else 0, len(rows)


async def _still_welcome(service: Service, request: Request, caller: Caller) -> bool:
    """Whether the token still opens this: it may have been revoked while the stream was open. While the
    database cannot say, the client is sent away, and comes again."""
    try:
        return (await authorize(service, request, "read")).key == caller.key
    except (UnauthorizedError, ForbiddenError, RateError, SQLAlchemyError):
        return False


async def checked_job(service: Service, caller: Caller, job_id: str) -> None:
    """Raises NotFoundError where the job is not of the caller's project."""
    await run_in_threadpool(service.store.jobs.get, caller.project, job_id)
