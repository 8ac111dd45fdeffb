"""The largest number in each window of an image, for a vector of channels at a time (Numba, optional).

These functions are for compiled code. The channels of a place are adjacent in memory. Addresses and steps are
int64 numbers of bytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import types

from distbp.machine import lanes
from distbp.machine.lanes import FLOATS, LANES, MASK, ZEROS
from distbp.machine.pointers import emits

_LOWEST = ir.Constant(FLOATS, [-math.inf] * LANES)
_EVERYWHERE = ir.Constant(MASK, [1] * LANES)
Pass = Callable[[Any, Sequence[Any]], Sequence[Any]]


def _over_window(builder: Any, down: Any, right: Any, size: Sequence[Any], carried: Any, visit: Pass) -> Any:
    """Emits visit(place, values) -> values for each place of a window, row by row. place: its distance from
    the first place. Returns the last values."""

    def row(number: Any, values: Sequence[Any]) -> Sequence[Any]:
        start = builder.mul(down, number)

        def column(number: Any, values: Sequence[Any]) -> Sequence[Any]:
            return visit(builder.add(start, builder.mul(right, number)), values)

        return lanes.repeat(builder, size[1], values, column)

    return lanes.repeat(builder, size[0], carried, row)


def _is_nan(builder: Any, value: Any) -> Any:
    return builder.fcmp_unordered("uno", value, value)


def _largest(builder: Any, source: Any, down: Any, right: Any, size: Sequence[Any], which: Any) -> Any:
    def visit(place: Any, values: Sequence[Any]) -> Sequence[Any]:
        value = lanes.load(builder, builder.add(source, place), which)
        larger = builder.or_(builder.fcmp_ordered(">", value, values[0]), _is_nan(builder, value))
        return [builder.select(larger, value, values[0])]

    return _over_window(builder, down, right, size, [_LOWEST], visit)[0]


@emits(types.void, *[types.int64] * 7)
def largest(
    builder: Any, source: Any, down: Any, right: Any, rows: Any, columns: Any, to: Any, count: Any
) -> None:
    """Writes the largest number of a window of (rows, columns) places for each of the first `count` channels,
    at most LANES: -inf if the window has no place, NaN if one of its numbers is NaN. down, right: the step
    from a place to the place below, and to the place on its right."""
    which = lanes.first(builder, count)
    lanes.store(builder, _largest(builder, source, down, right, (rows, columns), which), to, which)


@emits(types.void, *[types.int64] * 9)
def put_to_largest(
    builder: Any, source: Any, down: Any, right: Any, rows: Any, columns: Any, d: Any, to: Any, add: Any,
    count: Any,
) -> None:  # fmt: skip
    """Writes a window at `to` for each channel: the number at `d` goes to the place at which the window at
    `source` has its largest number, the first one if there are several. Other places get 0. add: if it is not
    0, all of these are added to the values there. The other arguments are those of `largest`."""
    which, size = lanes.first(builder, count), (rows, columns)
    best, change = _largest(builder, source, down, right, size, which), lanes.load(builder, d, which)

    def visit(place: Any, values: Sequence[Any]) -> Sequence[Any]:
        value = lanes.load(builder, builder.add(source, place), which)
        both = builder.and_(_is_nan(builder, value), _is_nan(builder, best))
        found = builder.and_(builder.or_(builder.fcmp_ordered("==", value, best), both), values[0])
        lanes.put(builder, [builder.select(found, change, ZEROS)], [builder.add(to, place)], [which], add)
        return [builder.and_(values[0], builder.not_(found))]

    _over_window(builder, down, right, size, [_EVERYWHERE], visit)
