"""The routes for monitoring: liveness, readiness, metrics."""

from __future__ import annotations

import math
import time
from typing import Any

from fastapi import APIRouter
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from distbp_service.api import schemas
from distbp_service.api.auth import PUBLIC, authorize
from distbp_service.api.routes import Route, ServiceArg, opens
from distbp_service.api.service import Service

router = APIRouter(tags=["health"], route_class=Route)


def _open(**answers: Any) -> dict[str, Any]:
    found = opens(PUBLIC)
    found["responses"] = {int(status[1:]): answer for status, answer in answers.items()}
    return found


@router.get("/livez", operation_id="livez", **_open())
async def livez() -> schemas.Live:
    """The process answers."""
    return schemas.Live(status="ok")


@router.get(
    "/readyz",
    operation_id="readyz",
    response_model=schemas.Ready,
    **_open(_503={"model": schemas.Ready, "description": "it cannot work now"}),
)
def readyz(service: ServiceArg) -> JSONResponse:
    """Whether the database answers and a dispatcher gives signs of life."""
    checks = {"database": _database(service), "dispatcher": _dispatcher(service)}
    ready = all(found == "ok" for found in checks.values())
    content = {"status": "ready" if ready else "not ready", "checks": checks}
    return JSONResponse(content, 200 if ready else 503)


_METRICS = opens("read")
_METRICS["openapi_extra"] = {"x-scope": PUBLIC}
_METRICS["responses"][200] = {"content": {"text/plain": {"schema": {"type": "string"}}}}


@router.get("/metrics", operation_id="prometheus", response_class=Response, **_METRICS)
async def metrics(request: Request, service: ServiceArg) -> Response:
    """Totals for Prometheus; with a token where the service is configured so."""
    if not service.config.metrics_open:
        await authorize(service, request, "read")
    text = await run_in_threadpool(service.telemetry.text)
    return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")


def dispatcher_age_s(service: Service) -> float:
    seen = service.dispatcher_seen()
    return math.nan if seen is None else max(0.0, time.time() - seen)


def _database(service: Service) -> str:
    try:
        service.store.ping()
    except SQLAlchemyError:
        return "does not answer"
    return "ok"


def _dispatcher(service: Service) -> str:
    age = dispatcher_age_s(service)
    if math.isnan(age):
        return "has given no sign yet"
    return "ok" if age <= service.config.dispatcher_late_s else f"has given no sign for {age:.0f} s"
