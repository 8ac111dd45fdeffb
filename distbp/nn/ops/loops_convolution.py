"""The ops of `convolution`, compiled (Numba, optional)."""

from __future__ import annotations

from typing import Any

import numpy as np

from distbp.core.arrays import Array
from distbp.machine.jit import inner
from distbp.machine.lanes import LANES
from distbp.machine.scalars import index, larger, smaller
from distbp.machine.structures import address_of
from distbp.machine.window_sums import BYTES, MOST, VECTORS, sum_places, sum_windows, turns_of
from distbp.nn.ops.loops_windows import windows_of
from distbp.nn.ops.rows import flat, single

PLACES = 128  # places whose gradients are added up at a time, so that they stay in the nearest cache
# The width of a panel in numbers and in vectors, if its sums are added to those of other windows. Windows
# overlap, so the order of these additions depends on the width.
ADDED = 16
ADDED_VECTORS = ADDED // LANES

_ZERO = np.float32(0)


@inner
def _position(term: int, terms: int, unit: int, units: int, most: int) -> int:
    """The place of the weight of a term and a unit in the panels, which lie one after the other. terms,
    units: the numbers of both. most: the most vectors of a panel."""
    vectors = (units + LANES - 1) // LANES
    first = unit // (most * LANES) * most
    wide = LANES * smaller(most, vectors - first)
    return first * LANES * terms + term * wide + unit - first * LANES  # type: ignore[no-any-return]


@inner
def _padded(w: Any) -> Any:
    """The height and width of an image with its padding."""
    height = (w.out_height - 1) * w.stride_down + (w.kernel_height - 1) * w.dilation_down + 1
    width = (w.out_width - 1) * w.stride_right + (w.kernel_width - 1) * w.dilation_right + 1
    return larger(height, w.top + w.height), larger(width, w.left + w.width)


@inner
def _copy_image(x: Array, at: int, height: int, wide: int, out: Array, to: int, pitch: int) -> None:
    """Copies `height` rows of `wide` numbers. They lie one after the other from x[at] on; in `out`, from
    out[to] on, they begin `pitch` apart."""
    for i in range(height):
        for j in range(wide):
            out[index(to + i * pitch + j)] = x[index(at + i * wide + j)]


@inner
def _runs(w: Any, width: int) -> Any:
    """The runs of a window, stretches of terms that lie side by side. Returns the byte offsets at which they
    begin (int64), and the number of terms of each. width: of a padded image."""
    if w.looked_at == w.channels and w.dilation_right == 1:
        runs = np.empty(w.kernel_height, np.int64)
        for i in range(w.kernel_height):
            runs[i] = 4 * i * w.dilation_down * width * w.channels
        return runs, w.kernel_width * w.channels
    runs = np.empty(w.kernel_height * w.kernel_width, np.int64)
    for i in range(w.kernel_height):
        for j in range(w.kernel_width):
            place = i * w.dilation_down * width + j * w.dilation_right
            runs[i * w.kernel_width + j] = 4 * place * w.channels
    return runs, w.looked_at


@inner
def _sum_rows(
    source: Array, at: int, down: int, rows: int, step: int, places: int, runs: Array, terms: int,
    panels: Array, panel: int, starts: Array, start: int, to: Array, place: int, to_down: int, to_step: int,
    units: int, add: int,
) -> None:  # fmt: skip
    """Computes the sums of `rows` rows of `places` places of one image (see `window_sums.sum_windows`). at,
    panel, start, place: the first elements in source, panels, starts and to. down, step, to_down, to_step:
    the elements from one row or place to the next. add: if not 0, sums are added to the values in `to`."""
    count, vectors, wide = runs.size, (units + LANES - 1) // LANES, ADDED_VECTORS if add else VECTORS
    weights, sums_start = address_of(panels) + 4 * panel, address_of(starts) + 4 * start
    for first in range(0, vectors, wide):
        many = smaller(wide, vectors - first)
        tiles = (places + MOST[many] - 1) // MOST[many]
        columns = smaller(LANES, units - LANES * (first + many - 1))
        for row in range(rows):
            here = address_of(source) + 4 * (at + row * down)
            there = address_of(to) + 4 * (place + row * to_down) + BYTES * first
            done = 0
            for tile in range(tiles):
                after = places * (tile + 1) // tiles
                sum_windows(
                    after - done, many, here + 4 * done * step, 4 * step, address_of(runs), count, terms,
                    weights, sums_start + BYTES * first, there + 4 * done * to_step, 4 * to_step, columns,
                    add,
                )  # fmt: skip
                done = after
        weights += count * terms * many * BYTES


