"""The token that a service makes at its first start, so that it never runs unprotected."""

from __future__ import annotations

import fcntl
import os
import pwd
from pathlib import Path

from distbp.client.names import SCOPES
from distbp.client.settings_file import private
from distbp_service.errors import StoreError
from distbp_service.store import Store

PROJECT = "main"


def ensure_token(store: Store, home: Path) -> str:
    """The text of the token in `home / "token"`. Makes a token if there is none, or if it is not valid any
    more.

    It belongs to the project "main", has every scope, and is named after the user who starts the service.
    Only the file's owner can read it. Raises StoreError if the file has a token but the store has no project:
    the database is then another one.
    """
    path = home / "token"
    with open(home / ".token.lock", "w", opener=private) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            text = path.read_text("ascii", "replace").strip()
        except FileNotFoundError:
            text = ""
        if text and store.tokens.authenticate(text) is not None:
            return text
        if text and not store.tokens.projects():
            raise StoreError(
                f"{path} belongs to a service whose database is gone: the database given is new. Give the old"
                " one, or put it back from a backup; or move the file with the token away, to begin anew"
            )
        _, text = store.tokens.create(PROJECT, SCOPES, name=_user())
        temporary = path.with_name(".token.new")
        temporary.unlink(missing_ok=True)
        with open(temporary, "x", opener=private) as file:
            file.write(text + "\n")
        temporary.replace(path)
        return text


def _user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # for example in a container
        return "operator"
