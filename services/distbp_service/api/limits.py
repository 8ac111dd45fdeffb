"""Limits callers: rates of requests, simultaneous work and streams, sizes and speeds of bodies."""

from __future__ import annotations

import asyncio
import math
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from starlette.requests import Request

from distbp_service.api.errors import RateError, SlowError, TooLargeError
from distbp_service.store.database import sha256

_MOST_BUCKETS = 10_000


class Buckets:
    """A token bucket for each key: at most `burst` requests at once, and `rate` per second in the long run.
    who: the subject of the error message. clock: returns seconds, monotonic."""

    def __init__(self, rate: float, burst: int, clock: Callable[[], float], who: str) -> None:
        self._rate, self._burst, self._clock, self._who = rate, float(burst), clock, who
        self._levels: dict[str, tuple[float, float]] = {}  # key: (tokens left, when)

    def take(self, key: str) -> None:
        """Takes a token. Raises RateError if the bucket of `key` is empty."""
        now = self._clock()
        level, then = self._levels.pop(key, (self._burst, now))
        level = min(self._burst, level + (now - then) * self._rate)
        self._levels[key] = (max(level - 1, 0.0) if level >= 1 else level, now)
        if len(self._levels) > _MOST_BUCKETS:
            del self._levels[next(iter(self._levels))]  # the key that was idle the longest
        if level < 1:
            wait = math.ceil((1 - level) / self._rate)
            raise RateError(f"{self._who}; wait as long as Retry-After says", wait)


class Slots:
    """Limits simultaneous things: `total` over all keys, `each` for one key. what: their name in error
    messages."""

    def __init__(self, total: int, each: int, what: str) -> None:
        self._total, self._each, self._what = total, each, what
        self._taken: Counter[str] = Counter()

    @property
    def taken(self) -> int:
        return self._taken.total()

    def take(self, key: str) -> Callable[[], None]:
        """Takes a slot and returns the function that gives it back; more calls of it do nothing. Raises
        RateError if no slot is free; does not wait."""
        if self._taken[key] >= self._each or self.taken >= self._total:
            raise RateError(f"too many {self._what}; end some, or try again later", 5)
        self._taken[key] += 1
        open_ = True

        def give_back() -> None:
            nonlocal open_
            if open_:
                open_ = False
                self._taken[key] -= 1
                if not self._taken[key]:
                    del self._taken[key]

        return give_back


class Links:
    """Codes for signing in, each valid once within an hour. clock: returns seconds, monotonic."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._kept: dict[str, tuple[str, float]] = {}  # hash of a code: (token, end of validity)

    def make(self, opens: str) -> str:
        code = secrets.token_urlsafe(32)
        self._kept[sha256(code)] = (opens, self._clock() + 3600.0)
        return code

    def take(self, code: str) -> str | None:
        """The token of a code; None if the code was used, is too old or was never made."""
        opens, until = self._kept.pop(sha256(code), ("", 0.0))
        return opens if opens and self._clock() < until else None


class Turns:
    """Limits simultaneous work: `total` over all keys, `each` for one key. Further work waits, at most
    `waiting` for one key. Keys take turns, so a long line of one key does not delay the others."""

    def __init__(self, total: int, each: int, waiting: int) -> None:
        self._each, self._most = each, each + waiting
        self._all = asyncio.Semaphore(total)
        self._lanes: dict[str, asyncio.Semaphore] = {}
        self._here: Counter[str] = Counter()

    @asynccontextmanager
    async def take(self, key: str) -> AsyncIterator[None]:
        """Waits for a turn and holds it in the block. Raises RateError if too many wait already."""
        if self._here[key] >= self._most:
            raise RateError("too many requests of this project wait already; try again later")
        self._here[key] += 1
        lane = self._lanes.setdefault(key, asyncio.Semaphore(self._each))
        try:
            async with lane, self._all:
                yield
        finally:
            self._here[key] -= 1
            if not self._here[key]:
                del self._here[key], self._lanes[key]


def check_length(request: Request, most: int) -> None:
    """Raises TooLargeError if the Content-Length of the request is above `most` bytes."""
    claimed = request.headers.get("content-length", "")
    if claimed.isdecimal() and int(claimed[:20]) > most:
        raise _too_large(most)


async def pieces(
    request: Request,
    most: int,
    idle_s: float,
    bytes_per_s: float,
    clock: Callable[[], float] = time.monotonic,
) -> AsyncIterator[bytes]:
    """Yields the pieces of a body as they arrive. Raises TooLargeError for more than `most` bytes, and
    SlowError if a piece takes longer than `idle_s` seconds or the average rate is below `bytes_per_s` after
    that time. Only the time of waiting for the client counts."""
    check_length(request, most)
    stream, count, waited_s = request.stream(), 0, 0.0
    while True:
        began = clock()
        left_s = idle_s + count / bytes_per_s - waited_s
        try:
            if left_s <= 0:
                raise TimeoutError
            async with asyncio.timeout(min(idle_s, left_s)):
                piece = await anext(stream)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise SlowError(
                f"the body comes too slowly: {count:,} bytes so far, the last of them {clock() - began:.0f} s"
                f" ago; at least {bytes_per_s:,} bytes a second are wanted, and some of them every"
                f" {idle_s:g} s. Send it again"
            ) from None
        waited_s += clock() - began
        count += len(piece)
        if count > most:
            raise _too_large(most)
        if piece:
            yield piece


def _too_large(most: int) -> TooLargeError:
    return TooLargeError(f"the body is larger than {most:,} bytes, the most that is taken here", "body")
