"""What a file of Arrow claims to unpack to. pyarrow allocates that without a question, so it is looked at
first, in the metadata of each message (Message.fbs of Arrow, in the encoding of FlatBuffers)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

from distbp.data.columns.arrow import arrow

_MAGIC = b"ARROW1"
_FIRST = 8  # where the messages of a file begin; those of a stream begin at 0
_DICTIONARY, _RECORDS = 2, 3  # types of a message's header


def claims(handle: Any) -> Iterator[int]:
    """Of each packed message the bytes that its buffers claim to unpack to. handle: a mapped file. A damaged
    one ends the iteration, or raises pyarrow's errors: who reads it says so."""
    handle.seek(_FIRST if handle.read(len(_MAGIC)) == _MAGIC else 0)
    reader = arrow().ipc.MessageReader.open_stream(handle)
    for message in reader:
        try:
            found = _claimed(memoryview(message.metadata), message.body)
        except struct.error:
            return
        if found:
            yield found


def _claimed(metadata: Any, body: Any) -> int:
    """0 where nothing is packed."""
    message = _u32(metadata, 0)
    kind, header = _field(metadata, message, 1), _follow(metadata, _field(metadata, message, 2))
    number = metadata[kind] if kind is not None and kind < len(metadata) else 0
    if number == _DICTIONARY:
        header = _follow(metadata, _field(metadata, header, 1))
    elif number != _RECORDS:
        return 0
    buffers, packing = _field(metadata, header, 2), _field(metadata, header, 3)
    if packing is None or buffers is None or body is None:
        return 0
    start, held, total = _follow(metadata, buffers), memoryview(body), 0
    for one in range(_u32(metadata, start)):
        offset, length = struct.unpack_from("<qq", metadata, start + 4 + 16 * one)
        if length >= 8:
            size = struct.unpack_from("<q", held, offset)[0]
            total += max(size, length)  # -1: it is not packed
    return total


def _u32(data: Any, at: int) -> int:
    return int(struct.unpack_from("<I", data, at)[0])


def _follow(data: Any, at: int | None) -> int:
    if at is None:
        raise struct.error
    return at + _u32(data, at)


def _field(data: Any, table: int, number: int) -> int | None:
    """Where a field of a table lies; None where it is left out."""
    shape = table - struct.unpack_from("<i", data, table)[0]
    slot = 4 + 2 * number
    if slot >= struct.unpack_from("<H", data, shape)[0]:
        return None
    offset = struct.unpack_from("<H", data, shape + slot)[0]
    return table + offset if offset else None
