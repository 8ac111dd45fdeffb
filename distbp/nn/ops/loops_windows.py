"""The ops of `windows`, compiled (Numba, optional)."""

from __future__ import annotations

from typing import Any

import numpy as np

from distbp.nn.arrays import Array
from distbp.nn.jit import jit
from distbp.nn.ops.rows import flat, real, single, whole

_ZERO = np.float32(0)
_LOWEST = np.float32(-np.inf)


@jit
def _extent(place: int, stride: int, before: int, kernel: int, dilation: int, size: int) -> Any:
    """Where a window begins along one axis, and its terms [first, stop) that are inside of the image."""
    start = place * stride - before
    first = max(0, (-start + dilation - 1) // dilation)
    stop = min(kernel, (size - start + dilation - 1) // dilation)
    return start, min(first, kernel), max(stop, 0)


@jit
def _copy_window(
    x: Array,
    at: int,
    out: Array,
    to: int,
    width: int,
    kernel: tuple[int, int],
    down: tuple[int, int, int],
    right: tuple[int, int, int],
    dilation: tuple[int, int],
) -> None:
    """Of one channel, that begins at `at`, one window to `to`. down, right: see `_extent`."""
    for i in range(kernel[0]):
        place = to + i * kernel[1]
        if i < down[1] or i >= down[2]:
            for j in range(kernel[1]):
                out[place + j] = _ZERO
            continue
        base = at + (down[0] + i * dilation[0]) * width + right[0]
        for j in range(right[1]):
            out[place + j] = _ZERO
        if dilation[1] == 1:
            for j in range(right[1], right[2]):
                out[place + j] = x[base + j]
        else:
            for j in range(right[1], right[2]):
                out[place + j] = x[base + j * dilation[1]]
        for j in range(max(right[1], right[2]), kernel[1]):
            out[place + j] = _ZERO


def windows(row: int, spaces: int, rows: int) -> None:
    x, out = flat(row, spaces, rows, 0), flat(row, spaces, rows, 1)
    channels, height, width, first, count = (
        whole(row, 0),
        whole(row, 1),
        whole(row, 2),
        whole(row, 3),
        whole(row, 4),
    )
    kernel, stride = (whole(row, 5), whole(row, 6)), (whole(row, 7), whole(row, 8))
    before, dilation, size = (
        (whole(row, 9), whole(row, 10)),
        (whole(row, 11), whole(row, 12)),
        (whole(row, 13), whole(row, 14)),
    )
    terms, image = kernel[0] * kernel[1], channels * height * width
    to = 0
    for n in range(single(row, spaces, rows, 0).shape[0]):
        for p in range(size[0]):
            down = _extent(p, stride[0], before[0], kernel[0], dilation[0], height)
            for q in range(size[1]):
                right = _extent(q, stride[1], before[1], kernel[1], dilation[1], width)
                for c in range(count):
                    at = n * image + (first + c) * height * width
                    _copy_window(x, at, out, to, width, kernel, down, right, dilation)
                    to += terms


def windows_backward(row: int, spaces: int, rows: int) -> None:
    d, dx = flat(row, spaces, rows, 0), flat(row, spaces, rows, 1)
    channels, height, width, first, count = (
        whole(row, 0),
        whole(row, 1),
        whole(row, 2),
        whole(row, 3),
        whole(row, 4),
    )
    kernel, stride = (whole(row, 5), whole(row, 6)), (whole(row, 7), whole(row, 8))
    before, dilation, size = (
        (whole(row, 9), whole(row, 10)),
        (whole(row, 11), whole(row, 12)),
        (whole(row, 13), whole(row, 14)),
    )
    terms, image, part = kernel[0] * kernel[1], channels * height * width, count * height * width
    to = 0
    for n in range(single(row, spaces, rows, 1).shape[0]):
        begin = n * image + first * height * width
        for k in range(begin, begin + part):
            dx[k] = _ZERO
        for p in range(size[0]):
            down = _extent(p, stride[0], before[0], kernel[0], dilation[0], height)
            for q in range(size[1]):
                right = _extent(q, stride[1], before[1], kernel[1], dilation[1], width)
                for c in range(count):
                    at = begin + c * height * width
                    for i in range(down[1], down[2]):
                        base, place = at + (down[0] + i * dilation[0]) * width + right[0], to + i * kernel[1]
                        for j in range(right[1], right[2]):
                            dx[base + j * dilation[1]] += d[place + j]
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


@jit
def _largest(
    x: Array,
    at: int,
    width: int,
    down: tuple[int, int, int],
    right: tuple[int, int, int],
    dilation: tuple[int, int],
) -> Any:
    """Where the first of the largest numbers of a window stands, and the number. NaN is larger than any
    number."""
    best, found = _LOWEST, -1
    for i in range(down[1], down[2]):
        base = at + (down[0] + i * dilation[0]) * width + right[0]
        for j in range(right[1], right[2]):
            value = x[base + j * dilation[1]]
            if found < 0 or value > best or (value != value and best == best):
                best, found = value, base + j * dilation[1]
    return found, best


def max_pool(row: int, spaces: int, rows: int) -> None:
    x, y = flat(row, spaces, rows, 0), flat(row, spaces, rows, 1)
    channels, height, width = whole(row, 0), whole(row, 1), whole(row, 2)
    kernel, stride = (whole(row, 5), whole(row, 6)), (whole(row, 7), whole(row, 8))
    before, dilation, size = (
        (whole(row, 9), whole(row, 10)),
        (whole(row, 11), whole(row, 12)),
        (whole(row, 13), whole(row, 14)),
    )
    to = 0
    for n in range(single(row, spaces, rows, 0).shape[0] * channels):
        for p in range(size[0]):
            down = _extent(p, stride[0], before[0], kernel[0], dilation[0], height)
            for q in range(size[1]):
                right = _extent(q, stride[1], before[1], kernel[1], dilation[1], width)
                y[to] = _largest(x, n * height * width, width, down, right, dilation)[1]
                to += 1


def max_pool_backward(row: int, spaces: int, rows: int) -> None:
    x, dy, dx = flat(row, spaces, rows, 0), flat(row, spaces, rows, 1), flat(row, spaces, rows, 2)
    channels, height, width = whole(row, 0), whole(row, 1), whole(row, 2)
    kernel, stride = (whole(row, 5), whole(row, 6)), (whole(row, 7), whole(row, 8))
    before, dilation, size = (
        (whole(row, 9), whole(row, 10)),
        (whole(row, 11), whole(row, 12)),
        (whole(row, 13), whole(row, 14)),
    )
    for k in range(dx.size):
        dx[k] = _ZERO
    to = 0
    for n in range(single(row, spaces, rows, 0).shape[0] * channels):
        for p in range(size[0]):
            down = _extent(p, stride[0], before[0], kernel[0], dilation[0], height)
            for q in range(size[1]):
                right = _extent(q, stride[1], before[1], kernel[1], dilation[1], width)
                found = _largest(x, n * height * width, width, down, right, dilation)[0]
                if found >= 0:  # a window in the padding has none
                    dx[found] += dy[to]
                to += 1


def average_pool(row: int, spaces: int, rows: int) -> None:
    x, y, factor = flat(row, spaces, rows, 0), flat(row, spaces, rows, 1), np.float32(real(row, 0))
    channels, height, width = whole(row, 0), whole(row, 1), whole(row, 2)
    kernel, stride = (whole(row, 5), whole(row, 6)), (whole(row, 7), whole(row, 8))
    before, size = (whole(row, 9), whole(row, 10)), (whole(row, 13), whole(row, 14))
    to = 0
    for n in range(single(row, spaces, rows, 0).shape[0] * channels):
        for p in range(size[0]):
            down = _extent(p, stride[0], before[0], kernel[0], 1, height)
            for q in range(size[1]):
                right = _extent(q, stride[1], before[1], kernel[1], 1, width)
                total = _ZERO
                for i in range(down[1], down[2]):
                    base = (n * height + down[0] + i) * width + right[0]
                    for j in range(right[1], right[2]):
                        total += x[base + j]
                y[to] = total * factor
                to += 1


def average_pool_backward(row: int, spaces: int, rows: int) -> None:
    dy, dx, factor = flat(row, spaces, rows, 0), flat(row, spaces, rows, 1), np.float32(real(row, 0))
    channels, height, width = whole(row, 0), whole(row, 1), whole(row, 2)
    kernel, stride = (whole(row, 5), whole(row, 6)), (whole(row, 7), whole(row, 8))
    before, size = (whole(row, 9), whole(row, 10)), (whole(row, 13), whole(row, 14))
    for k in range(dx.size):
        dx[k] = _ZERO
    to = 0
    for n in range(single(row, spaces, rows, 1).shape[0] * channels):
        for p in range(size[0]):
            down = _extent(p, stride[0], before[0], kernel[0], 1, height)
            for q in range(size[1]):
                right = _extent(q, stride[1], before[1], kernel[1], 1, width)
                for i in range(down[1], down[2]):
                    base = (n * height + down[0] + i) * width + right[0]
                    for j in range(right[1], right[2]):
                        dx[base + j] += dy[to] * factor
                to += 1
