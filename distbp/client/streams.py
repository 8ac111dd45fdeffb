"""Server-sent events, as one unbroken stream: when a connection breaks, the next goes on after the last
number."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from distbp.client.transport import Patience, Transport
from distbp.core.errors import RemoteError, UnreachableError

SILENCE_S = 45.0  # the service gives a sign every 15 s
_AGAIN = (408, 429, 502, 503, 504)


@dataclass(frozen=True)
class Message:
    """`kind`: event, metric, log, progress, end or timeout. `number`: 0 where it has none."""

    kind: str
    data: Any
    number: int = 0


def follow(
    transport: Transport, path: str, after: int = 0, *, until: float | None = None
) -> Iterator[Message]:
    """Messages after a number, each once and in order, to the end of the job (then the kind is "end").

    until: a moment of the transport's clock at which it ends, with the kind "timeout".

    Raises UnreachableError where the service stays away for longer than the transport's patience, and
    RemoteError where it refuses.
    """
    patience = Patience(transport)
    while True:
        left = SILENCE_S if until is None else min(SILENCE_S, until - transport.clock())
        if left <= 0:
            yield Message("timeout", None)
            return
        failure: RemoteError = UnreachableError(f"the service at {transport.access.url} hung up; try again")
        headers = {"Last-Event-ID": str(after)} if after else {}
        try:
            with transport.open(path, headers=headers, timeout=transport.timeout(left)) as answer:
                for message in parse(answer.iter_bytes()):
                    patience.renew()
                    if until is not None and transport.clock() >= until:
                        break
                    if message is None or (message.number and message.number <= after):
                        continue
                    after = max(after, message.number)
                    yield message
                    if message.kind == "end":
                        return
        except UnreachableError as error:
            if not transport.met:
                raise
            failure = error
        except RemoteError as error:
            if error.status not in _AGAIN:
                raise
            failure = error
        if until is None or transport.clock() < until:
            patience.wait(failure)


def parse(pieces: Iterable[bytes]) -> Iterator[Message | None]:
    """The messages in a stream of bytes, however it is cut; None for a comment or advice. A message whose end
    did not come is none (WHATWG HTML, "Server-sent events")."""
    rest = b""
    for piece in pieces:
        rest += piece
        *whole, rest = rest.split(b"\n\n")
        yield from (_message(text) for text in whole)


def _message(text: bytes) -> Message | None:
    found = {}
    for line in text.split(b"\n"):
        name, _, value = line.partition(b":")
        found[name] = value.removeprefix(b" ")
    if b"data" not in found:
        return None
    number = found.get(b"id", b"0")
    return Message(found.get(b"event", b"message").decode(), json.loads(found[b"data"]), int(number))
