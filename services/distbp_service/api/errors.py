"""Turns every error into an answer of one form: {code, message, param?, faults?, expected?}, no traceback.

A ServiceError (see `distbp_service.errors`) has its own code and status. The errors of distbp, FastAPI and
SQLAlchemy are mapped here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from distbp.core.errors import DataError, JobError, ModelError
from distbp_service.api.field_words import in_words
from distbp_service.errors import BadValueError, OutOfOrderError, ServiceError
from distbp_service.store.database import reason

log = logging.getLogger("distbp.api")


class BadJsonError(ServiceError):
    code = "bad_json"
    status = 400


class UnauthorizedError(ServiceError):
    code = "unauthorized"
    status = 401


class ForbiddenError(ServiceError):
    code = "forbidden"
    status = 403


class TooLargeError(ServiceError):
    code = "too_large"
    status = 413


class UnsupportedTypeError(ServiceError):
    code = "unsupported_media_type"
    status = 415


class SlowError(ServiceError):
    code = "timeout"
    status = 408


class RateError(ServiceError):
    """`retry_after_s`: whole seconds, at least 1."""

    code = "rate_limited"
    status = 429

    def __init__(self, message: str, retry_after_s: int = 1) -> None:
        self.retry_after_s = max(1, retry_after_s)
        super().__init__(message)


class UnavailableError(ServiceError):
    code = "unavailable"
    status = 503


class Fault(BaseModel):
    path: str = Field(description="dotted, as `model.layers.1.units`")
    message: str


class Problem(BaseModel):
    """What every answer with a status of 400 or above holds."""

    code: str = Field(description="for programs; never changes its meaning")
    message: str = Field(description="for people: what is wrong and what to do")
    param: str | None = Field(default=None, description="the field, parameter or header at fault")
    faults: list[Fault] | None = Field(default=None, description="every fault of a job or a body")
    expected: int | None = Field(default=None, description="out_of_order: the report that is waited for")


_PHRASES: Mapping[int, str] = {
    400: "the request cannot be read",
    401: "no token, or one that opens nothing",
    403: "the token's scopes do not allow this",
    404: "there is no such thing in this project",
    408: "the body came too slowly",
    409: "the thing is in a state that does not allow this",
    413: "the body is too large",
    415: "the body has a content type that is not taken here",
    422: "a field, parameter or job is at fault",
    429: "too many requests; wait for Retry-After seconds",
    503: "the service cannot answer now; try again",
}


def described(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The argument `responses` of a route, for OpenAPI."""
    found: dict[int | str, dict[str, Any]] = {}
    for status in sorted(set(statuses)):
        found[status] = {"model": Problem, "description": _PHRASES[status]}
        if status == 429:
            found[status]["headers"] = {"Retry-After": {"schema": {"type": "integer"}, "required": True}}
        if status == 401:
            found[status]["headers"] = {"WWW-Authenticate": {"schema": {"type": "string"}, "required": True}}
    return found


def problem(
    status: int, code: str, message: str, *, headers: Mapping[str, str] | None = None, **more: Any
) -> JSONResponse:
    content = {"code": code, "message": message, **{k: v for k, v in more.items() if v is not None}}
    return JSONResponse(content, status, dict(headers or {}))


def of_service(error: ServiceError) -> JSONResponse:
    headers = {}
    if isinstance(error, RateError):
        headers["Retry-After"] = str(error.retry_after_s)
    if isinstance(error, UnauthorizedError):
        headers["WWW-Authenticate"] = 'Bearer realm="distbp"'
    if isinstance(error, TooLargeError | SlowError):
        headers["Connection"] = "close"  # the rest of the body is not read
    if isinstance(error, UnavailableError):
        headers["Retry-After"] = "1"
    expected = error.expected if isinstance(error, OutOfOrderError) else None
    if error.status >= 500:
        log.error("%s: %s", error.code, error)
        message = str(error) if isinstance(error, UnavailableError) else "the service failed; its log has it"
        return problem(error.status, error.code, message, headers=headers)
    return problem(
        error.status, error.code, str(error), headers=headers, param=error.param, expected=expected
    )


def of_job(error: JobError) -> JSONResponse:
    faults = [{"path": fault.path, "message": fault.message} for fault in error.faults]
    param = faults[0]["path"] if len(faults) == 1 and faults[0]["path"] else None
    return problem(422, "invalid_job", str(error), param=param, faults=faults)


def of_request(error: RequestValidationError, known: Collection[str] = ()) -> JSONResponse:
    """The answer to an invalid request. It names the faulty fields but never their values, which may be
    secrets. known: the fields of the body."""
    found = error.errors()
    if any(fault["loc"][:1] == ("path",) for fault in found):
        return problem(404, "not_found", "there is nothing at this address: its id is not one of ours")
    faults = []
    for fault in found:
        where, *rest = (str(part) for part in fault["loc"])
        path = ".".join(rest) if where in ("body", "query", "header") and rest else where
        faults.append({"path": path, "message": in_words(fault, known if len(rest) == 1 else ())})
    first = faults[0]
    message = f"{first['path']}: {first['message']}" + (
        f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    )
    return problem(422, "invalid", message, param=first["path"], faults=faults)


_CODES: Mapping[int, tuple[str, str]] = {
    400: ("bad_request", "the request cannot be read"),
    404: ("not_found", "there is nothing at this address"),
    405: ("method_not_allowed", "this address does not answer to this method; Allow has those that it does"),
}


def of_http(error: HTTPException, methods: Collection[str] = ()) -> JSONResponse:
    """The answer to an HTTPException. methods: those of the address, for the header Allow; empty: not
    known."""
    code, message = _CODES.get(error.status_code, ("refused", "the request is refused"))
    headers = dict(error.headers or {})
    if error.status_code == 405 and methods:
        headers["Allow"] = ", ".join(sorted(methods))
    return problem(error.status_code, code, message, headers=headers)


def of_database(error: SQLAlchemyError) -> JSONResponse:
    log.error("the database failed: %s", reason(error))
    return of_service(UnavailableError("the database does not answer; try again"))


def install(
    app: FastAPI, methods: Callable[[str], Collection[str]], verbs: Callable[[str], Collection[str]]
) -> None:
    """Adds handlers to `app` for all foreseen errors; `guard` answers the others. methods: returns the
    methods of a path (empty: not known). verbs: returns the verbs that may follow the last colon of a
    path."""

    def add(kind: type[Exception], answer: Any) -> None:
        async def handler(request: Request, error: Exception) -> JSONResponse:
            found: JSONResponse = answer(error)
            return found

        app.add_exception_handler(kind, handler)

    add(ServiceError, of_service)
    add(JobError, of_job)
    add(DataError, lambda error: of_service(BadValueError(str(error))))
    add(ModelError, lambda error: of_service(BadValueError(str(error))))

    async def of_fields(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        return of_request(error, request.scope.get("distbp.fields", ()))

    app.add_exception_handler(RequestValidationError, of_fields)
    add(SQLAlchemyError, of_database)

    async def of_route(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        path = request.url.path
        known, others, verb = methods(path), verbs(path), path.rpartition(":")[2]
        if others and verb not in others:
            there = ", ".join(f":{one}" for one in sorted(others))
            return problem(404, "not_found", f"there is no :{verb[:40]} of this; known are {there}")
        if error.status_code == 405 and request.method in known:  # the path is wrong, not the method
            return of_http(HTTPException(404))
        return of_http(error, known)

    app.add_exception_handler(HTTPException, of_route)
