"""Limits the number of the API's connections, and the time that each may be idle.

A client may send half a request or never read its answer. Each such connection holds an open file of this
process, so it is closed after some seconds. If the limit is reached, a new connection replaces the oldest one
without a complete request. So clients with requests are served, however many idle connections there are.
"""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Callable
from typing import Any

from distbp_service.api.config import Limits

_LOOK_S = 1.0
_FILES = 8192  # the wanted limit on open files of this process; a lower limit will do
_RESERVE = 256  # open files that are kept for the database, runners, datasets and just accepted connections


def allowed_connections(most: int) -> int:
    """The number of connections, at most `most`, that leaves enough open files for all else. Raises the
    process's limit on open files if it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < min(_FILES, hard):
        soft = min(_FILES, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return max(8, min(most, soft - min(_RESERVE, soft // 2)))


class Connections:
    """Pass `protocol` to uvicorn (`uvicorn.Config(http=...)`), which calls it for each new connection. make:
    makes uvicorn's own protocol for HTTP. total: the most connections; one address may have three quarters
    of them."""

    def __init__(self, make: Callable[..., Any], total: int, limits: Limits) -> None:
        self._make, self._limits = make, limits
        self._total, self._each = total, max(1, total * 3 // 4)
        self._open: dict[str, dict[_Connection, None]] = {}  # by address, the oldest first
        self._looking = False

    @property
    def count(self) -> int:
        return sum(map(len, self._open.values()))

    def protocol(self, **given: Any) -> _Connection:
        return _Connection(self, self._make(**given))

    def add(self, one: _Connection, address: str) -> bool:
        """Adds a connection and returns True. Without room it closes an idle connection; if none is idle, it
        returns False."""
        mine = self._open.setdefault(address, {})
        crowd = mine if len(mine) >= self._each else None
        if crowd is None and self.count >= self._total:
            crowd = max(self._open.values(), key=len)
        if crowd is not None:
            oldest = next((other for other in crowd if not other.busy), None)
            if oldest is None:
                self._forget_empty(address)
                return False
            oldest.drop()
        self._open.setdefault(address, {})[one] = None
        if not self._looking:
            self._looking = True
            asyncio.get_running_loop().call_later(_LOOK_S, self._look)
        return True

    def remove(self, one: _Connection, address: str) -> None:
        self._open.get(address, {}).pop(one, None)
        self._forget_empty(address)

    def _forget_empty(self, address: str) -> None:
        if not self._open.get(address, True):
            del self._open[address]

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        for one in [one for mine in self._open.values() for one in mine]:
            if one.overdue(loop.time(), self._limits.head_s, self._limits.unread_s):
                one.drop()
        self._looking = bool(self._open)
        if self._looking:
            loop.call_later(_LOOK_S, self._look)


class _Connection:
    """A protocol of asyncio that wraps uvicorn's."""

    def __init__(self, connections: Connections, inner: Any) -> None:
        self._connections, self._inner = connections, inner
        self._transport: asyncio.Transport | None = None
        self._address = ""
        self._cycle: Any = None  # uvicorn's request cycle that was seen last
        self._since_s = 0.0  # when the wait for a request began
        self._unread_since_s: float | None = None

    @property
    def busy(self) -> bool:
        """Whether a request has arrived whose answer is not complete."""
        cycle = self._inner.cycle
        return cycle is not None and not cycle.response_complete

    def overdue(self, now: float, head_s: float, unread_s: float) -> bool:
        if self._unread_since_s is not None and now - self._unread_since_s > unread_s:
            return True
        if self.busy or self._inner.cycle is not self._cycle:
            self._cycle, self._since_s = self._inner.cycle, now
        return now - self._since_s > head_s

    def drop(self) -> None:
        self._connections.remove(self, self._address)
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.Transport) -> None:
        peer = transport.get_extra_info("peername")
        self._address = str(peer[0]) if peer else ""
        self._transport = transport
        self._since_s = asyncio.get_running_loop().time()
        self._inner.connection_made(transport)
        if not self._connections.add(self, self._address):
            transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        self._connections.remove(self, self._address)
        self._inner.connection_lost(error)

    def data_received(self, data: bytes) -> None:
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        ended: bool | None = self._inner.eof_received()
        return ended

    def pause_writing(self) -> None:
        self._unread_since_s = asyncio.get_running_loop().time()
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._unread_since_s = None
        self._inner.resume_writing()