@inner
def _room(size: int) -> Any:
    """An array of zeros, and the place in it at which a cache line begins, with `size` elements behind."""
    room = np.zeros(size + LANES, np.float32)
    return room, -address_of(room) % BYTES // 4


def convolve(row: int, spaces: int, rows: int) -> None:
    x, weight, bias = flat(row, spaces, rows, 0), single(row, spaces, rows, 1), single(row, spaces, rows, 2)
    z, w = flat(row, spaces, rows, 3), windows_of(row)
    groups, (height, width) = w.channels // w.looked_at, _padded(w)
    filters, every, size = weight.shape[0] // groups, weight.shape[0], w.kernel_height * w.kernel_width
    lanes, all_terms = (filters + LANES - 1) // LANES * LANES, weight.shape[1]
    panels, panel = _room(groups * all_terms * lanes)
    starts, start = _room(groups * lanes)
    for f in range(every):
        group, unit = f // filters, f % filters
        starts[start + group * lanes + unit] = bias[0, f]
        for c in range(w.looked_at):
            for k in range(size):
                place = _position(k * w.looked_at + c, all_terms, unit, filters, VECTORS)
                panels[panel + group * all_terms * lanes + place] = weight[f, c * size + k]
    runs, terms = _runs(w, width)
    image, first = _room(height * width * w.channels)
    pitch, wide, places = width * w.channels, w.width * w.channels, w.out_height * w.out_width
    for n in range(single(row, spaces, rows, 0).shape[0]):
        inside = first + w.top * pitch + w.left * w.channels
        _copy_image(x, n * w.height * wide, w.height, wide, image, inside, pitch)
        for group in range(groups):
            _sum_rows(
                image, first + group * w.looked_at, w.stride_down * pitch, w.out_height,
                w.stride_right * w.channels, w.out_width, runs, terms,
                panels, panel + group * all_terms * lanes, starts, start + group * lanes,
                z, n * places * every + group * filters, w.out_width * every, every, filters, 0,
            )  # fmt: skip


