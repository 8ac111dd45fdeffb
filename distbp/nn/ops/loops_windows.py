"""The ops of `windows`, compiled (Numba, optional)."""

from __future__ import annotations

from typing import Any

import numpy as np

from distbp.machine.jit import inner
from distbp.machine.lanes import LANES
from distbp.machine.scalars import index, larger, smaller
from distbp.machine.structures import address_of
from distbp.machine.window_picks import largest, put_to_largest
from distbp.nn.ops.rows import flat, real, single, whole
from distbp.nn.ops.windows import Windows

_ZERO = np.float32(0)


@inner
def windows_of(row: int) -> Any:
    """The whole numbers of an op, as `Windows`."""
    return Windows(
        whole(row, 0), whole(row, 1), whole(row, 2), whole(row, 3), whole(row, 4), whole(row, 5),
        whole(row, 6), whole(row, 7), whole(row, 8), whole(row, 9), whole(row, 10), whole(row, 11),
        whole(row, 12), whole(row, 13),
    )  # fmt: skip


@inner
def _extent(place: int, stride: int, before: int, kernel: int, dilation: int, size: int) -> Any:
    """For a window along one axis: the place of its first number inside of the image, and how many are."""
    start = place * stride - before
    first = smaller(kernel, larger(0, (-start + dilation - 1) // dilation))
    stop = larger(first, smaller(kernel, (size - start + dilation - 1) // dilation))
    return start + first * dilation, stop - first


@inner
def _rows_of(w: Any, p: int) -> Any:
    """The extent of the windows in row p of the output, from top to bottom."""
    return _extent(p, w.stride_down, w.top, w.kernel_height, w.dilation_down, w.height)


@inner
def _columns_of(w: Any, q: int) -> Any:
    """The extent of the windows in column q of the output, from left to right."""
    return _extent(q, w.stride_right, w.left, w.kernel_width, w.dilation_right, w.width)


def channels_first(row: int, spaces: int, rows: int) -> None:
    a, out = single(row, spaces, rows, 0), single(row, spaces, rows, 1)
    if out.shape[0] == 0:
        return
    places = a.shape[0] // out.shape[0]
    for n in range(out.shape[0]):
        for p in range(places):
            for c in range(a.shape[1]):
                out[n, index(c * places + p)] = a[n * places + p, c]


def channels_last(row: int, spaces: int, rows: int) -> None:
    a, out = single(row, spaces, rows, 0), single(row, spaces, rows, 1)
    if a.shape[0] == 0:
        return
    places = out.shape[0] // a.shape[0]
    for n in range(a.shape[0]):
        for p in range(places):
            for c in range(out.shape[1]):
                out[n * places + p, c] = a[n, index(c * places + p)]


def max_pool(row: int, spaces: int, rows: int) -> None:
    x, y, w = flat(row, spaces, rows, 0), flat(row, spaces, rows, 1), windows_of(row)
    below, beside = 4 * w.dilation_down * w.width * w.channels, 4 * w.dilation_right * w.channels
    to = address_of(y)
    for n in range(single(row, spaces, rows, 0).shape[0]):
        for p in range(w.out_height):
            top, tall = _rows_of(w, p)
            for q in range(w.out_width):
                left, far = _columns_of(w, q)
                at = address_of(x) + 4 * ((n * w.height + top) * w.width + left) * w.channels
                for c in range(0, w.channels, LANES):
                    count = smaller(LANES, w.channels - c)
                    largest(at + 4 * c, below, beside, tall, far, to, count)
                    to += 4 * count


def max_pool_backward(row: int, spaces: int, rows: int) -> None:
    x, dy, dx = flat(row, spaces, rows, 0), flat(row, spaces, rows, 1), flat(row, spaces, rows, 2)
    w = windows_of(row)
    below, beside = 4 * w.dilation_down * w.width * w.channels, 4 * w.dilation_right * w.channels
    for k in range(dx.size):
        dx[k] = _ZERO
    shared = int(
        w.stride_down <= (w.kernel_height - 1) * w.dilation_down
        or w.stride_right <= (w.kernel_width - 1) * w.dilation_right
    )  # whether windows overlap
    d = address_of(dy)
    for n in range(single(row, spaces, rows, 0).shape[0]):
        for p in range(w.out_height):
            top, tall = _rows_of(w, p)
            for q in range(w.out_width):
                left, far = _columns_of(w, q)
                at = 4 * ((n * w.height + top) * w.width + left) * w.channels
                for c in range(0, w.channels, LANES):
                    here, there = address_of(x) + at + 4 * c, address_of(dx) + at + 4 * c
                    count = smaller(LANES, w.channels - c)
                    put_to_largest(here, below, beside, tall, far, d, there, shared, count)
                    d += 4 * count


def average_pool(row: int, spaces: int, rows: int) -> None:
    x, y, factor = flat(row, spaces, rows, 0), flat(row, spaces, rows, 1), np.float32(real(row, 0))
    w, to = windows_of(row), 0
    for n in range(single(row, spaces, rows, 0).shape[0]):
        for p in range(w.out_height):
            top, tall = _rows_of(w, p)
            for q in range(w.out_width):
                left, far = _columns_of(w, q)
                for c in range(w.channels):
                    y[index(to + c)] = _ZERO
                for i in range(tall):
                    for j in range(far):
                        line, column = top + i * w.dilation_down, left + j * w.dilation_right
                        at = ((n * w.height + line) * w.width + column) * w.channels
                        for c in range(w.channels):
                            y[index(to + c)] += x[index(at + c)]
                for c in range(w.channels):
                    y[index(to + c)] *= factor
                to += w.channels


def average_pool_backward(row: int, spaces: int, rows: int) -> None:
    dy, dx, factor = flat(row, spaces, rows, 0), flat(row, spaces, rows, 1), np.float32(real(row, 0))
    w, to = windows_of(row), 0
    for k in range(dx.size):
        dx[k] = _ZERO
    for n in range(single(row, spaces, rows, 1).shape[0]):
        for p in range(w.out_height):
            top, tall = _rows_of(w, p)
            for q in range(w.out_width):
                left, far = _columns_of(w, q)
                for i in range(tall):
                    for j in range(far):
                        line, column = top + i * w.dilation_down, left + j * w.dilation_right
                        at = ((n * w.height + line) * w.width + column) * w.channels
                        for c in range(w.channels):
                            dx[index(at + c)] += dy[index(to + c)] * factor
                to += w.channels
