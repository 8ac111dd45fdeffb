"""Gradient checking: an analytic gradient against central differences, in float64.

    f'(x) = (f(x + h) - f(x - h)) / 2h + O(h^2)

With h near eps^(1/3) the truncation error and the rounding error are both about 1e-10. This accuracy is
enough for most coordinates, and a small step meets few kinks (ReLU, maximum, hinge), which spoil a
difference. A coordinate that does not agree well is tried again by

    f'(x) = (f(x - 2h) - 8 f(x - h) + 8 f(x + h) - f(x + 2h)) / 12h + O(h^4)

(Abramowitz and Stegun, 25.3.6). This formula reaches about 1e-12 with h near eps^(1/5). Smaller steps
follow, because a normalization over few rows bends sharply. A wrong gradient disagrees with all of them.

With many units some kink is always near, and with biases and inputs of 0 kinks lie at x itself. So a
coordinate that still disagrees is tried on each side alone, by

    f'(x) = (-3 f(x) + 4 f(x + h) - f(x + 2h)) / 2h + O(h^2)

and the same with -h. If both sides agree with each other, there is no kink, and the gradient is wrong. If
they do not, the derivative of either side is right.

For small steps rounding matters. The part of a difference that rounding explains is not counted as error.

If there are too many coordinates to check each, the derivative along one direction stands for all of them:
the gradient times a random d of length 1, against (f(x + hd) - f(x - hd)) / 2h. All numbers of d are
positive, so units with a kink at x itself (biases of 0) all move to the same side of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]


class Difference(NamedTuple):
    """A central difference. points: the offset of each value from x, in steps, and its factor. divisor: the
    weighted sum is divided by this number times the step."""

    points: tuple[tuple[int, int], ...]
    divisor: int


TWO_POINTS = Difference(((-1, -1), (1, 1)), 2)
FOUR_POINTS = Difference(((-2, 1), (-1, -8), (1, 8), (2, -1)), 12)
FIRST_STEP, STEPS = 1e-5, (1e-3, 1e-4, 1e-5)  # with two points, and with four
SIDE_STEPS = (1e-5, 1e-6, 1e-8)
ROUNDING = 8 * np.finfo(np.float64).eps  # the rounding error of a difference, times |f(x)| / step
TOLERANCE = 1e-7
WELL = 0.1  # the share of the tolerance that two points must reach
# A coordinate smaller than this share of the largest is judged against that share: it carries its rounding.
FLOOR = 1e-3


def numeric_gradient(
    f: Callable[[Vector], float],
    x: Vector,
    indices: NDArray[np.intp] | None = None,
    step: float = 1e-3,
    difference: Difference = FOUR_POINTS,
) -> Vector:
    """df/dx at `x` for the flat `indices` (None: all), in their order.

    `x`: float64, C-contiguous, any shape. It is changed in place and restored, so `f` may ignore its
    argument and read it through views. `step` is multiplied by max(1, |x_i|).
    """
    if x.dtype != np.float64 or not x.flags.c_contiguous:
        raise ValueError(f"a gradient check needs contiguous float64, not {x.dtype}; use dtype: float64")
    flat = x.reshape(-1)
    chosen = np.arange(flat.size) if indices is None else indices
    gradient = np.empty(len(chosen))
    for place, i in enumerate(chosen):
        kept = flat[i]
        h = step * max(1.0, abs(kept))
        total = 0.0
        try:
            for offset, factor in difference.points:
                flat[i] = kept + offset * h
                total += factor * f(x)
        finally:
            flat[i] = kept
        gradient[place] = total / (difference.divisor * h)
    return gradient


def side_gradients(
    f: Callable[[Vector], float], x: Vector, here: float, indices: NDArray[np.intp], step: float
) -> tuple[Vector, Vector]:
    """df/dx on the left and on the right of `x` for the flat `indices`. `here`: f(x). `x` and `step`: as in
    `numeric_gradient`."""
    flat = x.reshape(-1)
    sides = np.empty((2, len(indices)))
    for place, i in enumerate(indices):
        kept = flat[i]
        h = step * max(1.0, abs(kept))
        try:
            for side, towards in enumerate((-h, h)):
                flat[i] = kept + towards
                h_there = flat[i] - kept  # the step after rounding
                near = f(x)
                flat[i] = kept + 2 * h_there
                sides[side, place] = (4 * near - 3 * here - f(x)) / (2 * h_there)
        finally:
            flat[i] = kept
    return sides[0], sides[1]


def relative_error(a: Vector, b: Vector, scale: float = 0.0) -> Vector:
    """|a - b| / max(|a|, |b|, scale), by element; 0 where both are 0, inf where one is not finite."""
    finite = np.isfinite(a) & np.isfinite(b)
    a, b = np.where(finite, a, 0), np.where(finite, b, 0)
    size = np.maximum(np.maximum(np.abs(a), np.abs(b)), scale)
    error = np.divide(np.abs(a - b), size, out=np.zeros_like(size), where=size > 0)
    return np.where(finite, error, np.inf)


def _error(a: Vector, b: Vector, scale: float, rounding: float, tolerance: float) -> Vector:
    """The relative error. From the tolerance on, the part that rounding explains is subtracted."""
    error = relative_error(a, b, scale)
    large = np.isfinite(error) & (error >= tolerance)
    size = np.maximum(np.maximum(np.abs(a), np.abs(b)), scale)
    error[large] = np.maximum(error[large] - rounding / size[large], 0.0)
    return error


@dataclass(frozen=True)
class Worst:
    """The coordinate of one part that disagrees most. `index` counts from the start of the part; None: the
    values are derivatives along a direction. `checked`: the number of checked coordinates, of `size`."""

    part: str
    index: int | None
    analytic: float
    numeric: float
    error: float
    checked: int
    size: int


@dataclass(frozen=True)
class Report:
    """The result of a check. `parts`: in the order of the vector, without parts that were not checked."""

    parts: tuple[Worst, ...]
    tolerance: float

    @property
    def worst(self) -> Worst:
        return max(self.parts, key=lambda part: part.error)

    @property
    def passed(self) -> bool:
        return self.worst.error < self.tolerance

    def __str__(self) -> str:
        worst = self.worst
        if self.passed:
            checked, size = (sum(getattr(part, name) for part in self.parts) for name in ("checked", "size"))
            return (
                f"gradients agree: {checked:,} of {size:,} checked, largest relative error {worst.error:.1e}"
            )
        where = f"{worst.part}[{worst.index}]"
        if worst.index is None:
            where = f"the derivative along a random direction of {worst.part}"
        return (
            f"gradients disagree: {where} is {worst.analytic:.10g}, but central"
            f" differences give {worst.numeric:.10g} (relative error {worst.error:.1e}, allowed"
            f" {self.tolerance:.0e})"
        )


def check(
    f: Callable[[Vector], float],
    x: Vector,
    analytic: Vector,
    parts: Mapping[str, slice] | None = None,
    indices: NDArray[np.intp] | None = None,
    tolerance: float = TOLERANCE,
    draw: np.random.Generator | None = None,
    watch: Callable[[int, int], None] = lambda done, total: None,
) -> Report:
    """Compare `analytic` (like `x`) with central differences of `f` at `x`; see `numeric_gradient`.

    `parts`: name -> slice of the flat vector, for the report (None: one part called "x"). `indices`: flat
    coordinates to check (None: all). `draw`: draws a direction for each part with unchecked coordinates
    (None: no directions). Copies `analytic` first, so `f` may overwrite it. Costs 2 calls of `f` for each
    coordinate or direction, 6 to 14 if it is tried again, and up to 12 more near a kink. `watch(done, total)`
    is called after each coordinate. Raises ValueError for shapes that differ or nothing to check.
    """
    chosen = np.arange(x.size) if indices is None else np.asarray(indices, dtype=np.intp)
    if analytic.shape != x.shape:
        raise ValueError(f"the gradient has shape {analytic.shape}, but x has {x.shape}")
    if len(chosen) == 0:
        raise ValueError("no coordinate to check")
    analytic = analytic.astype(np.float64).reshape(-1)
    claimed = analytic[chosen]
    scale = FLOOR * float(np.abs(claimed[np.isfinite(claimed)]).max(initial=0.0))
    here = f(x)
    numeric, error = np.empty(len(chosen)), np.empty(len(chosen))
    for place in range(len(chosen)):
        one = slice(place, place + 1)
        numeric[one], error[one] = _compare(f, x, here, chosen[one], claimed[one], scale, tolerance)
        watch(place + 1, len(chosen))
    parts = parts or {"x": slice(0, x.size)}
    found = _worst_parts(parts, chosen, claimed, numeric, error)
    if draw is not None:
        for place, worst in enumerate(found):
            if worst.checked < worst.size:
                part = parts[worst.part]
                off = _along(f, x.reshape(-1)[part], here, analytic[part], draw, scale, tolerance)
                if off[2] > max(worst.error, tolerance):
                    found[place] = Worst(worst.part, None, *off, worst.checked, worst.size)
    return Report(tuple(found), tolerance)


def _along(
    f: Callable[[Vector], float],
    x: Vector,
    here: float,
    claimed: Vector,
    draw: np.random.Generator,
    scale: float,
    tolerance: float,
) -> tuple[float, float, float]:
    """The claimed derivative along a random direction, the numeric derivative, and the error. x: the view of
    a part of the vector, changed in place and restored."""
    direction, kept = draw.uniform(0.5, 1.5, len(x)), x.copy()
    direction /= np.linalg.norm(direction)

    def line(way: Vector) -> float:
        x[:] = kept + way[0] * direction
        try:
            return f(x)
        finally:
            x[:] = kept

    slope = np.array([claimed @ direction])
    numeric, error = _compare(line, np.zeros(1), here, np.zeros(1, np.intp), slope, scale, tolerance)
    return float(slope[0]), float(numeric[0]), float(error[0])


def _compare(
    f: Callable[[Vector], float],
    x: Vector,
    here: float,
    chosen: NDArray[np.intp],
    claimed: Vector,
    scale: float,
    tolerance: float,
) -> tuple[Vector, Vector]:
    """The numeric derivative nearest to the claimed one, and its error, for one coordinate; (1,) each."""
    numeric = numeric_gradient(f, x, chosen, FIRST_STEP, TWO_POINTS)
    error = relative_error(claimed, numeric, scale)  # rounding included: it is large at this step
    if error < WELL * tolerance:
        return numeric, error
    for step in STEPS:
        estimate = numeric_gradient(f, x, chosen, step)
        found = _error(claimed, estimate, scale, ROUNDING * abs(here) / step, tolerance)
        if found <= error:
            numeric, error = estimate, found
        if error < tolerance:
            return numeric, error
    for step in SIDE_STEPS:
        left, right = side_gradients(f, x, here, chosen, step)
        rounding = ROUNDING * abs(here) / step
        nearer = left if np.abs(left - claimed) < np.abs(right - claimed) else right
        off = _error(claimed, nearer, scale, rounding, tolerance)
        if off < tolerance:
            return nearer, off
        if _error(left, right, scale, 2 * rounding, tolerance) < tolerance:
            break  # no kink
    return numeric, error


def _worst_parts(
    parts: Mapping[str, slice], chosen: NDArray[np.intp], claimed: Vector, numeric: Vector, error: Vector
) -> list[Worst]:
    found = []
    for name, part in parts.items():
        inside = np.flatnonzero((chosen >= part.start) & (chosen < part.stop))
        if len(inside):
            at = inside[int(np.argmax(error[inside]))]
            found.append(
                Worst(
                    name,
                    int(chosen[at]) - part.start,
                    float(claimed[at]),
                    float(numeric[at]),
                    float(error[at]),
                    len(inside),
                    part.stop - part.start,
                )
            )
    return found
