"""Addresses of remote data, and which of them may be followed. Nothing here touches the network.

`DISTBP_REMOTE` lists the allowed places: a scheme (https), or a scheme with a host or bucket, and perhaps the
beginning of a path (s3://our-bucket/public). It is empty by default. Messages show no query and no password
of an address.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import SplitResult, quote, unquote, urlsplit

from distbp.core import settings
from distbp.core.errors import DataError, HostileFileError, SettingsError, cut

WEB = {"https": 443, "http": 80}  # scheme -> port
BUCKETS = {"s3": "s3fs", "gs": "gcsfs"}  # scheme -> the package that reads it
_SCHEMES = (*WEB, *BUCKETS)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")
_NO_PART = re.compile(r"[\x00-\x20\x7f\\]")


class Address(NamedTuple):
    """`host`: in lower case, without its port; or the bucket. `port`: 0 for a bucket. `path`: as it is
    written, with the "/" at its beginning. `query`: without the "?"."""

    scheme: str
    host: str
    port: int
    path: str
    query: str = ""

    @property
    def place(self) -> str:
        """Host and port, as a setting names them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == WEB.get(self.scheme, 0) else f"{host}:{self.port}"

    @property
    def name(self) -> str:
        """The address for messages: without the query, which may hold a secret."""
        return f"{self.scheme}://{self.place}{self.path}"

    @property
    def target(self) -> str:
        """The path and query of a request to a web server, in ASCII."""
        path = quote(self.path or "/", safe="/%:@!$&'()*+,;=~-._")
        return f"{path}?{quote(self.query, safe='/%:@!$&()*+,;=~-._?')}" if self.query else path


def is_address(path: str) -> bool:
    """Whether a path of a job is the address of remote data, not of a file."""
    return _SCHEME.match(path) is not None


def shown(text: str) -> str:
    """An address, which may be damaged, for messages: without query, user name and password."""
    scheme, divider, rest = text.partition("://")
    return f"{scheme}{divider}{re.split('[?#]', rest)[0].rpartition('@')[2]}"[:200]


def allowed(text: str, of: str = "") -> Address:
    """Parses an address that `DISTBP_REMOTE` allows. of: the address that redirected here, for messages.
    Raises DataError, which says what to set, and HostileFileError."""
    address = parsed(text, of)
    if not any(_covers(place, address) for place in _listed()):
        listed = str(settings.get("DISTBP_REMOTE"))
        said = f"{_from(of, address)}: this address may not be followed here"
        if listed:
            raise DataError(
                f"{said}: DISTBP_REMOTE allows {listed}. Who runs distbp may add"
                f" {address.scheme}://{address.place} to it; or download the file, and name that"
            )
        raise DataError(
            f"{said}. Who runs distbp may set DISTBP_REMOTE={address.scheme} (or"
            f" {address.scheme}://{address.place}); or download the file, and name that"
        )
    return address


def may_be_private(address: Address) -> bool:
    """Whether `DISTBP_REMOTE_PRIVATE` names the host with its port, so that it may be in a private
    network."""
    listed = [place.strip().lower() for place in str(settings.get("DISTBP_REMOTE_PRIVATE")).split(",")]
    return address.place in listed


def check_settings() -> None:
    """Raises SettingsError for an invalid entry of `DISTBP_REMOTE` or `DISTBP_REMOTE_PRIVATE`."""
    list(_listed())
    for place in map(str.strip, str(settings.get("DISTBP_REMOTE_PRIVATE")).split(",")):
        if place and not _is_place(place.lower()):
            raise SettingsError(
                f"DISTBP_REMOTE_PRIVATE names {shown(place)!r}, but takes hosts, alone or with a port, as"
                " store.internal:8443, with commas between. Mend or unset it."
            )


def _is_place(text: str) -> bool:
    try:
        return text in {parsed(f"{scheme}://{text}").place for scheme in WEB}
    except DataError:
        return False


def _from(of: str, address: Address) -> str:
    return f"{of}: leads to {cut(address.name, 200)}" if of else address.name


def parsed(text: str, of: str = "") -> Address:
    """Parses an address, allowed or not. Raises DataError, HostileFileError."""
    said = f"{of}: leads to {shown(text)!r}" if of else shown(text)
    try:
        parts = urlsplit(text)
        port, host = parts.port, (parts.hostname or "").lower()
    except ValueError:
        raise DataError(f"{said}: is not an address; write https://host/file or s3://bucket/file") from None
    if parts.scheme not in _SCHEMES:
        raise DataError(f"{said}: data is read from https, http, s3 and gs, not from {parts.scheme!r}")
    if _NO_PART.search(text):
        raise DataError(f"{said}: an address has no blanks and no '\\'; write %20 for a blank")
    if parts.username is not None or parts.password is not None:
        raise HostileFileError(
            f"{parts.scheme}://{host}: an address may not hold a name or password, as it is written to"
            " job.yaml; use one that needs none"
        )
    if any(part.partition(";")[0] == ".." for part in re.split(r"[/\\]", unquote(parts.path))):
        raise HostileFileError(f"{said}: '..' is not allowed in an address; name the file itself")
    if parts.scheme in BUCKETS:
        return _bucket(parts, said)
    if not host:
        raise DataError(f"{said}: names no host; write {parts.scheme}://host/file")
    if parts.fragment:
        raise DataError(f"{said}: an address of data has no '#'; write %23 where it is part of a name")
    return Address(parts.scheme, host, WEB[parts.scheme] if port is None else port, parts.path, parts.query)


def _bucket(parts: SplitResult, said: str) -> Address:
    if parts.query or parts.fragment:
        raise HostileFileError(
            f"{said}: options such as endpoint_url are not part of an address; who runs distbp sets them up"
            f" for {BUCKETS[parts.scheme]}"
        )
    if not _BUCKET.fullmatch(parts.netloc):
        raise DataError(f"{said}: {parts.netloc[:80]!r} is not a bucket; write {parts.scheme}://bucket/file")
    return Address(parts.scheme, parts.netloc, 0, parts.path)


def _listed() -> Iterator[Address]:
    """Yields the places that `DISTBP_REMOTE` allows; a scheme alone has no host. Raises SettingsError."""
    for entry in map(str.strip, str(settings.get("DISTBP_REMOTE")).split(",")):
        scheme = entry.removesuffix("://")
        if scheme in _SCHEMES:
            yield Address(scheme, "", 0, "")
        elif entry:
            yield _place(entry)


def _place(text: str) -> Address:
    try:
        address = parsed(text)
        if address.query:
            raise DataError(f"{shown(text)}: a place has no '?'")
        return address
    except DataError as error:
        raise SettingsError(
            f"DISTBP_REMOTE names {shown(text)!r}, but takes https, http, s3 and gs, alone or with a place"
            f" (s3://our-bucket/public), with commas between ({error}). Mend or unset it."
        ) from None


def _covers(listed: Address, address: Address) -> bool:
    if listed.scheme != address.scheme:
        return False
    if not listed.host:
        return True
    plain = str if listed.scheme in BUCKETS else unquote  # in a bucket %2f is not a "/"
    path, begin = plain(address.path), plain(listed.path).rstrip("/")
    return listed[1:3] == address[1:3] and (path == begin or path.startswith(f"{begin}/"))
