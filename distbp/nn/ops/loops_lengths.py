"""The ops of `lengths`, compiled (Numba, optional)."""

from __future__ import annotations

import numpy as np

from distbp.machine.scalars import larger, smaller
from distbp.nn.ops.rows import flat, labels, single, whole

_ZERO = np.float32(0)


def last_id(row: int, spaces: int, rows: int) -> None:
    ids, out = labels(row, spaces, rows, 0), single(row, spaces, rows, 1)
    at = ids.shape[1] - 1 - whole(row, 0)
    for i in range(out.shape[0]):
        out[i, 0] = np.float32(ids[i, at])


def longest(row: int, spaces: int, rows: int) -> None:
    ends, out = single(row, spaces, rows, 0), labels(row, spaces, rows, 1)
    most = larger(np.int64(1), out[0, 0] * whole(row, 1))
    for i in range(ends.shape[0]):
        most = larger(most, np.int64(smaller(ends[i, 0], np.float32(whole(row, 0)))))
    out[0, 0] = most


def end_rows(row: int, spaces: int, rows: int) -> None:
    ends, a = single(row, spaces, rows, 0), single(row, spaces, rows, 1)
    step = whole(row, 0)
    for i in range(a.shape[0]):
        if ends[i, 0] <= step:
            for j in range(a.shape[1]):
                a[i, j] = _ZERO


def take_last(row: int, spaces: int, rows: int) -> None:
    ends, a, out = single(row, spaces, rows, 0), single(row, spaces, rows, 1), single(row, spaces, rows, 2)
    count = out.shape[0]
    steps = a.shape[0] // larger(1, count)
    for i in range(count):
        end = smaller(np.int64(ends[i, 0]), steps)  # inside the steps for any length
        if end > 0:
            for j in range(out.shape[1]):
                out[i, j] = a[(end - 1) * count + i, j]
        else:
            for j in range(out.shape[1]):
                out[i, j] = _ZERO


def put_last(row: int, spaces: int, rows: int) -> None:
    ends, d, out = single(row, spaces, rows, 0), single(row, spaces, rows, 1), single(row, spaces, rows, 2)
    everything, count = flat(row, spaces, rows, 2), d.shape[0]
    steps = out.shape[0] // larger(1, count)
    for k in range(everything.size):
        everything[k] = _ZERO
    for i in range(count):
        end = smaller(np.int64(ends[i, 0]), steps)
        if end > 0:
            for j in range(d.shape[1]):
                out[(end - 1) * count + i, j] = d[i, j]


def mean_steps(row: int, spaces: int, rows: int) -> None:
    a, ends, out = single(row, spaces, rows, 0), single(row, spaces, rows, 1), single(row, spaces, rows, 2)
    columns = out.shape[1]
    steps = a.shape[1] // columns
    for i in range(out.shape[0]):
        end = smaller(np.int64(ends[i, 0]), steps) if ends.shape[0] else steps
        share = np.float32(1 / larger(end, 1))
        for j in range(columns):
            out[i, j] = _ZERO
        for t in range(end):
            for j in range(columns):
                out[i, j] += a[i, t * columns + j]
        for j in range(columns):
            out[i, j] *= share


def mean_steps_backward(row: int, spaces: int, rows: int) -> None:
    d, ends, out = single(row, spaces, rows, 0), single(row, spaces, rows, 1), single(row, spaces, rows, 2)
    columns = d.shape[1]
    steps = out.shape[1] // columns
    for i in range(d.shape[0]):
        end = smaller(np.int64(ends[i, 0]), steps) if ends.shape[0] else steps
        share = np.float32(1 / larger(end, 1))
        for t in range(steps):
            for j in range(columns):
                out[i, t * columns + j] = d[i, j] * share if t < end else _ZERO
