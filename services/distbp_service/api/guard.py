"""Checks the framing, the Host and the Origin of every request, and adds protective headers to every answer.

Host: with DNS rebinding a foreign page can make its own name resolve to our address, but the Host header then
has that name. Origin: browsers send the origin of the calling page. Health probes may use any Host, because
their answers contain no data.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from distbp_service.api.config import host_name
from distbp_service.api.errors import log, problem
from distbp_service.api.telemetry import Telemetry

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
    " font-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": CSP,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
_ANY_HOST = ("/livez", "/readyz")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Guard:
    """`hosts`, `origins`: see ApiConfig. head_bytes: the most bytes of a request's address and headers.
    clock: returns seconds, monotonic."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        hosts: tuple[str, ...],
        origins: tuple[str, ...],
        telemetry: Telemetry,
        head_bytes: int,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._app = app
        self._hosts = frozenset(host.lower() for host in hosts)
        self._origins = frozenset(origin.lower() for origin in origins)
        self._telemetry, self._head_bytes = telemetry, head_bytes
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return  # websockets are not supported
        began, started = self._clock(), False

        async def answer(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                self._finish(scope, message, began)
            await send(message)

        refused = self._refusal(scope)
        if refused is not None:
            await refused(scope, receive, answer)
            return
        try:
            await self._app(scope, receive, answer)
        except ClientDisconnect:
            return  # the client is gone
        except Exception:
            log.exception("an error that nobody foresaw, at %s", scope.get("distbp.route", "no route"))
            if started:
                raise  # part of the answer was sent: only a broken connection shows that the rest is missing
            failed = problem(500, "internal", "the service failed; its log has it")
            await failed(scope, receive, answer)

    def _refusal(self, scope: Scope) -> Any:
        headers = Headers(scope=scope)
        if "transfer-encoding" in headers and ("content-length" in headers or scope["http_version"] < "1.1"):
            # RFC 9112, 6.1: a proxy may have read another body than we, so the connection is not safe.
            return problem(
                400,
                "bad_request",
                "the request says twice how long its body is; send Content-Length or, in HTTP/1.1,"
                " Transfer-Encoding",
                headers={"Connection": "close"},
                param="Transfer-Encoding",
            )
        size = sum(len(name) + len(value) for name, value in scope["headers"])
        if size + len(scope["raw_path"]) + len(scope["query_string"]) > self._head_bytes:
            return problem(
                431,
                "too_large",
                f"the address and the headers have more than {self._head_bytes:,} bytes; send fewer",
                headers={"Connection": "close"},
            )
        host = headers.get("host", "").lower()
        if scope["path"] not in _ANY_HOST and host_name(host) not in self._hosts:
            return problem(
                400,
                "bad_host",
                "this service does not answer to this name; add it to DISTBP_SERVICE_HOSTS",
                param="Host",
            )
        origin = headers.get("origin")
        if origin is None or origin.lower() in self._origins:
            return None
        if urlsplit(origin.lower()).netloc == host and origin.lower() != "null":
            return None
        return problem(403, "bad_origin", "pages of this origin may not call this service", param="Origin")

    def _finish(self, scope: Scope, message: Message, began: float) -> None:
        headers = MutableHeaders(raw=message.setdefault("headers", []))
        for name, value in HEADERS.items():
            headers.setdefault(name, value)
        if scope["path"].startswith("/v1"):
            headers.setdefault("Cache-Control", "no-store")
        method = scope["method"] if scope["method"] in _METHODS else "other"
        route = scope.get("distbp.route", "other")
        self._telemetry.answered(method, route, message["status"], self._clock() - began)
