"""The unpacked sizes that an Arrow file claims. pyarrow allocates these sizes without a check, so they are
read first from the metadata of each message (Arrow's Message.fbs, encoded as FlatBuffers)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

from distbp.data.columns.arrow import arrow

_MAGIC = b"ARROW1"
_FIRST = 8  # the offset of a file's first message; a stream's is at 0
_DICTIONARY, _RECORDS = 2, 3  # types of a message's header


def claims(handle: Any) -> Iterator[int]:
    """Yields the claimed unpacked bytes of each compressed message. handle: a mapped file. A damaged file
    ends the iteration or raises pyarrow's errors; the later reading reports the damage."""
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
    """The claimed unpacked bytes of a message; 0 if it is not compressed."""
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
            total += max(size, length)  # a length of -1: the buffer is not compressed
    return total


def _u32(data: Any, at: int) -> int:
    return int(struct.unpack_from("<I", data, at)[0])


def _follow(data: Any, at: int | None) -> int:
    if at is None:
        raise struct.error
    return at + _u32(data, at)


def _field(data: Any, table: int, number: int) -> int | None:
    """The offset of a field of a table; None if the field is absent."""
    shape = table - struct.unpack_from("<i", data, table)[0]
    slot = 4 + 2 * number
    if slot >= struct.unpack_from("<H", data, shape)[0]:
        return None
    offset = struct.unpack_from("<H", data, shape + slot)[0]
    return table + offset if offset else None
