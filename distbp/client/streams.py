"""Server-sent events as one unbroken stream. After a broken connection, the next one goes on after the number
of the last message."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from distbp.client.transport import Patience, Transport
from distbp.core.errors import RemoteError, UnreachableError

SILENCE_S = 45.0  # the service sends something every 15 s
_AGAIN = (408, 429, 502, 503, 504)


@dataclass(frozen=True)
class Message:
    """`kind`: event, metric, log, progress, end or timeout. `number`: the place in its stream; 0: it has
    none."""

    kind: str
    data: Any
    number: int = 0


def follow(
    transport: Transport, path: str, after: int = 0, *, until: float | None = None
) -> Iterator[Message]:
    """Yields the messages with numbers above `after`, each once and in order. Waits for new ones until the
    job ends; the last message has the kind "end".

    until: a time of the transport's clock, in seconds, at which the stream ends with the kind "timeout".

    Raises UnreachableError if the service is away for longer than the transport's patience, and RemoteError
    if it refuses the request.
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
    """Yields the messages in a stream of bytes, which may be cut anywhere; None for a block without data. An
    incomplete message at the end is dropped (WHATWG HTML, "Server-sent events")."""
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
