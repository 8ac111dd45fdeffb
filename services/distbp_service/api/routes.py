"""A route class that checks token, scope, rate and size before it reads a request.

    @router.post("/jobs", **opens("submit", 404, body="job"))

`opens` states the requirements once, for the check and for OpenAPI (`security`, `x-scope`, the errors).
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import Depends, HTTPException, Path, Request
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response
from starlette.types import Message, Scope

from distbp_service.api import pictures
from distbp_service.api.auth import PUBLIC, Caller, address, authorize
from distbp_service.api.csv_text import CsvBody
from distbp_service.api.errors import UnsupportedTypeError, described
from distbp_service.api.json_text import read_json
from distbp_service.api.limits import check_length, pieces
from distbp_service.api.schemas import ID_OF_JOB
from distbp_service.api.service import Service
from distbp_service.errors import BadValueError

_SCOPE, _BODY = "x-scope", "x-body"
_HEAVY = frozenset({"job", "predict"})  # kinds of bodies that need much computing


def opens(
    scope: str,
    *errors: int,
    body: str | None = None,
    raw: bool = False,
    files: bool = False,
    extra: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The keyword arguments of a route that needs `scope` (PUBLIC: none). errors: statuses that only this
    route has. body: the kind of its body (see `Limits.body`). raw: the route itself reads the body. files:
    the body may be CSV or a picture in place of JSON."""
    found = [422, 429, 503, *errors]
    if scope != PUBLIC:
        found += [401, 403]
    if body is not None:
        found += [400, 408, 413, 415]
    documented: dict[str, Any] = {_SCOPE: scope, **(extra or {})}
    if body is not None:
        documented[_BODY] = f"{body}:raw" if raw else f"{body}:files" if files else body
        if files:
            binary = {"schema": {"type": "string", "format": "binary"}}
            content = {"text/csv": {"schema": {"type": "string"}}, **dict.fromkeys(pictures.TYPES, binary)}
            documented["requestBody"] = {"content": content}
    if scope != PUBLIC:
        documented["security"] = [{"token": []}]
    return {"openapi_extra": documented, "responses": described(*found)}


class _ReadRequest(Request):
    """A request with a `body` that was read already. `value`: the body's JSON value."""

    def __init__(self, scope: Scope, body: bytes, value: Any) -> None:
        headers = [pair for pair in scope["headers"] if pair[0] != b"content-type"]
        scope = {**scope, "headers": [*headers, (b"content-type", b"application/json")]}

        async def receive() -> Message:
            return {"type": "http.request", "body": body, "more_body": False}

        super().__init__(scope, receive)
        self._value = value

    async def json(self) -> Any:
        return self._value


class Route(APIRoute):
    """A route that checks its requests (see above) and sets `request.state.caller`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        extra = self.openapi_extra or {}
        scope: str = extra[_SCOPE]  # a route without a scope is a mistake in the code
        kind, _, way = extra.get(_BODY, "").partition(":")

        fields = _fields(self.body_field)
        asking = (self.dependant, *self.dependant.dependencies)
        known = frozenset(str(parameter.alias) for one in asking for parameter in one.query_params)

        async def checked(request: Request) -> Response:
            service: Service = request.app.state.service
            request.scope["distbp.route"], request.scope["distbp.fields"] = self.path_format, fields
            if any(":" in str(value) for value in request.path_params.values()):
                raise HTTPException(405)  # ids have no colon, so this is a verb that the route does not have
            shares = address(request)
            if scope != PUBLIC:
                caller = await authorize(service, request, scope)
                service.buckets.take(caller.key)
                request.state.caller = caller
                shares = caller.shares
            _check_query(request, known)
            most = service.config.limits.body(kind) if kind else 0
            check_length(request, most)
            if kind:
                _check_plain(request)
            if way == "raw" or (scope == PUBLIC and not kind):
                return await handle(request)
            body = b""
            read: Callable[[bytes], Any] = read_json
            if kind:
                given = type_of(request) if way == "files" else ""
                if given == "text/csv":
                    read = _csv
                elif given in pictures.TYPES:
                    read = _one_row
                else:
                    more = f" (or CSV, as text/csv, or a picture, as {' or '.join(pictures.TYPES)})"
                    check_type(request, "application/json", f"JSON{more if way == 'files' else ''}")
                body = await _whole_body(service, request, most, shares)
            # Long work would block the event loop, and one caller must not take all threads.
            async with (service.checks if kind in _HEAVY else service.work).take(shares):
                value = await run_in_threadpool(read, body) if body or read is not read_json else None
                if kind:
                    # FastAPI reads the value only if the body is not empty, but a CSV body may be empty.
                    request = _ReadRequest(request.scope, body or (b"" if value is None else b"-"), value)
                return await handle(request)

        return checked


def _fields(body: Any) -> tuple[str, ...]:
    """The field names of a JSON body, for messages."""
    model = None if body is None else body.field_info.annotation
    return tuple(getattr(model, "model_fields", ()))


def _csv(body: bytes) -> dict[str, Any]:
    return {"inputs": [CsvBody(body)]}


def _one_row(body: bytes) -> dict[str, Any]:
    """The inputs for a picture, as bytes: the model decides its size and colors."""
    return {"inputs": [body]}


async def _whole_body(service: Service, request: Request, most: int, key: str) -> bytes:
    limits, give_back = service.config.limits, service.bodies.take(key)
    try:
        found = pieces(request, most, limits.body_idle_s, limits.body_bytes_per_s)
        return b"".join([piece async for piece in found])
    finally:
        give_back()


def _check_query(request: Request, known: frozenset[str]) -> None:
    """Raises BadValueError for an unknown parameter, which would otherwise be ignored silently."""
    unknown = request.query_params.keys() - known
    if unknown:
        offered = ", ".join(sorted(known)) or "none"
        raise BadValueError(
            f"there is no parameter {min(unknown)[:80]!r} here; known are: {offered}", min(unknown)[:80]
        )


def _check_plain(request: Request) -> None:
    """Raises UnsupportedTypeError for a compressed body, whose real size is not known."""
    packed = request.headers.get("content-encoding", "").strip()
    if packed.lower() not in ("", "identity"):
        raise UnsupportedTypeError(
            f"the body is packed ({packed[:40]}), which is not taken; send it as it is, without the header"
            " Content-Encoding",
            "Content-Encoding",
        )


def check_type(request: Request, wanted: str, what: str) -> None:
    """Raises UnsupportedTypeError if the content type is not `wanted`. what: the wanted body in words."""
    if type_of(request) != wanted:
        raise UnsupportedTypeError(f"send {what}, with 'Content-Type: {wanted}'", "Content-Type")


def type_of(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _caller(request: Request) -> Caller:
    caller: Caller = request.state.caller
    return caller


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


CallerArg = Annotated[Caller, Depends(_caller)]
JobId = Annotated[str, Path(pattern=ID_OF_JOB)]
ServiceArg = Annotated[Service, Depends(_service)]
