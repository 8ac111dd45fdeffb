"""The token that a service makes for itself at its first start, so that nothing ever runs unprotected."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from services.store import SCOPES, Store

PROJECT = "main"
_NAME = "distbp serve"


def ensure_token(store: Store, home: Path) -> str:
    """The text of the token in `home / "token"`; makes one where there is none, or it opens nothing now.

    Of the project "main", with every scope. Only the file's owner can read it.
    """
    path = home / "token"
    with open(home / ".token.lock", "w", opener=_private) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            text = path.read_text("ascii").strip()
        except FileNotFoundError:
            text = ""
        if text and store.tokens.authenticate(text) is not None:
            return text
        _, text = store.tokens.create(PROJECT, SCOPES, name=_NAME)
        temporary = path.with_name(".token.new")
        temporary.unlink(missing_ok=True)
        with open(temporary, "x", opener=_private) as file:
            file.write(text + "\n")
        temporary.replace(path)
        return text


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)
