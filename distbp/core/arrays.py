"""The array types that all of `distbp.nn` speaks of. Dtypes are checked where data enters, not here."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]
Shape = tuple[int, ...]
