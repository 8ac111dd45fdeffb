"""NumPy's .npy files, memory-mapped. (Format: numpy.lib.format, versions 1.0 to 3.0.)

This module reads the header itself, so that NumPy allocates or unpickles nothing that a hostile header
claims.
"""

from __future__ import annotations

import ast
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from distbp.core.arrays import Array, Shape
from distbp.core.errors import DataError, HostileFileError
from distbp.core.options import option
from distbp.data.safety import DataFile, find
from distbp.data.table import Table, build, check_real
from distbp.data.unpack import Read, read_exactly

MAX_HEADER_BYTES = 10_000  # NumPy's own limit; headers of plain arrays take 128 bytes
MAX_DIMENSIONS = 8


class Header(NamedTuple):
    dtype: np.dtype[Any]
    shape: Shape
    fortran: bool
    offset: int  # where the data begins

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def read_header(read: Read, name: str) -> Header:
    """Reads a .npy header through `read`. Raises DataError for what is not a plain array of numbers."""
    start = read_exactly(read, 8, name, ".npy header")
    if start[:6] != b"\x93NUMPY":
        raise DataError(
            f"{name}: this is not a .npy file (it begins with {start[:6]!r}); write it with numpy.save"
        )
    if start[6] not in (1, 2, 3):
        raise DataError(f"{name}: .npy version {start[6]} is not known; write it with numpy.save")
    width = 2 if start[6] == 1 else 4
    length = int.from_bytes(read_exactly(read, width, name, ".npy header"), "little")
    if length > MAX_HEADER_BYTES:
        raise HostileFileError(
            f"{name}: its .npy header claims {length:,} bytes; at most {MAX_HEADER_BYTES:,} are allowed."
            " Write a plain array with numpy.save"
        )
    text = read_exactly(read, length, name, ".npy header").decode(
        "utf-8" if start[6] == 3 else "latin-1", "replace"
    )
    try:
        fields = ast.literal_eval(text.strip())
        descr, fortran, shape = fields["descr"], fields["fortran_order"], fields["shape"]
        if len(fields) != 3 or not isinstance(fortran, bool) or not isinstance(shape, tuple):
            raise ValueError
        if not all(type(n) is int and 0 <= n < 2**63 for n in shape):
            raise ValueError
    except (ValueError, TypeError, KeyError, SyntaxError, SyntaxWarning, RecursionError, MemoryError):
        raise DataError(f"{name}: its .npy header is damaged; write the file again with numpy.save") from None
    if len(shape) > MAX_DIMENSIONS:
        raise DataError(f"{name}: an array of {len(shape)} dimensions; at most {MAX_DIMENSIONS} are allowed")
    return Header(_dtype(descr, name), shape, fortran, 8 + width + length)


def _dtype(descr: Any, name: str) -> np.dtype[Any]:
    if isinstance(descr, list):
        raise DataError(
            f"{name}: a structured array (columns of several types); save plain numbers, for example with"
            " numpy.lib.recfunctions.structured_to_unstructured"
        )
    if not isinstance(descr, str) or not re.fullmatch(
        r"[<>|=]?[a-zA-Z?][0-9]{0,9}(\[[a-zA-Z0-9]{1,9}\])?", descr
    ):
        raise DataError(f"{name}: its .npy header is damaged; write the file again with numpy.save")
    if descr[-1:] == "O" or descr[1:2] == "O":
        raise HostileFileError(
            f"{name}: an array of Python objects, which only unpickling could read, and a pickle can run any"
            " program; save an array of numbers"
        )
    try:
        dtype = np.dtype(descr)
    except (TypeError, ValueError):
        raise DataError(f"{name}: values of the unknown type {descr!r}; save an array of numbers") from None
    check_real(dtype, name, text=True)  # labels may be text
    return dtype


def map_array(file: DataFile) -> Array:
    """The array in a .npy file, memory-mapped and read-only. Raises DataError or HostileFileError if the
    header does not fit the file."""
    with file.path.open("rb") as handle:
        header = read_header(handle.read, file.name)
        there = file.size - header.offset
        if header.nbytes > there:
            raise HostileFileError(
                f"{file.name}: its header claims an array of shape {header.shape}, {header.nbytes:,} bytes,"
                f" but {there:,} follow; the file was cut off or the header is wrong, write it again"
            )
        if header.nbytes < there:
            raise DataError(
                f"{file.name}: {there - header.nbytes:,} bytes follow after the array that its header"
                " describes; write one array to one file with numpy.save"
            )
        if header.nbytes == 0:
            raise DataError(
                f"{file.name}: an array of shape {header.shape} holds no data; give at least one row"
            )
        order: Literal["F", "C"] = "F" if header.fortran else "C"
        return np.memmap(handle, header.dtype, "r", header.offset, header.shape, order)


@dataclass(frozen=True, kw_only=True)
class Npy:
    """Arrays in .npy files, memory-mapped, so they may be larger than memory."""

    type: Literal["npy"] = "npy"
    inputs: str = option(help="path of the inputs, an array (rows, features...)", path=True, min_length=1)
    targets: str | None = option(None, help="path of the labels (rows,) or values (rows, outputs)", path=True)
    weights: str | None = option(None, help="path of the sample weights (rows,)", path=True)
    lengths: str | None = option(
        None, help="path of the lengths (rows,): how many steps of each row are not padding", path=True
    )
    rows: tuple[int, int] | None = option(None, help="[first, one past the last] row to use, counted from 0")

    def open(self, folder: Path, confined: bool = False) -> Table:
        def file(path: str | None) -> DataFile | None:
            return None if path is None else find(folder, path, confined)

        inputs = find(folder, self.inputs, confined)
        others = [file(path) for path in (self.targets, self.weights, self.lengths)]
        targets, weights, lengths = (None if other is None else map_array(other) for other in others)
        return build(
            map_array(inputs),
            targets,
            weights,
            lengths,
            rows=self.rows,
            marks=tuple(other.mark for other in (inputs, *others) if other is not None),
            name=self.inputs,
            targets_name=self.targets or "",
            weights_name=self.weights or "",
        )
