"""Windows over images: copies of them side by side, the way back, and pooling.

An image is a sample of (channels, height, width) numbers. The whole numbers are those of a `Windows`. A
window at place (i, j) of the output begins at row i * stride - top and column j * stride - left of the image;
what lies outside of it is padding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from distbp.core.arrays import Array
from distbp.nn.ops.base import Op, Real, Whole, element_ops


class Windows(NamedTuple):
    """Sizes are (vertical, horizontal); `looked_at` channels from number `first` on; `out`: how many windows
    there are."""

    channels: int
    height: int
    width: int
    first: int
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
        """Windows in an image."""
        return self.out_height * self.out_width

    @property
    def terms(self) -> int:
        """Numbers in a window of all its channels."""
        return self.looked_at * self.kernel_height * self.kernel_width


def _padded(x: Array, w: Windows, value: float = 0.0) -> Array:
    """The channels looked at of all images, (rows, count, height, width), with padding on all sides."""
    height = (w.out_height - 1) * w.stride_down + (w.kernel_height - 1) * w.dilation_down + 1
    width = (w.out_width - 1) * w.stride_right + (w.kernel_width - 1) * w.dilation_right + 1
    size = max(height, w.top + w.height), max(width, w.left + w.width)
    padded = np.full((len(x), w.looked_at, *size), value, x.dtype)
    images = x.reshape(len(x), w.channels, w.height, w.width)[:, w.first : w.first + w.looked_at]
    padded[:, :, w.top : w.top + w.height, w.left : w.left + w.width] = images
    return padded


def _inside(padded: Array, w: Windows) -> Array:
    """The view of the image in what `_padded` gives."""
    return padded[:, :, w.top : w.top + w.height, w.left : w.left + w.width]


def _terms(w: Windows) -> Iterator[tuple[int, int, tuple[slice, slice]]]:
    """Row and column in a window, and where in padded images that number of all windows stands."""
    for i in range(w.kernel_height):
        for j in range(w.kernel_width):
            down, right = i * w.dilation_down, j * w.dilation_right
            rows = slice(down, down + (w.out_height - 1) * w.stride_down + 1, w.stride_down)
            columns = slice(right, right + (w.out_width - 1) * w.stride_right + 1, w.stride_right)
            yield i, j, (rows, columns)


def _windows(x: Array, out: Array, whole: Whole, real: Real) -> None:
    """out (rows * places, terms) <- the windows of x (rows, channels * height * width), channel by channel;
    padding is 0."""
    w = Windows(*whole)
    padded = _padded(x, w)
    view = out.reshape(len(x), w.out_height, w.out_width, w.looked_at, w.kernel_height, w.kernel_width)
    for i, j, (rows, columns) in _terms(w):
        view[..., i, j] = padded[:, :, rows, columns].transpose(0, 2, 3, 1)


def _windows_backward(d: Array, dx: Array, whole: Whole, real: Real) -> None:
    """dx <- for each number of the images, the sum of what stands in d for it in all windows; of the channels
    looked at."""
    w = Windows(*whole)
    padded = np.zeros_like(_padded(dx, w))
    view = d.reshape(len(dx), w.out_height, w.out_width, w.looked_at, w.kernel_height, w.kernel_width)
    for i, j, (rows, columns) in _terms(w):
        padded[:, :, rows, columns] += view[..., i, j].transpose(0, 3, 1, 2)
    images = dx.reshape(len(dx), w.channels, w.height, w.width)
    images[:, w.first : w.first + w.looked_at] = _inside(padded, w)


def _put_channels(a: Array, out: Array, whole: Whole, real: Real) -> None:
    """Channels whole[0] and following of `out` (rows, all channels * places) <- a (rows * places,
    channels)."""
    channels, view = a.shape[1], _by_channel(out, a, whole)
    view[:, whole[0] : whole[0] + channels] = a.reshape(len(out), -1, channels).swapaxes(1, 2)


def _take_channels(a: Array, out: Array, whole: Whole, real: Real) -> None:
    """out (rows * places, channels) <- channels whole[0] and following of a (rows, all channels * places)."""
    channels, view = out.shape[1], _by_channel(a, out, whole)
    out.reshape(len(a), -1, channels)[:] = view[:, whole[0] : whole[0] + channels].swapaxes(1, 2)


def _by_channel(images: Array, places: Array, whole: Whole) -> Array:
    return (
        images.reshape(len(images), -1, len(places) // len(images))
        if len(images)
        else images.reshape(0, whole[0] + 1, 1)
    )


def _stacked(x: Array, w: Windows, value: float) -> Array:
    """(kernel_height * kernel_width, rows, channels, out_height, out_width): the numbers of every window."""
    padded = _padded(x, w, value)
    return np.stack([padded[:, :, rows, columns] for _, _, (rows, columns) in _terms(w)])


def _max_pool(x: Array, y: Array, whole: Whole, real: Real) -> None:
    """y (rows, channels * places) <- the largest number of each window of each channel; NaN where one is
    among them."""
    w = Windows(*whole)
    y[:] = _stacked(x, w, -np.inf).max(axis=0).reshape(y.shape)


def _max_pool_backward(x: Array, dy: Array, dx: Array, whole: Whole, real: Real) -> None:
    """dx <- dy where the largest number of a window stands, the first one where several are equal; else 0."""
    w = Windows(*whole)
    chosen = _stacked(x, w, -np.inf).argmax(axis=0)
    _spread(dy, dx, w, lambda d, number: np.where(chosen == number, d, d.dtype.type(0)))


def _average_pool(x: Array, y: Array, whole: Whole, real: Real) -> None:
    """y (rows, channels * places) <- the sum of each window of each channel times real[0]; padding is 0."""
    y[:] = (_stacked(x, Windows(*whole), 0.0).sum(axis=0) * x.dtype.type(real[0])).reshape(y.shape)


def _average_pool_backward(dy: Array, dx: Array, whole: Whole, real: Real) -> None:
    """dx <- the sum over the windows that hold a number, of dy times real[0]."""
    _spread(dy, dx, Windows(*whole), lambda d, number: d * d.dtype.type(real[0]))


def _spread(dy: Array, dx: Array, w: Windows, share: Callable[[Array, int], Array]) -> None:
    padded = np.zeros_like(_padded(dx, w))
    d = dy.reshape(len(dx), w.looked_at, w.out_height, w.out_width)
    for number, (_, _, (rows, columns)) in enumerate(_terms(w)):
        padded[:, :, rows, columns] += share(d, number)
    dx.reshape(len(dx), w.channels, w.height, w.width)[:] = _inside(padded, w)


_HERE = "distbp.nn.ops.loops_windows:"
_OVER_WINDOWS = "of each number of the images: window after window, row by row"
WINDOWS = (
    Op("windows", "fF", _windows, f"{_HERE}windows"),
    Op("windows_backward", "fF", _windows_backward, f"{_HERE}windows_backward", _OVER_WINDOWS),
    Op("put_channels", "fF", _put_channels, f"{_HERE}put_channels"),
    Op("take_channels", "fF", _take_channels, f"{_HERE}take_channels"),
    Op("max_pool", "fF", _max_pool, f"{_HERE}max_pool"),
    Op("max_pool_backward", "ffF", _max_pool_backward, f"{_HERE}max_pool_backward", _OVER_WINDOWS),
    Op(
        "average_pool",
        "fF",
        _average_pool,
        f"{_HERE}average_pool",
        "of each window: row after row",
        element_ops(1),
    ),
    Op(
        "average_pool_backward",
        "fF",
        _average_pool_backward,
        f"{_HERE}average_pool_backward",
        _OVER_WINDOWS,
        element_ops(1),
    ),
)
