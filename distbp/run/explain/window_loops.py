"""Computes convolution and pooling window by window (see `loops`)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from distbp.run.explain.loops import Values


class Grid(NamedTuple):
    """The windows over an image. Sizes are (down, right)."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    before: tuple[int, int]  # zeros above and to the left

    def places(self, size: tuple[int, ...], y: int, x: int) -> Iterator[tuple[int, int, int, int]]:
        """Yields each place (u, v) in the window (y, x) with its (row, column) in the image, without
        padding."""
        for u in range(self.kernel[0]):
            for v in range(self.kernel[1]):
                row = y * self.stride[0] - self.before[0] + u * self.dilation[0]
                column = x * self.stride[1] - self.before[1] + v * self.dilation[1]
                if 0 <= row < size[0] and 0 <= column < size[1]:
                    yield u, v, row, column

    def around(self, out: tuple[int, ...], row: int, column: int) -> Iterator[tuple[int, int, int, int]]:
        """Yields the place (u, v) of an image's number in each window (y, x) that contains it. out: the
        numbers of windows (down, right)."""
        for u in range(self.kernel[0]):
            y, rest = divmod(row + self.before[0] - u * self.dilation[0], self.stride[0])
            if rest or not 0 <= y < out[0]:
                continue
            for v in range(self.kernel[1]):
                x, rest = divmod(column + self.before[1] - v * self.dilation[1], self.stride[1])
                if not rest and 0 <= x < out[1]:
                    yield u, v, y, x


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def grid_of(options: Mapping[str, Any]) -> Grid:
    kernel, dilation = _pair(options["kernel_size"]), _pair(options.get("dilation") or 1)
    padding = options["padding"]
    before = (0, 0) if padding == "valid" else padding
    if padding == "same":
        before = tuple((k - 1) * d // 2 for k, d in zip(kernel, dilation, strict=True))
    stride = options.get("stride")
    return Grid(kernel, kernel if stride is None else _pair(stride), dilation, _pair(before))


def convolution(
    options: Mapping[str, Any], w: Values, b: Values, x: Values, shape: tuple[int, ...]
) -> Values:
    """z[f, y, x] = b[f] + sum of w[f, c, u, v] * (the number at that place). shape: of z."""
    grid, z, many = grid_of(options), np.zeros(shape), shape[0] // options["groups"]
    for f, i, j in np.ndindex(*shape):
        first = f // many * w.shape[1]
        terms = [
            w[f, c, u, v] * x[first + c, row, column]
            for u, v, row, column in grid.places(x.shape[1:], i, j)
            for c in range(w.shape[1])
        ]
        z[f, i, j] = math.fsum([*terms, b[f]])
    return z


def convolution_back(
    options: Mapping[str, Any], w: Values, x: Values, delta: Values
) -> tuple[dict[str, Values], Values]:
    """The gradients and dE/dx. Each window adds delta * number to the weight's gradient, and delta * weight
    to the number's derivative."""
    grid, many = grid_of(options), delta.shape[0] // options["groups"]
    d_w, d_x = np.zeros_like(w), np.zeros_like(x)
    for f, i, j in np.ndindex(*delta.shape):
        first, d = f // many * w.shape[1], delta[f, i, j]
        for u, v, row, column in grid.places(x.shape[1:], i, j):
            for c in range(w.shape[1]):
                d_w[f, c, u, v] += d * x[first + c, row, column]
                d_x[first + c, row, column] += d * w[f, c, u, v]
    return {"weight": d_w, "bias": np.array([math.fsum(one.ravel()) for one in delta])}, d_x


def chosen_place(grid: Grid, x: Values, c: int, i: int, j: int) -> tuple[int, int]:
    """The place (row, column) of the largest number of a window; of equal numbers the first."""
    places = [(row, column) for _, _, row, column in grid.places(x.shape[1:], i, j)]
    return max(places, key=lambda place: (x[(c, *place)], -places.index(place)))


def pool(largest: bool, options: Mapping[str, Any], x: Values, shape: tuple[int, ...]) -> Values:
    """The largest number of each window, or its average, in which padding counts as 0."""
    grid, y = grid_of(options), np.zeros(shape)
    for c, i, j in np.ndindex(*shape):
        if largest:
            y[c, i, j] = x[(c, *chosen_place(grid, x, c, i, j))]
        else:
            total = math.fsum(x[c, row, column] for _, _, row, column in grid.places(x.shape[1:], i, j))
            y[c, i, j] = total / (grid.kernel[0] * grid.kernel[1])
    return y


def pool_back(largest: bool, options: Mapping[str, Any], x: Values, d_y: Values) -> Values:
    """dE/dx: the largest number of a window gets all of dE/dy, or each number an equal part."""
    grid, d_x = grid_of(options), np.zeros_like(x)
    for c, i, j in np.ndindex(*d_y.shape):
        if largest:
            d_x[(c, *chosen_place(grid, x, c, i, j))] += d_y[c, i, j]
        else:
            for _, _, row, column in grid.places(x.shape[1:], i, j):
                d_x[c, row, column] += d_y[c, i, j] / (grid.kernel[0] * grid.kernel[1])
    return d_x
