"""The metrics of a run as columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from distbp.core.arrays import Array


class Metrics(Mapping[str, Array]):
    """Maps a name (`train_loss`, `validation_accuracy`, `step`, ...) to an array with one value for each line
    of metrics.jsonl: float64, NaN where nothing was measured; `step` and `epoch` are int64. `rows`: the lines
    themselves, with everything that was recorded."""

    def __init__(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self.rows = tuple(rows)
        self._columns = _columns(self.rows)

    def __getitem__(self, name: str) -> Array:
        try:
            return self._columns[name]
        except KeyError:
            raise KeyError(f"{name!r} was not measured; there are: {', '.join(self._columns)}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)

    def __eq__(self, other: object) -> bool:
        """Whether all columns are equal, to the bit; NaN equals NaN."""
        if not isinstance(other, Metrics):
            return NotImplemented
        same = self.keys() == other.keys()
        return same and all(np.array_equal(self[name], other[name], equal_nan=True) for name in self)

    __hash__ = None  # type: ignore[assignment]  # it holds arrays

    def __repr__(self) -> str:
        return f"Metrics({len(self.rows)} rows: {', '.join(self._columns)})"

    def to_frame(self) -> Any:
        """A pandas DataFrame, indexed by step. Raises ImportError if pandas is not installed."""
        try:
            import pandas
        except ImportError:
            raise ImportError("to_frame() needs pandas; run: pip install pandas") from None
        frame = pandas.DataFrame(dict(self._columns))
        return frame.set_index("step") if "step" in frame else frame


def _columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, Array]:
    names: dict[str, None] = {}
    for row in rows:
        for name, value in row.items():
            if value is None or is_number(value):  # null is NaN
                names[name] = None
    columns: dict[str, Array] = {}
    for name in names:
        values = [row.get(name) for row in rows]
        if all(isinstance(value, int) and not isinstance(value, bool) for value in values):
            columns[name] = np.array(values, np.int64)
        else:
            columns[name] = np.array([v if is_number(v) else np.nan for v in values], np.float64)
    return columns


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
