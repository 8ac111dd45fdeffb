"""The application: routes, errors, the guard around them, and the dashboard."""

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
    """The API over `store`, as an ASGI application. It closes nothing: `store` stays the caller's.

    dispatcher_seen: when the dispatcher last gave a sign, seconds since 1970; left out: the time of the file
    `dispatcher.alive` on the work volume. clock: of the rates. Before it listens on an address that is not
    loopback, call `check_protected`.
    """
    app = FastAPI(
        title="distbp",
        version=distbp.__version__,
        description=_ABOUT,
        docs_url=None,  # its page loads scripts from elsewhere
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
    """What `path` answers to. The longest route counts: `{job_id}` fits `{job_id}:cancel` too."""
    fitting = [route for route in _ROUTES if route.path_regex.match(path)]
    longest = max((route.path for route in fitting), key=len, default=None)
    return frozenset(method for route in fitting if route.path == longest for method in route.methods or ())


def _verbs(path: str) -> frozenset[str]:
    """The verbs after the colon of `path` that there are; none where it has no colon."""
    thing, colon, _ = path.rpartition(":")
    verbs = {route.path.rpartition(":")[2]: route for route in _ROUTES if ":" in route.path}
    return frozenset(
        verb for verb, route in verbs.items() if colon and route.path_regex.match(f"{thing}:{verb}")
    )


def _serve(app: FastAPI, folder: Path) -> None:
    """The dashboard's files, each top one at an address of its own: a mount at / would answer for every
    address that is not there, and for methods that are not."""

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
    """Adds to OpenAPI what FastAPI does not know of."""
    made = app.openapi

    def openapi() -> dict[str, Any]:
        found = made()
        schemes = found.setdefault("components", {}).setdefault("securitySchemes", {})
        schemes["token"] = {"type": "http", "scheme": "bearer", "bearerFormat": "dbp_<id>_<secret>"}
        return found

    app.openapi = openapi  # type: ignore[method-assign]
