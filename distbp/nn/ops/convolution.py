"""Convolution: for each window of the images, the sum of its numbers times the weights of a filter.

Images are (height, width, channels), and whole numbers are those of a `Windows` (see `windows`). Weights are
(filters, looked_at * kernel_height * kernel_width): channel by channel, each row by row, as in
`torch.nn.Conv2d`. Channels and filters are cut into channels / looked_at groups; a filter sees only the
channels of its group. x, dx: (rows, numbers of an image); z, dz: (rows * places, filters).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from distbp.core.arrays import Array
from distbp.nn.ops.base import Op, Real, Whole
from distbp.nn.ops.windows import Windows, spread, stacked


def _windows(x: Array, w: Windows) -> Array:
    """The numbers of all windows: (groups, rows * places, terms of a window)."""
    groups = w.channels // w.looked_at
    return np.moveaxis(stacked(x, w), 0, -1).reshape(-1, groups, w.terms).swapaxes(0, 1)


def _by_group(matrix: Array, w: Windows) -> Array:
    """A matrix (rows * places, filters) as (groups, rows * places, filters of a group)."""
    groups = w.channels // w.looked_at
    return matrix.reshape(-1, groups, matrix.shape[1] // groups).swapaxes(0, 1)


def _weights(weight: Array, w: Windows) -> Array:
    """The weights as (groups, filters of a group, terms)."""
    groups = w.channels // w.looked_at
    return weight.reshape(groups, len(weight) // groups, w.terms)


def _convolve(x: Array, weight: Array, bias: Array, z: Array, whole: Whole, real: Real) -> None:
    """z <- bias (1, filters) + the sums over the windows of x."""
    w = Windows(*whole)
    sums = _windows(x, w) @ _weights(weight, w).swapaxes(1, 2)
    np.add(sums.swapaxes(0, 1).reshape(z.shape), bias, out=z)


def _convolve_backward(dz: Array, weight: Array, dx: Array, whole: Whole, real: Real) -> None:
    """dx <- for each number of the images, the sum of dz times the weights over the windows that hold it."""
    w = Windows(*whole)
    d = (_by_group(dz, w) @ _weights(weight, w)).swapaxes(0, 1)
    d = d.reshape(len(dx), w.out_height, w.out_width, w.channels, w.kernel_height * w.kernel_width)
    spread(dx, w, lambda number: d[..., number])


def _convolve_weights(x: Array, dz: Array, dw: Array, db: Array, whole: Whole, real: Real) -> None:
    """dw, in the shape of the weights <- the sum over all windows of dz times their numbers;
    db (1, filters) <- the sum of the rows of dz."""
    w = Windows(*whole)
    np.copyto(dw, (_by_group(dz, w).swapaxes(1, 2) @ _windows(x, w)).reshape(dw.shape))
    np.add.reduce(dz, axis=0, keepdims=True, out=db)


def _flops(outputs: int, weights: int) -> Callable[[Sequence[tuple[int, int]]], int]:
    """`Op.flops`: two for each output and each of its terms. outputs, weights: operands by number."""
    return lambda shapes: 2 * shapes[outputs][0] * shapes[weights][0] * shapes[weights][1]


_HERE = "distbp.nn.ops.loops_convolution:"
_FUSED = ", by fused multiply-adds"
CONVOLUTION = (
    Op(
        "convolve", "fffF", _convolve, f"{_HERE}convolve",
        "from the bias on, row by row of a window, channel after channel of a place" + _FUSED, _flops(3, 1),
    ),
    Op(
        "convolve_backward", "ffF", _convolve_backward, f"{_HERE}convolve_backward",
        "of a window and its number: filter after filter" + _FUSED + "; then, for each row of a window"
        " and each 16 numbers of it, over the windows from left to right", _flops(0, 1),
    ),
    Op(
        "convolve_weights", "ffFF", _convolve_weights, f"{_HERE}convolve_weights",
        "over some rows of places, and within a row over places in turn, sums of their own, which are added"
        + _FUSED, _flops(1, 2),
    ),
)  # fmt: skip
