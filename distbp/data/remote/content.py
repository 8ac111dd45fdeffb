"""A remote file, as its server offers it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple


class Content(NamedTuple):
    """`name`: the address for messages. `address`: the whole address. `size`: in bytes; None if it is not
    known before the end. `mark`: changes whenever the content changes; "" if the server offers nothing such.
    `pieces`: yields the bytes; raises DataError if they end too early."""

    name: str
    address: str
    size: int | None
    mark: str
    pieces: Iterator[bytes]
