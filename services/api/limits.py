"""How much one caller may ask: requests in a time, bytes in a body, streams at once. The clock is given."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import AsyncIterator, Callable

from starlette.requests import Request

from services.api.errors import RateError, SlowError, TooLargeError

_MOST_BUCKETS = 10_000


class Buckets:
    """A token bucket for each key: `burst` requests at once, `rate` in a second in the long run."""

    def __init__(self, rate: float, burst: int, clock: Callable[[], float]) -> None:
        self._rate, self._burst, self._clock = rate, float(burst), clock
        self._levels: dict[str, tuple[float, float]] = {}  # key: (tokens left, when)

    def take(self, key: str) -> None:
        """Raises RateError where `key` has used up what it may."""
        now = self._clock()
        level, then = self._levels.pop(key, (self._burst, now))
        level = min(self._burst, level + (now - then) * self._rate)
        self._levels[key] = (max(level - 1, 0.0) if level >= 1 else level, now)
        if len(self._levels) > _MOST_BUCKETS:
            del self._levels[next(iter(self._levels))]  # the one that was silent the longest
        if level < 1:
            wait = math.ceil((1 - level) / self._rate)
            raise RateError("this token sends too many requests; wait as long as Retry-After says", wait)


class Slots:
    """Streams (or `what`) at once: `total` of all, `each` of one key."""

    def __init__(self, total: int, each: int, what: str = "streams") -> None:
        self._total, self._each, self._what = total, each, what
        self._taken: Counter[str] = Counter()

    @property
    def taken(self) -> int:
        return self._taken.total()

    def take(self, key: str) -> Callable[[], None]:
        """Returns what gives it back (once; more calls do nothing). Raises RateError."""
        if self._taken[key] >= self._each or self.taken >= self._total:
            raise RateError(f"too many {self._what} are open; close some, or try again later", 5)
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


def check_length(request: Request, most: int) -> None:
    """Raises TooLargeError where the request says that its body is larger than `most` bytes."""
    claimed = request.headers.get("content-length", "")
    if claimed.isdecimal() and int(claimed[:20]) > most:
        raise _too_large(most)


async def pieces(request: Request, most: int, idle_s: float) -> AsyncIterator[bytes]:
    """The body as it comes, never more than `most` bytes. Raises TooLargeError, SlowError."""
    check_length(request, most)
    stream, count = request.stream(), 0
    while True:
        try:
            async with asyncio.timeout(idle_s):
                piece = await anext(stream)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise SlowError(f"nothing of the body came for {idle_s:g} s; send it again") from None
        count += len(piece)
        if count > most:
            raise _too_large(most)
        if piece:
            yield piece


def _too_large(most: int) -> TooLargeError:
    return TooLargeError(f"the body is larger than {most:,} bytes, the most that is taken here", "body")
