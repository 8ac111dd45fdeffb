"""Stores columns as numbers: values, or codes of levels. Large columns are mapped from unnamed temporary
files, so a table need not fit in memory."""

from __future__ import annotations

import contextlib
import math
import mmap
import os
import tempfile
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from distbp.core.arrays import Array
from distbp.data.columns import cells as c
from distbp.data.table import release_pages
from distbp.machine.memory import mapped

KEPT_BYTES = 32 * 2**20  # of a table's columns in memory; the rest is in files
CHUNK_ROWS = 65_536  # this decides the bits of statistics, which are summed chunk by chunk


@dataclass
class MemoryRoom:
    """The number of bytes that columns may still use in memory."""

    left: int = KEPT_BYTES


@dataclass
class Growing:
    """A column to which values are appended: in memory while there is `room`, else in a file."""

    dtype: Any
    room: MemoryRoom
    pieces: list[Array] = field(default_factory=list)
    file: IO[bytes] | None = None
    count: int = 0

    def append(self, values: Array) -> None:
        values = np.ascontiguousarray(values, self.dtype)
        self.count += len(values)
        self.room.left -= values.nbytes
        if self.room.left < 0 and self.file is None:
            self.file = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the object
            weakref.finalize(self, self.file.close)  # also where reading ends with an error
            for piece in self.pieces:
                self.file.write(piece.data)
                self.room.left += piece.nbytes
            self.pieces = []
        if self.file is None:
            self.pieces.append(values)
        else:
            self.file.write(values.data)
            self.room.left += values.nbytes

    def column(self, levels: tuple[str, ...] | None = None) -> Column:
        """The column with all appended values."""
        if self.file is None:
            return Column(np.concatenate(self.pieces) if self.pieces else np.empty(0, self.dtype), levels)
        with self.file as file:  # the mapping keeps the space; it is freed with the column
            file.flush()
            values: Any = np.memmap(file, dtype=self.dtype, mode="r+", shape=(self.count,))
        values.flags.writeable = False
        return Column(values, levels, values.base)


@dataclass(frozen=True, eq=False)
class Column:
    """`values`: (n,) float64, NaN for missing cells; or (n,) int32, indices of `levels`, -1 for missing
    cells. `levels`: in an order that depends on the pieces of the table; some may have no rows. `mapping`:
    the writable mapping of the unnamed file in which `values` lie; None: they are in memory."""

    values: Array
    levels: tuple[str, ...] | None = None
    mapping: mmap.mmap | None = None

    def __len__(self) -> int:
        return len(self.values)

    def chunks(self, rows: Array | None = None, step: int = CHUNK_ROWS) -> Iterator[Array]:
        """Yields the values in pieces of `step` rows of the table. rows: (n,) bool, the rows to take of each
        piece; None: all."""
        for start in range(0, len(self.values), step):
            part = self.values[start : start + step]
            yield part if rows is None else np.compress(rows[start : start + step], part)
            release_pages(self.values)

    def free_rows(self, rows: slice) -> None:
        """Frees the space of these rows of a column in a file, so that what is written next takes pages that
        were used just now: a virtual machine is slow to provide others. rows: they begin at a multiple of
        `CHUNK_ROWS`, and are 0 from now on. Columns in memory stay as they are."""
        if self.mapping is not None and hasattr(mmap, "MADV_REMOVE"):
            size, stop = self.values.itemsize, min(rows.stop, len(self.values))
            with contextlib.suppress(OSError):  # the file system cannot free a part of a file
                self.mapping.madvise(mmap.MADV_REMOVE, rows.start * size, (stop - rows.start) * size)

    def classes(self) -> Array:
        """(n,) indices of the distinct values that occur, in ascending order of the values; -1 for a missing
        level."""
        number_of: Callable[[Array], Array]
        if self.levels is None:
            distinct = np.empty(0)
            for part in self.chunks():
                distinct = np.union1d(distinct, part)
            count, number_of = len(distinct), lambda part: np.searchsorted(distinct, part)
        else:
            counts = np.zeros(len(self.levels) + 1, np.int64)
            for part in self.chunks():
                counts += np.bincount(part + 1, minlength=len(counts))
            there = sorted(np.flatnonzero(counts[1:]).tolist(), key=self.levels.__getitem__)
            place = np.full(len(self.levels) + 1, -1)
            place[there] = np.arange(len(there))
            count, number_of = len(there), place.__getitem__
        found = np.empty(len(self), np.int16 if count < 1 << 15 else np.int32)
        start = 0
        for part in self.chunks():
            found[start : start + len(part)] = number_of(part)
            start += len(part)
        return found


