"""What a place elsewhere offers under an address."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple


class Content(NamedTuple):
    """`name`: for messages. `size`: in bytes; None where that is not known before the end. `mark`: differs
    wherever the bytes do; "" where nothing tells that. `pieces`: the bytes, which raise DataError where they
    end too early."""

    name: str
    size: int | None
    mark: str
    pieces: Iterator[bytes]
