"""The types `Array` and `Shape`, and aligned memory for arrays. Dtypes are checked where data enters, not
here."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Shape = tuple[int, ...]


def aligned_bytes(size: int) -> Array:
    """New memory, (size,) uint8, not initialized. Its address is a multiple of 64, so that no vector register
    is loaded across two cache lines."""
    raw = np.empty(size + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size]


def aligned_vector(size: int, dtype: Any) -> Array:
    """A new vector of zeros, (size,) in `dtype`, at an address that is a multiple of 64."""
    vector: Array = aligned_bytes(size * np.dtype(dtype).itemsize).view(dtype)
    vector[:] = 0
    return vector
