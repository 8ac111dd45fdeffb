"""Reads packed bytes through a limit: never more than the checked claim, plus one byte."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import BinaryIO

import numpy as np

from distbp.core.arrays import Array
from distbp.core.errors import DataError, HostileFileError
from distbp.data.safety import DataFile

Read = Callable[[int], bytes]
_PIECE = 2**18


class GzipReader:
    """Unpacks a .gz file (of one or more members), at most `count` bytes at a time.

    The standard library's reader scans the header of a member byte by byte in Python, which a hostile file
    can make last for minutes; zlib does it in C. zlib checks length and CRC at the end of each member.
    """

    def __init__(self, file: DataFile, handle: BinaryIO) -> None:
        self._name = file.name
        self._handle = handle
        self._member = zlib.decompressobj(wbits=31)
        self._waiting = b""

    def read(self, count: int) -> bytes:
        """Up to `count` bytes; empty only at the end. Raises DataError if the file is damaged or cut off."""
        while True:
            if not self._waiting:
                self._waiting = self._handle.read(2**16)
            if self._member.eof:
                if not self._waiting:
                    return b""
                self._member = zlib.decompressobj(wbits=31)
            if not self._waiting:
                raise DataError(
                    f"{self._name}: the compressed data is cut off; copy or download the file again"
                )
            try:
                piece = self._member.decompress(self._waiting, count)
            except zlib.error as error:
                raise DataError(
                    f"{self._name}: the compressed data is damaged ({error}); copy or download the file again"
                ) from None
            self._waiting = self._member.unused_data if self._member.eof else self._member.unconsumed_tail
            if piece:
                return piece


def read_exactly(read: Read, count: int, name: str, what: str) -> bytes:
    """Reads `count` bytes, few enough for memory. Raises DataError if the file ends inside its `what`."""
    data = b""
    while len(data) < count:
        piece = read(count - len(data))
        if not piece:
            raise DataError(f"{name}: the file ends inside its {what}; copy or download it again")
        data += piece
    return data


def read_window(read: Read, start: int, stop: int, total: int, name: str) -> Array:
    """Reads the `total` bytes that must follow, and returns bytes [start, stop) of them, as uint8.

    The caller has checked `total` against the limits. Raises DataError when fewer follow, and
    HostileFileError when more do.
    """
    kept = np.empty(stop - start, dtype=np.uint8)
    position = 0
    while position < total:
        edge = next(bound for bound in (start, stop, total) if position < bound)
        piece = read(min(_PIECE, edge - position))
        if not piece:
            raise DataError(
                f"{name}: its header claims {total:,} bytes of data, but only {position:,} follow;"
                " copy or download the file again"
            )
        if start <= position < stop:
            kept[position - start : position - start + len(piece)] = np.frombuffer(piece, dtype=np.uint8)
        position += len(piece)
    if read(1):
        raise HostileFileError(
            f"{name}: more data follows than the {total:,} bytes that its header claims; the header or the"
            " file is wrong, write it again"
        )
    return kept
