"""The routes of the project's tokens, of signing in by a link, and of the caller's own token."""

from __future__ import annotations

import time
from typing import Annotated

from fastapi import APIRouter, Path, Request

import distbp
from distbp_service.api import schemas
from distbp_service.api.auth import PUBLIC, address
from distbp_service.api.errors import ForbiddenError, UnauthorizedError
from distbp_service.api.routes import CallerArg, Route, ServiceArg, opens

router = APIRouter(prefix="/v1", tags=["tokens"], route_class=Route)


@router.get("/tokens", operation_id="list_tokens", **opens("admin"))
def listed(caller: CallerArg, service: ServiceArg) -> schemas.TokenList:
    """The project's tokens, revoked ones too, oldest first."""
    tokens = service.store.tokens.list(caller.project)
    return schemas.TokenList(items=[schemas.TokenOut.of(token) for token in tokens])


@router.post("/tokens", status_code=201, operation_id="create_token", **opens("admin", body="small"))
def create(body: schemas.TokenIn, caller: CallerArg, service: ServiceArg) -> schemas.TokenMade:
    """A new token for the caller's project. Its text is in this answer and nowhere else."""
    most = service.config.limits.tokens
    if sum(token.revoked_at is None for token in service.store.tokens.list(caller.project)) >= most:
        raise ForbiddenError(f"the project has {most} tokens, and may have no more; revoke some")
    until = None if body.expires_in_s is None else time.time() + body.expires_in_s
    token, text = service.store.tokens.create(caller.project, body.scopes, name=body.name, expires_at=until)
    return schemas.TokenMade(token=schemas.TokenOut.of(token), secret=text)


@router.delete("/tokens/{token_id}", operation_id="revoke_token", **opens("admin", 404))
def revoke(
    token_id: Annotated[str, Path(pattern=schemas.TOKEN_ID)], caller: CallerArg, service: ServiceArg
) -> schemas.TokenOut:
    """From now on it opens nothing; streams that it opened end at their next heartbeat."""
    return schemas.TokenOut.of(service.store.tokens.revoke(caller.project, token_id))


@router.post("/sign-in", operation_id="sign_in", **opens(PUBLIC, 401, body="small"))
def sign_in(body: schemas.LinkIn, request: Request, service: ServiceArg) -> schemas.SignedIn:
    """Exchanges the code of a link that `distbp serve` printed, once, for the token of its user."""
    found = service.links.take(body.code)
    if found is None:
        service.failures.take(address(request))
        raise UnauthorizedError("this link was used, or is too old; sign in with a token", "code")
    return schemas.SignedIn(secret=found)


@router.get("/whoami", operation_id="whoami", **opens("read"))
def whoami(caller: CallerArg) -> schemas.Me:
    """Whose token this is, and what it may do."""
    assert caller.token is not None
    return schemas.Me(token=schemas.TokenOut.of(caller.token), version=distbp.__version__)
