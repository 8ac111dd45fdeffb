"""The token that a service makes for itself at its first start, so that nothing ever runs unprotected."""

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
    """The text of the token in `home / "token"`; makes one where there is none, or it opens nothing now.

    Of the project "main", with every scope, and with the name of the user who starts the service. Only the
    file's owner can read it. Raises StoreError where there is a token and the store knows of none: it is not
    the one that was here.
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
                f"{path} is of a service whose database is gone: the one given is new. Give the old one, or"
                " put it back from a backup; or move the file with the token away, to begin anew"
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
    except KeyError:  # as in a container
        return "operator"
