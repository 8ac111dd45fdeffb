"""The ops of `windows`, compiled (Numba, optional)."""

from __future__ import annotations

from typing import Any

import numpy as np

from distbp.core.arrays import Array
from distbp.machine.jit import inner
from distbp.nn.ops.rows import flat, real, single, whole
from distbp.nn.ops.windows import Windows

_ZERO = np.float32(0)
_LOWEST = np.float32(-np.inf)


@inner
def _windows_of(row: int) -> Any:
    """The whole numbers of an op, as `Windows`."""
    return Windows(
        whole(row, 0), whole(row, 1), whole(row, 2), whole(row, 3), whole(row, 4), whole(row, 5),
        whole(row, 6), whole(row, 7), whole(row, 8), whole(row, 9), whole(row, 10), whole(row, 11),
        whole(row, 12), whole(row, 13), whole(row, 14),
    )  # fmt: skip


@inner
def _extent(place: int, stride: int, before: int, kernel: int, dilation: int, size: int) -> Any:
    """Where a window begins along one axis, and its terms [first, stop) that are inside of the image."""
    start = place * stride - before
    first = max(0, (-start + dilation - 1) // dilation)
    stop = min(kernel, (size - start + dilation - 1) // dilation)
    return start, min(first, kernel), max(stop, 0)


@inner
def _rows_of(w: Any, p: int) -> Any:
    """The extent of the windows in row p of the output, from top to bottom."""
    return _extent(p, w.stride_down, w.top, w.kernel_height, w.dilation_down, w.height)


@inner
def _columns_of(w: Any, q: int) -> Any:
    """The extent of the windows in column q of the output, from left to right."""
    return _extent(q, w.stride_right, w.left, w.kernel_width, w.dilation_right, w.width)


@inner
def _copy_window(x: Array, at: int, out: Array, to: int, w: Any, down: Any, right: Any) -> None:
    """Of one channel, that begins at `at`, one window to `to`. down, right: its extents."""
    for i in range(w.kernel_height):
        place = to + i * w.kernel_width
        if i < down[1] or i >= down[2]:
            for j in range(w.kernel_width):
                out[place + j] = _ZERO
            continue
        base = at + (down[0] + i * w.dilation_down) * w.width + right[0]
        for j in range(right[1]):
            out[place + j] = _ZERO
        if w.dilation_right == 1:
            for j in range(right[1], right[2]):
                out[place + j] = x[base + j]
        else:
            for j in range(right[1], right[2]):
                out[place + j] = x[base + j * w.dilation_right]
        for j in range(max(right[1], right[2]), w.kernel_width):
            out[place + j] = _ZERO


def windows(row: int, spaces: int, rows: int) -> None:
    x, out, w = flat(row, spaces, rows, 0), flat(row, spaces, rows, 1), _windows_of(row)
    terms, channel = w.kernel_height * w.kernel_width, w.height * w.width
    to = 0
    for n in range(single(row, spaces, rows, 0).shape[0]):
        for p in range(w.out_height):
            down = _rows_of(w, p)
            for q in range(w.out_width):
                right = _columns_of(w, q)
                for c in range(w.first, w.first + w.looked_at):
                    _copy_window(x, (n * w.channels + c) * channel, out, to, w, down, right)
                    to += terms


def windows_backward(row: int, spaces: int, rows: int) -> None:
    d, dx, w = flat(row, spaces, rows, 0), flat(row, spaces, rows, 1), _windows_of(row)
    terms, channel = w.kernel_height * w.kernel_width, w.height * w.width
    to = 0
    for n in range(single(row, spaces, rows, 1).shape[0]):
        begin = (n * w.channels + w.first) * channel
        for k in range(begin, begin + w.looked_at * channel):
            dx[k] = _ZERO
        for p in range(w.out_height):
            down = _rows_of(w, p)
            for q in range(w.out_width):
                right = _columns_of(w, q)
                for c in range(w.looked_at):
                    at = begin + c * channel + down[0] * w.width + right[0]
                    for i in range(down[1], down[2]):
                        base, place = at + i * w.dilation_down * w.width, to + i * w.kernel_width
                        for j in range(right[1], right[2]):
                            dx[base + j * w.dilation_right] += d[place + j]
                    to += terms


def put_channels(row: int, spaces: int, rows: int) -> None:
    a, out, first = single(row, spaces, rows, 0), single(row, spaces, rows, 1), whole(row, 0)
    if out.shape[0] == 0:
        return
    places = a.shape[0] // out.shape[0]
    for n in range(out.shape[0]):
        for p in range(places):
            for c in range(a.shape[1]):
                out[n, (first + c) * places + p] = a[n * places + p, c]


def take_channels(row: int, spaces: int, rows: int) -> None:
    a, out, first = single(row, spaces, rows, 0), single(row, spaces, rows, 1), whole(row, 0)
    if a.shape[0] == 0:
        return
    places = out.shape[0] // a.shape[0]
    for n in range(a.shape[0]):
        for p in range(places):
            for c in range(out.shape[1]):
                out[n * places + p, c] = a[n, (first + c) * places + p]


@inner
def _largest(x: Array, at: int, w: Any, down: Any, right: Any) -> Any:
    """Where the first of the largest numbers of a window stands, and the number. NaN is larger than any
    number."""
    best, found = _LOWEST, -1
    for i in range(down[1], down[2]):
        base = at + (down[0] + i * w.dilation_down) * w.width + right[0]
        for j in range(right[1], right[2]):
            value = x[base + j * w.dilation_right]
            if found < 0 or value > best or (value != value and best == best):
                best, found = value, base + j * w.dilation_right
    return found, best


def max_pool(row: int, spaces: int, rows: int) -> None:
    x, y, w = flat(row, spaces, rows, 0), flat(row, spaces, rows, 1), _windows_of(row)
    to = 0
    for n in range(single(row, spaces, rows, 0).shape[0] * w.channels):
        for p in range(w.out_height):
            down = _rows_of(w, p)
            for q in range(w.out_width):
                y[to] = _largest(x, n * w.height * w.width, w, down, _columns_of(w, q))[1]
                to += 1


def max_pool_backward(row: int, spaces: int, rows: int) -> None:
    x, dy, dx = flat(row, spaces, rows, 0), flat(row, spaces, rows, 1), flat(row, spaces, rows, 2)
    w = _windows_of(row)
    for k in range(dx.size):
        dx[k] = _ZERO
    to = 0
    for n in range(single(row, spaces, rows, 0).shape[0] * w.channels):
        for p in range(w.out_height):
            down = _rows_of(w, p)
            for q in range(w.out_width):
                found = _largest(x, n * w.height * w.width, w, down, _columns_of(w, q))[0]
                if found >= 0:  # a window in the padding has none
                    dx[found] += dy[to]
                to += 1


def average_pool(row: int, spaces: int, rows: int) -> None:
    x, y, factor = flat(row, spaces, rows, 0), flat(row, spaces, rows, 1), np.float32(real(row, 0))
    w = _windows_of(row)
    to = 0
    for n in range(single(row, spaces, rows, 0).shape[0] * w.channels):
        for p in range(w.out_height):
            down = _rows_of(w, p)
            for q in range(w.out_width):
                right, total = _columns_of(w, q), _ZERO
                at = (n * w.height + down[0]) * w.width + right[0]
                for i in range(down[1], down[2]):
                    base = at + i * w.dilation_down * w.width
                    for j in range(right[1], right[2]):
                        total += x[base + j * w.dilation_right]
                y[to] = total * factor
                to += 1


def average_pool_backward(row: int, spaces: int, rows: int) -> None:
    dy, dx, factor = flat(row, spaces, rows, 0), flat(row, spaces, rows, 1), np.float32(real(row, 0))
    w = _windows_of(row)
    for k in range(dx.size):
        dx[k] = _ZERO
    to = 0
    for n in range(single(row, spaces, rows, 1).shape[0] * w.channels):
        for p in range(w.out_height):
            down = _rows_of(w, p)
            for q in range(w.out_width):
                right = _columns_of(w, q)
                at = (n * w.height + down[0]) * w.width + right[0]
                for i in range(down[1], down[2]):
                    base = at + i * w.dilation_down * w.width
                    for j in range(right[1], right[2]):
                        dx[base + j * w.dilation_right] += dy[to] * factor
                to += 1
