"""A file as a place elsewhere offers it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple


class Content(NamedTuple):
    """`name`: the address for messages. `address`: all of it. `size`: in bytes; None where that is not known
    before the end. `mark`: differs wherever the bytes do; "" where nothing tells that. `pieces`: the bytes,
    which raise DataError where they end too early."""

    name: str
    address: str
    size: int | None
    mark: str
    pieces: Iterator[bytes]
