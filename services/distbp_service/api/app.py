"""Makes the application: routes, error handlers, the guard around them, and the dashboard."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles

import distbp
from distbp_service.api import errors
from distbp_service.api.config import ApiConfig
from distbp_service.api.guard import Guard
from distbp_service.api.routers import artifacts, datasets, health, jobs, journal, runner, tokens
from distbp_service.api.service import make_service
from distbp_service.store import Store

_ABOUT = """Training jobs with distbp: submit, watch, stop, resume, predict.

Every call but those of health carries `Authorization: Bearer dbp_...`; `x-scope` says which scope it needs
(`admin` may do all). Every error is a Problem: {code, message, param, faults}. Times are seconds since 1970.
"""
ROUTERS = tuple(m.router for m in (jobs, journal, artifacts, datasets, tokens, runner, health))


def create_app(
    store: Store,
    config: ApiConfig,
    *,
    dispatcher_seen: Callable[[], float | None] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> FastAPI:
    """The API over `store`, as an ASGI application. The caller closes `store`.

    dispatcher_seen: returns the time of the dispatcher's last sign of life, in seconds since 1970 (default:
    the time of the file `dispatcher.alive` on the work volume). clock: returns seconds, for the rates. Call
    `check_protected` before the application listens on an address that is not loopback.
    """
    app = FastAPI(
        title="distbp",
        version=distbp.__version__,
        description=_ABOUT,
        docs_url=None,  # FastAPI's page loads scripts from other hosts
        redoc_url=None,
        openapi_url="/openapi.json",
    )
    service = make_service(store, config, dispatcher_seen=dispatcher_seen, clock=clock)
    service.telemetry.observe(lambda: service.streams.taken, lambda: health.dispatcher_age_s(service))
    app.state.service = service
    errors.install(app, _methods, _verbs)
    for router in ROUTERS:
        app.include_router(router)
    if config.dashboard is not None:
        _serve(app, config.dashboard)
    app.add_middleware(
        Guard,
        hosts=config.hosts,
        origins=config.origins,
        telemetry=service.telemetry,
        head_bytes=config.limits.head_bytes,
    )
    _document(app)
    return app


_ROUTES = [route for router in ROUTERS for route in router.routes if isinstance(route, APIRoute)]


def _methods(path: str) -> frozenset[str]:
    """The methods of the route that matches `path`. The longest route counts, because `{job_id}` also
    matches `{job_id}:cancel`."""
    fitting = [route for route in _ROUTES if route.path_regex.match(path)]
    longest = max((route.path for route in fitting), key=len, default=None)
    return frozenset(method for route in fitting if route.path == longest for method in route.methods or ())


def _verbs(path: str) -> frozenset[str]:
    """The verbs that may follow the last colon of `path`; empty if it has no colon."""
    thing, colon, _ = path.rpartition(":")
    verbs = {route.path.rpartition(":")[2]: route for route in _ROUTES if ":" in route.path}
    return frozenset(
        verb for verb, route in verbs.items() if colon and route.path_regex.match(f"{thing}:{verb}")
    )


def _serve(app: FastAPI, folder: Path) -> None:
    """Serves the dashboard. Each file and folder at its top has its own route: a mount at / would also answer
    requests to addresses and methods that do not exist."""

    def page(path: Path) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            request.scope["distbp.route"] = "dashboard"
            return FileResponse(path, headers={"Cache-Control": "no-cache"})

        return answer

    for entry in sorted(folder.iterdir()):
        if entry.is_dir():
            app.mount(f"/{entry.name}", StaticFiles(directory=entry))
        else:
            app.add_route(f"/{entry.name}", page(entry), methods=["GET"], include_in_schema=False)
    app.add_route("/", page(folder / "index.html"), methods=["GET"], include_in_schema=False)


def _document(app: FastAPI) -> None:
    """Adds the security scheme to the OpenAPI document."""
    made = app.openapi

    def openapi() -> dict[str, Any]:
        found = made()
        schemes = found.setdefault("components", {}).setdefault("securitySchemes", {})
        schemes["token"] = {"type": "http", "scheme": "bearer", "bearerFormat": "dbp_<id>_<secret>"}
        return found

    app.openapi = openapi  # type: ignore[method-assign]
