"""A file of a web server, fetched with the standard library.

A host is looked up once. All its addresses are checked, and the connection is made to one of these. So a name
that resolves to another machine a moment later (DNS rebinding) has no effect. Each redirect passes the same
checks. Proxies of the environment are not used, because their connections could not be checked.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urljoin

from distbp.core.errors import DataError, HostileFileError, cut
from distbp.data.addresses import Address, allowed, may_be_private
from distbp.data.remote.content import Content

_SILENCE_S = 60.0  # a server that is silent for this time is given up
_PIECE = 2**16
_REDIRECTS = 5
_MOVED = frozenset({301, 302, 303, 307, 308})
_TRANSLATED = (ipaddress.ip_network("64:ff9b::/96"),)  # addresses of IPv4 within IPv6 (RFC 6052, 2.1)
# From this age on, Last-Modified is a strong validator (RFC 9110, 8.8.2.2).
_SURELY_OLDER = timedelta(seconds=60)
_FAULTS = (OSError, http.client.HTTPException)


@contextmanager
def web_contents(address: Address) -> Iterator[list[Content]]:
    """Requests the file at an address, and waits for the answer. Raises DataError, HostileFileError."""
    if any(c in address.path for c in "*[") or address.path in ("", "/"):
        raise DataError(
            f"{address.name}: name one file: a web server does not list what it has; folders and patterns are"
            " for s3:// and gs://"
        )
    first = address
    for _ in range(_REDIRECTS + 1):
        # The answer keeps the socket if the server ends the connection, so both are closed.
        with closing(_connected(address, first)) as connection, _answer(connection, address, first) as answer:
            if answer.status not in _MOVED:
                yield [_content(answer, first)]
                return
            to = answer.getheader("Location", "")
            if not to:
                raise DataError(
                    f"{_said(address, first)}: the server answers {answer.status}, and does not say where the"
                    " file is now; check the address"
                )
            at = f"{address.scheme}://{address.place}{address.target}"
            address = allowed(urljoin(at, to), of=first.name)
            if first.scheme == "https" and address.scheme != "https":
                raise HostileFileError(f"{_said(address, first)}, which is not encrypted")
    raise DataError(f"{first.name}: leads on more than {_REDIRECTS} times; name the address where it ends")


def is_public(text: str) -> bool:
    """Whether an IPv4 or IPv6 address is public: not private, loopback, link-local, reserved, multicast or
    unspecified, nor an IPv6 form of such an IPv4 address."""
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour
        if any(found in network for network in _TRANSLATED):
            inner = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
        if found.is_site_local:
            return False
    return found.is_global and not (found.is_multicast or found.is_reserved or found.is_unspecified)


def _connected(address: Address, first: Address) -> http.client.HTTPConnection:
    """Connects to a checked address of the host. Raises DataError, HostileFileError."""
    kind = http.client.HTTPSConnection if address.scheme == "https" else http.client.HTTPConnection
    connection = kind(address.host, address.port, timeout=_SILENCE_S)
    connection.auto_open = 0  # a reconnection would look the name up again
    places = _checked_places(address, first)
    for number, (family, place) in enumerate(places):
        try:
            connection.sock = _plugged(address, family, place)
            return connection
        except (OSError, ssl.SSLError) as error:
            if number + 1 == len(places):
                raise DataError(
                    f"{_said(address, first)}: cannot be reached ({_reason(error)}); check the address and"
                    " the network"
                ) from None
    raise DataError(f"{_said(address, first)}: the host has no address")


def _checked_places(address: Address, first: Address) -> list[tuple[int, Any]]:
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise DataError(
            f"{_said(address, first)}: the host is not known; check the address and the network"
        ) from None
    if not may_be_private(address) and not all(is_public(str(place[0])) for *_, place in found):
        # The address is not shown, because the sender of a job may not learn addresses of a private network.
        raise HostileFileError(
            f"{_said(address, first)}: the host is not on the public internet. Who runs distbp may allow it:"
            f" DISTBP_REMOTE_PRIVATE={address.place}"
        )
    return [(family, place) for family, *_, place in found]


def _plugged(address: Address, family: int, place: Any) -> socket.socket:
    """A connected socket, encrypted for https."""
    plain = socket.socket(family, socket.SOCK_STREAM)
    try:
        plain.settimeout(_SILENCE_S)
        plain.connect(place)
        if address.scheme == "http":
            return plain
        return ssl.create_default_context().wrap_socket(plain, server_hostname=address.host)
    except BaseException:
        plain.close()
        raise


def _answer(
    connection: http.client.HTTPConnection, address: Address, first: Address
) -> http.client.HTTPResponse:
    try:
        # Compressed in transit, the file would have another size and another digest.
        connection.request(
            "GET", address.target, headers={"Accept-Encoding": "identity", "User-Agent": "distbp"}
        )
        answer = connection.getresponse()
    except _FAULTS as error:
        raise DataError(f"{_said(address, first)}: gives no answer ({_reason(error)}); try again") from None
    if answer.status == 200 or answer.status in _MOVED:
        return answer
    answer.close()
    advice = {
        404: "check the address",
        401: "an address is needed that asks for no password",
        403: "an address is needed that anyone may read",
    }.get(answer.status, "try again later")
    raise DataError(f"{_said(address, first)}: the server answers {answer.status} {answer.reason}; {advice}")


def _content(answer: http.client.HTTPResponse, first: Address) -> Content:
    name = first.name
    length = answer.getheader("Content-Length", "")
    size = int(length) if length.isascii() and length.isdecimal() and len(length) < 19 else None
    if size is None and not answer.chunked:
        raise DataError(
            f"{name}: the server does not say where the file ends, so a part of it would look like all;"
            " download it, and name the file"
        )
    packed = answer.getheader("Content-Encoding", "identity").lower()
    if packed not in ("identity", "") and not (packed == "gzip" and name.lower().endswith(".gz")):
        raise DataError(
            f"{name}: the server packs the file on its way ({packed[:40]}), though it was asked not to;"
            " download it, and name the file"
        )
    whole = f"{name}?{first.query}" if first.query else name
    return Content(name, whole, size, _mark(answer, length), _pieces(answer, name, size))


def _mark(answer: http.client.HTTPResponse, length: str) -> str:
    """A strong ETag, or the time of the last change if that is old enough; else ""."""
    tag = answer.getheader("ETag", "")
    if tag.startswith('"'):
        return f"{tag} {length}"
    try:
        changed = parsedate_to_datetime(answer.getheader("Last-Modified", ""))
        now = parsedate_to_datetime(answer.getheader("Date", ""))
        return f"{changed.isoformat()} {length}" if now - changed >= _SURELY_OLDER else ""
    except (TypeError, ValueError):  # a header is absent, or is not a date
        return ""


def _pieces(answer: http.client.HTTPResponse, name: str, size: int | None) -> Iterator[bytes]:
    count, why = 0, "the connection ended"
    while True:
        try:
            piece = answer.read1(_PIECE)  # only the bytes that are there, so that slow answers are noticed
        except _FAULTS as error:
            piece, why = b"", _reason(error)
            size = count + 1 if size is None else size  # counts as cut off, although its length is unknown
        count += len(piece)
        if piece:
            yield piece
            continue
        if size is not None and count < size:
            raise DataError(
                f"{name}: cut off after {count:,} bytes ({why}); nothing is kept of it, try again"
            )
        return


def _said(address: Address, first: Address) -> str:
    return address.name if address == first else f"{first.name}: leads to {cut(address.name, 200)}"


def _reason(error: Exception) -> str:
    text = getattr(error, "verify_message", "") or getattr(error, "strerror", None) or str(error)
    return str(text).split("\n")[0][:120] or type(error).__name__
