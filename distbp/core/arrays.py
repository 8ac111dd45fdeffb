"""The array types that all of `distbp.nn` speaks of, and memory for them. Dtypes are checked where data
enters, not here."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Shape = tuple[int, ...]


def aligned_bytes(size: int) -> Array:
    """`size` bytes of new memory that begin at a multiple of 64, as wide vector instructions like it."""
    raw = np.empty(size + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size]


def aligned_vector(size: int, dtype: Any) -> Array:
    """A new flat vector of zeros that begins at a multiple of 64 bytes."""
    vector: Array = aligned_bytes(size * np.dtype(dtype).itemsize).view(dtype)
    vector[:] = 0
    return vector