def convolve_backward(row: int, spaces: int, rows: int) -> None:
    dz, weight, dx = flat(row, spaces, rows, 0), single(row, spaces, rows, 1), flat(row, spaces, rows, 2)
    w = windows_of(row)
    groups, (height, width) = w.channels // w.looked_at, _padded(w)
    filters, every, size = weight.shape[0] // groups, weight.shape[0], w.kernel_height * w.kernel_width
    runs, terms = _runs(w, width)
    lanes = (terms + LANES - 1) // LANES * LANES
    panels, panel = _room(groups * runs.size * filters * lanes)
    for f in range(every):
        for c in range(w.looked_at):
            for k in range(size):
                run, unit = divmod(k * w.looked_at + c, terms)
                at = (f // filters * runs.size + run) * filters * lanes
                at += _position(f % filters, filters, unit, terms, ADDED_VECTORS)
                panels[panel + at] = weight[f, c * size + k]
    starts, start = _room(lanes)
    image, first = _room(height * width * w.channels)
    pitch, wide, places = width * w.channels, w.width * w.channels, w.out_height * w.out_width
    here = np.zeros(1, np.int64)
    for n in range(single(row, spaces, rows, 2).shape[0]):
        image[:] = _ZERO
        for group in range(groups):
            for run in range(runs.size):
                _sum_rows(
                    dz, n * places * every + group * filters, w.out_width * every, w.out_height, every,
                    w.out_width, here, filters,
                    panels, panel + (group * runs.size + run) * filters * lanes, starts, start,
                    image, first + group * w.looked_at + runs[run] // 4, w.stride_down * pitch,
                    w.stride_right * w.channels, terms, 1,
                )  # fmt: skip
        inside = first + w.top * pitch + w.left * w.channels
        for i in range(w.height):
            for j in range(wide):
                dx[index((n * w.height + i) * wide + j)] = image[index(inside + i * pitch + j)]


@inner
def _add_places(
    source: Array, at: int, down: int, step: int, dz: Array, place: int, wide: int, every: int, rows: int,
    places: int, runs: Array, terms: int, sums: Array, to: int, units: int,
) -> None:  # fmt: skip
    """Adds the sums over `rows` rows of `places` places to the panels `sums` (see `window_sums.sum_places`).
    at, place, to: the first elements in source, dz and sums. down, step, wide, every: the elements from one
    row or place to the next in source and in dz."""
    vectors, turns = (units + LANES - 1) // LANES, turns_of(terms)
    there = address_of(sums) + 4 * to
    for first in range(0, vectors, VECTORS):
        many = smaller(VECTORS, vectors - first)
        most = larger(1, MOST[many] // turns)
        tiles = (terms + most - 1) // most
        columns = smaller(LANES, units - LANES * (first + many - 1))
        for run in range(runs.size):
            done = 0
            for tile in range(tiles):
                after = terms * (tile + 1) // tiles
                sum_places(
                    after - done, many, address_of(source) + 4 * (at + done) + runs[run], 4 * step, 4 * down,
                    address_of(dz) + 4 * place + BYTES * first, 4 * every, 4 * wide, rows, places, there,
                    columns, turns,
                )  # fmt: skip
                there += (after - done) * many * BYTES
                done = after


def convolve_weights(row: int, spaces: int, rows: int) -> None:
    x, dz = flat(row, spaces, rows, 0), flat(row, spaces, rows, 1)
    dw, db, w = single(row, spaces, rows, 2), single(row, spaces, rows, 3), windows_of(row)
    groups, (height, width) = w.channels // w.looked_at, _padded(w)
    filters, every, size = dw.shape[0] // groups, dw.shape[0], w.kernel_height * w.kernel_width
    lanes, all_terms = (filters + LANES - 1) // LANES * LANES, dw.shape[1]
    sums, to = _room(groups * all_terms * lanes)
    biases, bias = _room((every + LANES - 1) // LANES * LANES)
    one, here = np.ones(1, np.float32), np.zeros(1, np.int64)
    runs, terms = _runs(w, width)
    image, first = _room(height * width * w.channels)
    pitch, wide, places = width * w.channels, w.width * w.channels, w.out_height * w.out_width
    at_once = larger(1, PLACES // w.out_width)
    for n in range(single(row, spaces, rows, 0).shape[0]):
        inside = first + w.top * pitch + w.left * w.channels
        _copy_image(x, n * w.height * wide, w.height, wide, image, inside, pitch)
        for top in range(0, w.out_height, at_once):
            some, begin = smaller(at_once, w.out_height - top), (n * places + top * w.out_width) * every
            for group in range(groups):
                _add_places(
                    image, first + top * w.stride_down * pitch + group * w.looked_at, w.stride_down * pitch,
                    w.stride_right * w.channels, dz, begin + group * filters, w.out_width * every, every,
                    some, w.out_width, runs, terms, sums, to + group * all_terms * lanes, filters,
                )  # fmt: skip
            _add_places(
                one, 0, 0, 0, dz, begin, w.out_width * every, every, some, w.out_width, here, 1, biases, bias,
                every,
            )  # fmt: skip
    for f in range(every):
        group, unit = f // filters, f % filters
        db[0, f] = biases[bias + f]
        for c in range(w.looked_at):
            for k in range(size):
                place = _position(k * w.looked_at + c, all_terms, unit, filters, VECTORS)
                dw[f, c * size + k] = sums[to + group * all_terms * lanes + place]
