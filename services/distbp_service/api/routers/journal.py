"""The routes of a job's events, metrics and logs, as pages and as streams."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request
from starlette.responses import StreamingResponse

from distbp_service.api import schemas
from distbp_service.api.downsample import choose_rows
from distbp_service.api.routes import CallerArg, JobId, Route, ServiceArg, opens
from distbp_service.api.streams import BATCH, Read, checked_job, start_after, stream
from distbp_service.errors import BadValueError

router = APIRouter(prefix="/v1", tags=["journal"], route_class=Route)
After = Annotated[int, Query(ge=0, le=schemas.MOST_STEPS, description="what comes after this number")]
Limit = Annotated[int, Query(ge=1, le=1000)]
LastEventId = Annotated[
    str | None, Header(alias="Last-Event-ID", pattern=r"^[0-9]{0,18}$", description="goes before `after`")
]
_CHOSEN_FROM = 20_000
_MESSAGE = {
    "description": "one message of the stream",
    "type": "object",
    "properties": {
        "id": {"type": "string", "pattern": "^[0-9]+$"},
        "event": {"type": "string", "enum": ["event", "metric", "log", "progress", "end"]},
        "data": {"type": "string", "contentMediaType": "application/json"},
        "retry": {"type": "string"},
    },
}
_STREAM: dict[str, Any] = {
    "response_class": StreamingResponse,
    "response_description": "server-sent events; the last one is `end`",
}


def _streams(*errors: int) -> dict[str, Any]:
    found = opens("read", *errors)
    found["responses"][200] = {"content": {"text/event-stream": {"schema": _MESSAGE}}}
    return {**found, **_STREAM}


async def _opened(
    job_id: JobId,
    request: Request,
    caller: CallerArg,
    service: ServiceArg,
    after: After = 0,
    last: LastEventId = None,
) -> Callable[[str, Read], StreamingResponse]:
    """Returns a function from the kind and the reader of records to the stream of a job. Raises
    NotFoundError if the job is not in the caller's project."""
    await checked_job(service, caller, job_id)
    return partial(stream, service, request, caller, job_id, start_after(request, after))


StreamArg = Annotated[Callable[[str, Read], StreamingResponse], Depends(_opened)]


@router.get("/jobs/{job_id}/events", operation_id="list_events", **opens("read", 404))
def events(
    job_id: JobId, caller: CallerArg, service: ServiceArg, after: After = 0, limit: Limit = 100
) -> schemas.EventPage:
    """What happened, oldest first."""
    service.store.jobs.get(caller.project, job_id)
    rows = service.store.journal.events(job_id, after=after, limit=limit)
    items = [schemas.EventOut.of(row) for row in rows]
    return schemas.EventPage(items=items, after=items[-1].number if items else after)


@router.get("/jobs/{job_id}/events:stream", operation_id="stream_events", **_streams(404))
async def events_stream(job_id: JobId, service: ServiceArg, opened: StreamArg) -> StreamingResponse:
    """Events as they happen: {number, at, attempt, kind, data}, without a gap after Last-Event-ID."""

    def read(number: int) -> Sequence[tuple[int, Any]]:
        rows = service.store.journal.events(job_id, after=number, limit=BATCH)
        return [(row.number, schemas.EventOut.of(row).model_dump()) for row in rows]

    return opened("event", read)


@router.get("/jobs/{job_id}/metrics", operation_id="get_metrics", **opens("read", 404))
def metrics(
    job_id: JobId,
    caller: CallerArg,
    service: ServiceArg,
    start: Annotated[int, Query(alias="from", ge=0, le=schemas.MOST_STEPS, description="first step")] = 0,
    stop: Annotated[
        int | None, Query(alias="to", ge=0, le=schemas.MOST_STEPS, description="last step")
    ] = None,
    points: Annotated[
        int, Query(ge=2, le=10_000, description="at most so many rows, chosen so that curves look the same")
    ] = 1000,
) -> schemas.MetricRange:
    """Metrics by step. Where there are more than `points`, those that matter for the curves' looks."""
    if stop is not None and stop < start:
        raise BadValueError("'to' must not be below 'from'", "to")
    service.store.jobs.get(caller.project, job_id)
    rows = service.store.journal.metrics(job_id, start=start, stop=stop, points=_CHOSEN_FROM)
    chosen = choose_rows([row.step for row in rows], [row.data for row in rows], points)
    return schemas.MetricRange(items=[schemas.MetricOut.of(rows[i]) for i in chosen], total=len(rows))


@router.get("/jobs/{job_id}/metrics:stream", operation_id="stream_metrics", **_streams(404))
async def metrics_stream(job_id: JobId, service: ServiceArg, opened: StreamArg) -> StreamingResponse:
    """Metrics as they are measured: {step, attempt, data}. A step at or below the last one given means that a
    new attempt began there: it replaces that step and all later ones."""

    def read(serial: int) -> Sequence[tuple[int, Any]]:
        rows = service.store.journal.metrics_after(job_id, serial, limit=BATCH)
        return [(row.serial, schemas.MetricOut.of(row).model_dump()) for row in rows]

    return opened("metric", read)


@router.get("/jobs/{job_id}/logs", operation_id="get_logs", **opens("read", 404))
def logs(
    job_id: JobId, caller: CallerArg, service: ServiceArg, after: After = 0, limit: Limit = 100
) -> schemas.LogPage:
    """Pieces of the job's log, oldest first."""
    service.store.jobs.get(caller.project, job_id)
    items = [schemas.LogOut.of(row) for row in service.store.journal.logs(job_id, after=after, limit=limit)]
    return schemas.LogPage(items=items, after=items[-1].number if items else after)


@router.get("/jobs/{job_id}/logs:stream", operation_id="stream_logs", **_streams(404))
async def logs_stream(job_id: JobId, service: ServiceArg, opened: StreamArg) -> StreamingResponse:
    """The log as it is written: {number, at, attempt, text}."""

    def read(number: int) -> Sequence[tuple[int, Any]]:
        rows = service.store.journal.logs(job_id, after=number, limit=BATCH)
        return [(row.number, schemas.LogOut.of(row).model_dump()) for row in rows]

    return opened("log", read)
