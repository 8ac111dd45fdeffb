"""The address and the token of a service: from arguments, the environment, or the file of `distbp serve`."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from distbp.core import settings
from distbp.core.errors import SettingsError
from distbp.core.storage import user_path

_TOKEN = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True)
class Access:
    """`url`: the address, without a slash at its end. `token`: "" if none is known."""

    url: str
    token: str


def file_path() -> Path:
    """The file in which `distbp serve` writes address and token for clients of the same user."""
    base = settings.get("XDG_CONFIG_HOME")
    return user_path(base or "~/.config") / "distbp" / "service.json"


def private(path: str, flags: int) -> int:
    """Opens a file, for `open(opener=...)`. Only its owner may read a file that this creates (mode 0600)."""
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


def remember(access: Access) -> Path:
    """Writes the file, which only this user may read (mode 0600), and returns its path. Raises OSError."""
    path = file_path()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    try:
        with open(temporary, "x", opener=private) as file:
            json.dump({"url": access.url, "token": access.token}, file)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def find_access(url: str | None = None, token: str | None = None) -> Access | None:
    """The arguments, else DISTBP_URL and DISTBP_TOKEN, else the file's content; None: no address is known.

    The token in the file is used for the address in the file only. Raises SettingsError.
    """
    noted = _noted()
    where = (url or settings.get("DISTBP_URL")).strip()
    found = _clean(where, "the address given" if url else "DISTBP_URL") if where else None
    if found is None:
        if noted is None:
            return None
        found = noted.url
    secret = token or settings.get("DISTBP_TOKEN")
    if not secret and noted is not None and noted.url == found:
        secret = noted.token
    secret = secret.strip()
    if secret and not _TOKEN.fullmatch(secret):
        source = (
            "the token given" if token else "DISTBP_TOKEN" if settings.get("DISTBP_TOKEN") else file_path()
        )
        raise SettingsError(
            f"{source} is not a token: it is one word, as dbp_..., as `distbp token create` printed it"
        )
    return Access(found, secret)


def _noted() -> Access | None:
    path = file_path()
    try:
        content: Any = json.loads(path.read_text("utf-8"))
        url, token = content["url"], content["token"]
        if not (isinstance(url, str) and isinstance(token, str)):
            raise TypeError
        return Access(_clean(url, str(path)), token)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        raise SettingsError(
            f"{path} cannot be read; remove it, and start `distbp serve` again or set DISTBP_URL and"
            " DISTBP_TOKEN"
        ) from None


def _clean(url: str, source: str) -> str:
    check_url(url, source)
    return url.rstrip("/")


def check_url(url: str, source: str) -> None:
    """Raises SettingsError, which names the source, unless `url` is the http(s) address of a server, without
    user name, query and fragment."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname)
        good = good and parts.username is None and not parts.query and not parts.fragment
        _ = parts.port
    except ValueError:
        good = False
    if not good:
        raise SettingsError(f"{source} is not a service's address ({url!r}); it looks like http://host:8470")
