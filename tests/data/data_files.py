"""Writers of data files for the tests, good and bad ones."""

from __future__ import annotations

import gzip
import math
import struct
from pathlib import Path

import numpy as np

IDX_CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}


def idx_bytes(array: np.ndarray) -> bytes:
    code = IDX_CODES[f"{array.dtype.kind}{array.dtype.itemsize}"]
    header = struct.pack(f">HBB{array.ndim}I", 0, code, array.ndim, *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


def idx_header(*shape: int, code: int = 0x08) -> bytes:
    return struct.pack(f">HBB{len(shape)}I", 0, code, len(shape), *shape)


def write_idx(path: Path, array: np.ndarray) -> None:
    data = idx_bytes(array)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def npy_header(descr: str = "<f4", shape: tuple[int, ...] = (2, 3), fortran: bool = False) -> bytes:
    return npy_header_text(f"{{'descr': {descr!r}, 'fortran_order': {fortran}, 'shape': {shape!r}, }}")


def npy_header_text(text: str, version: int = 1) -> bytes:
    data = text.encode() + b"\n"
    width = "<H" if version == 1 else "<I"
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack(width, len(data)) + data


def npy_bytes(descr: str = "<f4", shape: tuple[int, ...] = (2, 3)) -> bytes:
    return npy_header(descr, shape) + bytes(math.prod(shape) * int(descr[2:]))