class WrittenRows:
    """Rows of a split, written piece by piece from any thread. They are in memory up to `limit` bytes, else
    in a new file at `path` (None: in an unnamed temporary file)."""

    def __init__(self, shape: tuple[int, ...], dtype: Any, limit: int, path: Path | None = None) -> None:
        self._shape, self._dtype = shape, np.dtype(dtype)
        self._row_bytes = self._dtype.itemsize * math.prod(shape[1:])
        self._file: IO[bytes] | None = None
        if shape[0] * self._row_bytes <= limit:
            self._array = np.empty(shape, dtype)
        else:
            # The mapping keeps the file.
            self._file = tempfile.TemporaryFile() if path is None else path.open("x+b")  # noqa: SIM115

    def put(self, start: int, part: Array) -> None:
        """Writes the rows from number `start` on."""
        if self._file is None:
            self._array[start : start + len(part)] = part
            return
        bytes_of = np.ascontiguousarray(part, self._dtype).reshape(-1).view(np.uint8)  # also for text
        view, place = bytes_of.data, start * self._row_bytes
        while len(view):
            done = os.pwrite(self._file.fileno(), view, place)
            view, place = view[done:], place + done

    def whole(self) -> Array:
        """All rows. Call it after each row was written."""
        if self._file is None:
            return self._array
        with self._file as file:  # the mapping keeps the space; it is freed with the array
            return np.asanyarray(mapped(file, self._shape, self._dtype))


class Levels:
    """Numbers the texts of a column from 0, in the order in which they are found."""

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}
        self._before: Any = None  # the texts of the last dictionary, and their numbers
        self._place: Array = np.empty(0, np.int32)

    def __len__(self) -> int:
        return len(self._codes)

    def whole(self) -> tuple[str, ...]:
        """The texts in the order of their numbers."""
        return tuple(self._codes)

    def numbered(self, texts: Sequence[str | None]) -> Array:
        """The numbers of texts, int32; -1 for None. New texts get new numbers."""
        known = self._codes
        return np.array([-1 if one is None else known.setdefault(one, len(known)) for one in texts], np.int32)

    def of(self, piece: c.Coded) -> Array:
        """The numbers of a piece's cells, int32; -1 for missing cells. A dictionary is numbered once."""
        if piece.texts is not self._before:
            self._before, self._place = piece.texts, self.numbered(piece.texts.to_pylist())
        return piece.map(self._place, -1)


class GrowingColumn:
    """A column that is being read. `reads`: number, date, boolean or level."""

    def __init__(self, reads: str, room: MemoryRoom, numeric: bool = False) -> None:
        self.reads, self.numeric = reads, numeric
        self._grown = Growing(np.int32 if reads == "level" else np.float64, room)
        self._levels, self._before = Levels(), None

    def append(self, cells: Any, missing: Sequence[str]) -> tuple[Array, Array | None]:
        """Appends cells. Returns their values or codes, and which of them are bad (None: none)."""
        piece = self._before = c.cleaned(cells, missing, self._before)
        if isinstance(piece, c.Coded) and self.reads == "level" and not self.numeric:
            values, bad = self._levels.of(piece), None
        else:
            values, levels, bad = read_cells(piece, self.reads, self.numeric)
            if levels is not None:
                values = np.append(self._levels.numbered(levels), np.int32(-1))[values]
        self._grown.append(values)
        return values, bad

    def column(self) -> Column:
        """The column with all appended cells."""
        return self._grown.column(self._levels.whole() if self.reads == "level" else None)


def read_cells(
    piece: Any, reads: str, numeric: bool = False
) -> tuple[Array, Sequence[str] | None, Array | None]:
    """Reads cleaned cells. Returns their values (float64, or indices of the levels, -1 for missing cells),
    the levels (None unless `reads` is "level"), and which cells are bad (None: none)."""
    if isinstance(piece, c.Coded):
        values, levels, bad = read_cells(piece.texts, reads, numeric)
        bad = None if bad is None else piece.map(bad, False)
        values = piece.map(values, -1 if reads == "level" else np.nan)
        return values, levels, bad if bad is not None and bad.any() else None
    if reads != "level":
        values, bad = {"number": c.as_numbers, "date": c.as_dates, "boolean": c.as_booleans}[reads](piece)
        return values, None, bad
    text, bad = c.as_levels(piece, numeric)
    coded = text.dictionary_encode()
    codes = np.asarray(coded.indices.fill_null(-1).to_numpy(zero_copy_only=False))
    return codes, coded.dictionary.to_pylist(), bad
