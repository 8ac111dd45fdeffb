"""Projects and their tokens. Only the SHA-256 of a token's secret is stored.

A secret has 256 random bits, so it cannot be guessed, and a plain hash is enough.
"""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Collection
from contextlib import suppress

from sqlalchemy import select, update
from sqlalchemy.exc import SQLAlchemyError

from distbp.client.names import SCOPES
from distbp_service.errors import BadValueError, NotFoundError
from distbp_service.store.database import Database, clean, sha256
from distbp_service.store.records import Project, Token
from distbp_service.store.schema import projects, tokens

_TOKEN = re.compile(r"dbp_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
_TOKEN_ID = re.compile(r"[0-9a-f]{12}")
_PROJECT = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_USED_EVERY_S = 60.0  # `last_used_at` may be late by this


class Tokens:
    def __init__(self, db: Database) -> None:
        self._db = db

    def create(
        self, project: str, scopes: Collection[str], *, name: str = "", expires_at: float | None = None
    ) -> tuple[Token, str]:
        """Makes a token, and its project if that is new. Returns the token and its text
        `dbp_<id>_<secret>`, which cannot be read again later. Raises BadValueError."""
        unknown = sorted(set(scopes) - set(SCOPES))
        if unknown or not scopes:
            raise BadValueError(f"scopes are some of {', '.join(SCOPES)}, not {unknown or 'none'}", "scopes")
        if not _PROJECT.fullmatch(project):
            raise BadValueError(
                "a project's name is 1 to 63 small letters, digits, '-' or '_', a letter or digit first",
                "project",
            )
        if len(clean(name, "name")) > 200:
            raise BadValueError("a token's name has at most 200 characters", "name")
        now, secret = self._db.clock(), secrets.token_urlsafe(32)
        row = {
            "id": secrets.token_hex(6),
            "project": project,
            "name": name,
            "sha256": sha256(secret),
            "scopes": [scope for scope in SCOPES if scope in scopes],
            "created_at": now,
            "expires_at": expires_at,
        }
        with self._db.write() as conn:
            self._db.insert_new(conn, projects, {"name": project, "created_at": now})
            conn.execute(tokens.insert(), [row])
            found = conn.execute(select(tokens).where(tokens.c.id == row["id"])).one()
        return _token(found), f"dbp_{row['id']}_{secret}"

    def authenticate(self, text: str) -> Token | None:
        """The token with this text; None if it does not exist, was revoked, or has expired."""
        match = _TOKEN.fullmatch(text)
        if match is None:
            return None
        now = self._db.clock()
        with self._db.read() as conn:
            row = conn.execute(select(tokens).where(tokens.c.id == match[1])).one_or_none()
        if row is None or not hmac.compare_digest(row.sha256, sha256(match[2])):
            return None
        if row.revoked_at is not None or (row.expires_at is not None and row.expires_at <= now):
            return None
        if row.last_used_at is None or now - row.last_used_at > _USED_EVERY_S:
            # Reading must not wait for writers, and must not fail if the database cannot be written.
            with suppress(SQLAlchemyError), self._db.write(wait_s=0.0) as conn:
                conn.execute(update(tokens).where(tokens.c.id == row.id).values(last_used_at=now))
        return _token(row)

    def list(self, project: str) -> tuple[Token, ...]:
        """All tokens of the project, including revoked ones, oldest first."""
        query = select(tokens).where(tokens.c.project == project).order_by(tokens.c.created_at, tokens.c.id)
        with self._db.read() as conn:
            return tuple(_token(row) for row in conn.execute(query))

    def revoke(self, project: str, token_id: str) -> Token:
        """Makes a token invalid from now on. May be repeated. Raises NotFoundError."""
        if not _TOKEN_ID.fullmatch(token_id):
            raise NotFoundError("there is no token with such an id")
        mine = (tokens.c.id == token_id, tokens.c.project == project)
        with self._db.write() as conn:
            conn.execute(
                update(tokens).where(*mine, tokens.c.revoked_at.is_(None)).values(revoked_at=self._db.clock())
            )
            row = conn.execute(select(tokens).where(*mine)).one_or_none()
        if row is None:
            raise NotFoundError(f"there is no token {token_id}")
        return _token(row)

    def any(self) -> bool:
        """Whether any token is valid: neither revoked nor expired."""
        now = self._db.clock()
        query = select(tokens.c.expires_at).where(tokens.c.revoked_at.is_(None))
        with self._db.read() as conn:
            return any(until is None or until > now for (until,) in conn.execute(query))

    def projects(self) -> tuple[Project, ...]:
        with self._db.read() as conn:
            return tuple(Project.of(row) for row in conn.execute(select(projects).order_by(projects.c.name)))


def _token(row: object) -> Token:
    found = Token.of(row)  # type: ignore[arg-type]
    return Token(**{**vars(found), "scopes": tuple(found.scopes)})
