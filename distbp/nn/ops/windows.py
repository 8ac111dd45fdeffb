"""Pooling over windows of images, and changes between the layouts channels first and channels last.

An image is a sample of (height, width, channels) numbers: the channels of a place lie side by side. The whole
numbers of a pooling op are those of a `Windows`. The window at place (i, j) of the output begins at row
i * stride_down - top and column j * stride_right - left of the image. Numbers outside of the image are
padding. Operands of pooling have one row for each image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from distbp.core.arrays import Array
from distbp.nn.ops.base import Op, Real, Whole, element_ops


class Windows(NamedTuple):
    """The sizes of images and windows. `looked_at`: the number of channels in a filter. `stride`, `dilation`:
    in numbers of the image. `top`, `left`: padding. `out_height`, `out_width`: the number of windows."""

    channels: int
    height: int
    width: int
    looked_at: int
    kernel_height: int
    kernel_width: int
    stride_down: int
    stride_right: int
    top: int
    left: int
    dilation_down: int
    dilation_right: int
    out_height: int
    out_width: int

    @property
    def places(self) -> int:
        """The number of windows in an image."""
        return self.out_height * self.out_width

    @property
    def terms(self) -> int:
        """The number of weights of a filter."""
        return self.looked_at * self.kernel_height * self.kernel_width


def padded(x: Array, w: Windows, value: float = 0.0) -> Array:
    """The images x with padding on all sides, filled with `value`: (rows, height, width, channels)."""
    height = (w.out_height - 1) * w.stride_down + (w.kernel_height - 1) * w.dilation_down + 1
    width = (w.out_width - 1) * w.stride_right + (w.kernel_width - 1) * w.dilation_right + 1
    size = max(height, w.top + w.height), max(width, w.left + w.width)
    images = np.full((len(x), *size, w.channels), value, x.dtype)
    inside(images, w)[:] = x.reshape(len(x), w.height, w.width, w.channels)
    return images


def inside(images: Array, w: Windows) -> Array:
    """A view of the images without their padding. images: the result of `padded`."""
    return images[:, w.top : w.top + w.height, w.left : w.left + w.width]


def terms(w: Windows) -> Iterator[tuple[slice, slice]]:
    """Yields, for each number of a window, row by row, the rows and columns of padded images at which it
    stands in all windows."""
    for i in range(w.kernel_height):
        for j in range(w.kernel_width):
            down, right = i * w.dilation_down, j * w.dilation_right
            rows = slice(down, down + (w.out_height - 1) * w.stride_down + 1, w.stride_down)
            columns = slice(right, right + (w.out_width - 1) * w.stride_right + 1, w.stride_right)
            yield rows, columns


def stacked(x: Array, w: Windows, value: float = 0.0) -> Array:
    """The numbers of all windows: (kernel_height * kernel_width, rows, out_height, out_width, channels).
    value: as in `padded`."""
    images = padded(x, w, value)
    return np.stack([images[:, rows, columns] for rows, columns in terms(w)])


def spread(dx: Array, w: Windows, share: Callable[[int], Array]) -> None:
    """dx <- for each number of the images, the sum of its shares over the windows that hold it. share: from
    the place of a number in a window to its shares, (rows, out_height, out_width, channels)."""
    images = np.zeros_like(padded(dx, w))
    for number, (rows, columns) in enumerate(terms(w)):
        images[:, rows, columns] += share(number)
    dx.reshape(len(dx), w.height, w.width, w.channels)[:] = inside(images, w)


def _channels_first(a: Array, out: Array, whole: Whole, real: Real) -> None:
    """out (rows, channels * places) <- a (rows * places, channels)."""
    rows, channels = len(out), a.shape[1]
    out.reshape(rows, channels, -1 if rows else 1)[:] = _places_of(a, rows).swapaxes(1, 2)


def _channels_last(a: Array, out: Array, whole: Whole, real: Real) -> None:
    """out (rows * places, channels) <- a (rows, channels * places)."""
    rows, channels = len(a), out.shape[1]
    _places_of(out, rows)[:] = a.reshape(rows, channels, -1 if rows else 1).swapaxes(1, 2)


def _places_of(matrix: Array, rows: int) -> Array:
    return matrix.reshape(rows, -1 if rows else 1, matrix.shape[1])


def _max_pool(x: Array, y: Array, whole: Whole, real: Real) -> None:
    """y (rows, places * channels) <- the largest number of each window of each channel; NaN if it has one."""
    y[:] = stacked(x, Windows(*whole), -np.inf).max(axis=0).reshape(y.shape)


def _max_pool_backward(x: Array, dy: Array, dx: Array, whole: Whole, real: Real) -> None:
    """dx <- the sum of dy over the windows in which a number is the largest (the first of equal ones)."""
    w = Windows(*whole)
    chosen = stacked(x, w, -np.inf).argmax(axis=0)
    d = dy.reshape(chosen.shape)
    spread(dx, w, lambda number: np.where(chosen == number, d, d.dtype.type(0)))


def _average_pool(x: Array, y: Array, whole: Whole, real: Real) -> None:
    """y (rows, places * channels) <- the sum of each window of each channel times real[0]; padding is 0."""
    y[:] = (stacked(x, Windows(*whole)).sum(axis=0) * x.dtype.type(real[0])).reshape(y.shape)


def _average_pool_backward(dy: Array, dx: Array, whole: Whole, real: Real) -> None:
    """dx <- for each number of the images, the sum of dy * real[0] over the windows that hold it."""
    w = Windows(*whole)
    d = dy.reshape(len(dx), w.out_height, w.out_width, w.channels) * dy.dtype.type(real[0])
    spread(dx, w, lambda number: d)


_HERE = "distbp.nn.ops.loops_windows:"
_OVER_WINDOWS = "of each number of the images: window after window, row by row"
_IN_WINDOW = "of each window: row after row"
WINDOWS = (
    Op("channels_first", "fF", _channels_first, f"{_HERE}channels_first"),
    Op("channels_last", "fF", _channels_last, f"{_HERE}channels_last"),
    Op("max_pool", "fF", _max_pool, f"{_HERE}max_pool"),
    Op("max_pool_backward", "ffF", _max_pool_backward, f"{_HERE}max_pool_backward", _OVER_WINDOWS),
    Op("average_pool", "fF", _average_pool, f"{_HERE}average_pool", _IN_WINDOW, element_ops(1)),
    Op(
        "average_pool_backward", "fF", _average_pool_backward, f"{_HERE}average_pool_backward", _OVER_WINDOWS,
        element_ops(1),
    ),
)  # fmt: skip
