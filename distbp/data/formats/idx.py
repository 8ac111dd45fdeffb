"""IDX files, the format of MNIST (LeCun, Cortes and Burges), plain (memory-mapped) or gzipped.

Big-endian: two zero bytes, a type code, the number of dimensions, each dimension as uint32, then the data.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from distbp.core.arrays import Array, Shape
from distbp.core.errors import DataError, HostileFileError
from distbp.core.options import option
from distbp.data.formats.base import RowRange
from distbp.data.formats.npy import MAX_DIMENSIONS
from distbp.data.safety import DataFile, check_claim, find
from distbp.data.table import Table, build, check_range
from distbp.data.unpack import GzipReader, Read, read_exactly, read_window

TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def read_header(read: Read, name: str) -> tuple[np.dtype[Any], Shape]:
    """(dtype, shape) of an IDX file. Raises DataError."""
    magic = read_exactly(read, 4, name, "IDX header")
    if magic[:2] != b"\0\0" or magic[2] not in TYPES:
        raise DataError(
            f"{name}: this is not an IDX file (it begins with {magic.hex(' ')}; IDX begins with 00 00 and a"
            f" type from {min(TYPES):02x} to {max(TYPES):02x}); check the path and the format"
        )
    if not 1 <= magic[3] <= MAX_DIMENSIONS:
        raise DataError(f"{name}: an IDX array of {magic[3]} dimensions; 1 to {MAX_DIMENSIONS} are allowed")
    dims = read_exactly(read, 4 * magic[3], name, "IDX header")
    return np.dtype(TYPES[magic[2]]), tuple(int(n) for n in np.frombuffer(dims, dtype=">u4"))


def read_array(file: DataFile, rows: RowRange) -> tuple[Array, int]:
    """Returns rows [start, stop) of the array, and the number of rows in the file. The rows of a plain file
    are mapped, those of a gzipped file are in memory. Raises DataError or HostileFileError."""
    with file.path.open("rb") as handle:
        packed = handle.read(2) == b"\x1f\x8b"
        handle.seek(0)
        read = GzipReader(file, handle).read if packed else handle.read
        dtype, shape = read_header(read, file.name)
        total = math.prod(shape) * dtype.itemsize
        if total == 0:
            raise DataError(f"{file.name}: an array of shape {shape} holds no data; give at least one row")
        offset = 4 + 4 * len(shape)
        if not packed and file.size - offset != total:
            raise HostileFileError(
                f"{file.name}: its header claims an array of shape {shape}, {total:,} bytes, but"
                f" {file.size - offset:,} follow; the file was cut off or the header is wrong"
            )
        if not packed:
            start, stop = check_range(rows, shape[0], file.name)
            return np.memmap(handle, dtype, "r", offset, shape)[start:stop], shape[0]
        check_claim(file.name, total, file.size)
        start, stop = check_range(rows, shape[0], file.name)
        width = total // shape[0]
        flat = read_window(read, start * width, stop * width, total, file.name).view(dtype)
    if not dtype.isnative:
        flat = flat.byteswap(inplace=True).view(dtype.newbyteorder())
    return flat.reshape(stop - start, *shape[1:]), shape[0]


@dataclass(frozen=True, kw_only=True)
class Idx:
    """Images and labels in IDX files."""

    type: Literal["idx"] = "idx"
    images: str = option(help="path of the inputs, plain or .gz", path=True, min_length=1)
    labels: str | None = option(
        None, help="path of the labels, plain or .gz; not needed for prediction", path=True
    )
    rows: tuple[int, int] | None = option(None, help="[first, one past the last] row to use, counted from 0")

    def open(self, folder: Path, confined: bool = False) -> Table:
        file = find(folder, self.images, confined)
        images, count = read_array(file, self.rows)
        labels, marks = None, [file.mark]
        if self.labels is not None:
            file = find(folder, self.labels, confined)
            marks.append(file.mark)
            labels, labelled = read_array(file, None)
            if labelled != count:
                raise DataError(
                    f"{self.labels}: {labelled:,} labels for the {count:,} rows of inputs in {self.images};"
                    " give one for each row"
                )
            start, stop = check_range(self.rows, count, self.images)
            labels = labels[start:stop]
        table = build(images, labels, name=self.images, targets_name=self.labels or "", marks=tuple(marks))
        return table.at_row(self.rows[0]) if self.rows else table
