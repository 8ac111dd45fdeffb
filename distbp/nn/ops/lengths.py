"""Rows of different lengths. Steps past the end of a row do not count.

    ends       (rows, 1): the length of each row, a whole number from 0 to `steps`
    by steps   (steps * rows, columns): all rows of step 0, then all rows of step 1, and so on

Step t of row i is past its end if t >= ends[i].
"""

from __future__ import annotations

import numpy as np

from distbp.core.arrays import Array
from distbp.nn.ops.base import Op, Real, Whole, element_ops


def _last(ends: Array, steps: int) -> Array:
    """The last step of each row, (rows,) int64; -1 for length 0. Never outside of the steps, for any ends."""
    last: Array = np.clip(np.nan_to_num(ends[:, 0]), 0, steps).astype(np.int64) - 1
    return last


def _last_id(ids: Array, out: Array, whole: Whole, real: Real) -> None:
    """out (rows, 1) <- the column of ids (rows, n), int64, that stands whole[0] columns before the last."""
    at = ids.shape[1] - 1 - whole[0]
    out[:] = ids[:, at : at + 1]


def _longest(ends: Array, longest: Array, whole: Whole, real: Real) -> None:
    """longest (1, 1), int64 <- the length of the longest row: at least 1, at most whole[0]. If whole[1] is 1,
    a larger number that is already there stays."""
    most = np.int64(min(np.fmax.reduce(ends, axis=None, initial=1), whole[0]))
    longest[:] = max(most, longest[0, 0]) if whole[1] else most


def _end_rows(ends: Array, a: Array, whole: Whole, real: Real) -> None:
    """Sets the rows of a (rows, columns) to 0 for which step whole[0] is past their end. Others stay."""
    a[ends[:, 0] <= whole[0]] = 0


def _take_last(ends: Array, a: Array, out: Array, whole: Whole, real: Real) -> None:
    """out (rows, columns) <- the last step of each row, from a, by steps; 0 for length 0."""
    rows = len(out)
    steps = a.reshape(-1, rows, a.shape[1])
    last = _last(ends, len(steps))
    out[:] = np.where(last[:, None] >= 0, steps[last, np.arange(rows)], 0)


def _put_last(ends: Array, d: Array, out: Array, whole: Whole, real: Real) -> None:
    """out, by steps, <- d (rows, columns) at the last step of each row, 0 at all other steps."""
    rows = len(d)
    out.fill(0)
    steps = out.reshape(-1, rows, d.shape[1])
    last = _last(ends, len(steps))
    there = np.flatnonzero(last >= 0)
    steps[last[there], there] = d[there]


def _mean_steps(a: Array, ends: Array, out: Array, whole: Whole, real: Real) -> None:
    """out (rows, columns) <- the average of a (rows, steps * columns) over the steps before each row's end,
    or over all steps if `ends` is absent; 0 for length 0."""
    steps = a.reshape(len(a), -1, out.shape[1])
    last, sums = _last_or_all(ends, steps), np.zeros_like(out)
    for t in range(steps.shape[1]):
        sums += np.where(t <= last, steps[:, t], 0)
    np.multiply(sums, _share(last, out), out=out)


def _mean_steps_backward(d: Array, ends: Array, out: Array, whole: Whole, real: Real) -> None:
    """out (rows, steps * columns) <- d (rows, columns) / length at the steps before a row's end, else 0."""
    steps = out.reshape(len(d), -1, d.shape[1])
    last = _last_or_all(ends, steps)
    steps[:] = np.where(
        np.arange(steps.shape[1])[:, None] <= last[:, None], (d * _share(last, d))[:, None], 0
    )


def _last_or_all(ends: Array, steps: Array) -> Array:
    """The last step of each row, (rows, 1); the last of all steps if `ends` is absent."""
    count = steps.shape[1]
    return _last(ends, count)[:, None] if len(ends) else np.full((len(steps), 1), count - 1)


def _share(last: Array, like: Array) -> Array:
    """1 / length for each row, (rows, 1) in the dtype of `like`; 1 for length 0."""
    share: Array = (1 / np.maximum(last + 1, 1)).astype(like.dtype)
    return share


_HERE = "distbp.nn.ops.loops_lengths:"
LENGTHS = (
    Op("last_id", "iF", _last_id, f"{_HERE}last_id", "", element_ops(0)),
    Op("longest", "fI", _longest, f"{_HERE}longest", "", element_ops(0)),
    Op("end_rows", "fF", _end_rows, f"{_HERE}end_rows", "", element_ops(0)),
    Op("take_last", "ffF", _take_last, f"{_HERE}take_last", "", element_ops(0)),
    Op("put_last", "ffF", _put_last, f"{_HERE}put_last", "", element_ops(0)),
    Op("mean_steps", "ffF", _mean_steps, f"{_HERE}mean_steps", "step after step"),
    Op("mean_steps_backward", "ffF", _mean_steps_backward, f"{_HERE}mean_steps_backward"),
)
