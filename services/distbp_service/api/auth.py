"""Identifies callers by a user's token `dbp_...`, or by the token `dbr_...` of one attempt of one job.

The store compares the SHA-256 of secrets in constant time. This module keeps, logs and repeats no token.
"""

from __future__ import annotations

from dataclasses import dataclass

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from distbp_service.api.errors import ForbiddenError, UnauthorizedError
from distbp_service.api.service import Service
from distbp_service.store import Store, Token

RUNNER = "runner"
PUBLIC = "public"


@dataclass(frozen=True)
class Caller:
    """`token`: of a user; None for a runner. `job_id`, `attempt`: of a runner. `key`: unique to the
    caller."""

    key: str
    token: Token | None = None
    job_id: str = ""
    attempt: int = 0

    @property
    def name(self) -> str:
        """The token's name and id, as shown to other users."""
        assert self.token is not None  # routes for runners do not ask
        name = self.token.name
        return f"{name} (token {self.token.id})" if name else f"token {self.token.id}"

    @property
    def shares(self) -> str:
        """The key by which limits count: the project of a token, or the attempt of a runner."""
        return self.key if self.token is None else f"project:{self.token.project}"

    @property
    def project(self) -> str:
        assert self.token is not None  # routes for runners do not ask
        return self.token.project

    def may(self, scope: str) -> bool:
        """Whether the caller has the scope. A token with `admin` has every scope but `runner`."""
        if self.token is None:
            return scope == RUNNER
        return scope != RUNNER and (scope in self.token.scopes or "admin" in self.token.scopes)


def bearer(request: Request) -> str:
    """The text of the request's token. Raises UnauthorizedError if there is none."""
    kind, _, text = request.headers.get("authorization", "").partition(" ")
    if kind.lower() != "bearer" or not text:
        raise UnauthorizedError("give a token: 'Authorization: Bearer dbp_...'", "Authorization")
    return text.strip()


def identify(store: Store, text: str) -> Caller:
    """The caller with this token. Raises UnauthorizedError if it is unknown, revoked or expired."""
    if text.startswith("dbr_"):
        found = store.runs.authenticate(text)
        if found is not None:
            return Caller(f"runner:{found[0]}:{found[1]}", None, *found)
    else:
        token = store.tokens.authenticate(text)
        if token is not None:
            return Caller(f"token:{token.id}", token)
    raise UnauthorizedError("this token opens nothing: it is wrong, revoked or expired", "Authorization")


def address(request: Request) -> str:
    return request.client.host if request.client else ""


async def authorize(service: Service, request: Request, scope: str) -> Caller:
    """Returns the caller if it has `scope`. Raises UnauthorizedError, ForbiddenError, and RateError for a
    wrong token after too many wrong ones from its address. A valid token is accepted even then, because
    several callers may share an address."""
    text = bearer(request)
    try:
        caller = await run_in_threadpool(identify, service.store, text)
    except UnauthorizedError:
        service.failures.take(address(request))
        raise
    if not caller.may(scope):
        if scope == RUNNER:
            raise ForbiddenError("this is for runners; it needs the token of an attempt")
        raise ForbiddenError(f"this token may not do that; it needs the scope {scope!r}")
    return caller
