"""Columns in memory as numbers: the values of one, or the codes of its levels. Large ones are mapped from
unnamed temporary files, so that a table need not fit in memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np

from distbp.core.arrays import Array
from distbp.data.columns import cells as c
from distbp.data.table import release_pages

KEPT_BYTES = 64 * 2**20  # of all columns of a table; the rest goes to files
CHUNK_ROWS = 65_536  # part of the numerics: statistics are added up chunk by chunk


@dataclass
class Room:
    """How many bytes of columns may still be kept in memory."""

    left: int = KEPT_BYTES


@dataclass
class _Growing:
    dtype: Any
    room: Room
    pieces: list[Array] = field(default_factory=list)
    file: IO[bytes] | None = None
    count: int = 0

    def append(self, values: Array) -> None:
        values = np.ascontiguousarray(values, self.dtype)
        self.count += len(values)
        self.room.left -= values.nbytes
        if self.room.left < 0 and self.file is None:
            self.file = tempfile.TemporaryFile()  # noqa: SIM115 - the mapping keeps it
            for piece in self.pieces:
                self.file.write(piece.data)
                self.room.left += piece.nbytes
            self.pieces = []
        if self.file is None:
            self.pieces.append(values)
        else:
            self.file.write(values.data)
            self.room.left += values.nbytes

    def whole(self) -> Array:
        if self.file is None:
            return np.concatenate(self.pieces) if self.pieces else np.empty(0, self.dtype)
        with self.file as file:  # the mapping keeps the space; it is freed with the array
            file.flush()
            return np.memmap(file, dtype=self.dtype, mode="r", shape=(self.count,))


@dataclass(frozen=True, eq=False)
class Column:
    """`values`: (n,) float64, NaN where missing; or (n,) int32, numbers of `levels`, -1 where missing.
    `levels`: sorted, so that they do not depend on how the table was cut."""

    values: Array
    levels: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.values)

    def chunks(self, rows: Array) -> Iterator[Array]:
        """The values of `rows`, in pieces of `CHUNK_ROWS`."""
        for start in range(0, len(rows), CHUNK_ROWS):
            yield self.values[rows[start : start + CHUNK_ROWS]]
            release_pages(self.values)


class Gathering:
    """A column that is being read. `reads`: number, date, boolean or level."""

    def __init__(self, reads: str, room: Room, numeric: bool = False) -> None:
        self.reads, self.numeric = reads, numeric
        self._grown = _Growing(np.int32 if reads == "level" else np.float64, room)
        self._codes: dict[str, int] = {}

    def append(self, piece: Any) -> tuple[Array, Array | None]:
        """Takes cleaned cells; returns their values (or codes), and which of them are bad."""
        values, levels, bad = read_cells(piece, self.reads, self.numeric)
        if levels is not None:
            known = self._codes
            of = np.array([known.setdefault(level, len(known)) for level in levels], np.int32)
            values = np.append(of, np.int32(-1))[values]
        self._grown.append(values)
        return values, bad

    def column(self, keep: Array | None = None) -> Column:
        """What was read, without the rows that are not in `keep`."""
        values = self._grown.whole()
        if self.reads == "level":
            levels = sorted(self._codes)
            place = np.empty(len(levels) + 1, np.int32)
            place[[self._codes[level] for level in levels]] = np.arange(len(levels), dtype=np.int32)
            place[-1] = -1
            again = _Growing(np.int32, Room())
            for start in range(0, len(values), CHUNK_ROWS):
                again.append(place[values[start : start + CHUNK_ROWS]])
                release_pages(values)
            values = again.whole()
            return Column(values if keep is None else values[keep], tuple(levels))
        return Column(values if keep is None else values[keep])


def read_cells(
    piece: Any, reads: str, numeric: bool = False
) -> tuple[Array, Sequence[str] | None, Array | None]:
    """Of cleaned cells the values (float64, or whole numbers of the levels that are returned, -1 where
    missing), the levels, and which cells are bad."""
    if reads != "level":
        values, bad = {"number": c.as_numbers, "date": c.as_dates, "boolean": c.as_booleans}[reads](piece)
        return values, None, bad
    text, bad = c.as_levels(piece, numeric)
    coded = text.dictionary_encode()
    codes = np.asarray(coded.indices.fill_null(-1).to_numpy(zero_copy_only=False))
    return codes, coded.dictionary.to_pylist(), bad
