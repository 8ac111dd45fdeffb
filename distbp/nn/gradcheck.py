"""Gradient checking: an analytic gradient against central differences, in float64.

    f'(x) = (f(x - 2h) - 8 f(x - h) + 8 f(x + h) - f(x + 2h)) / 12h + O(h^4)

(Abramowitz and Stegun, 25.3.6.) With h near eps^(1/5) the errors of the formula and of rounding are both
about 1e-12, where the usual two-point difference reaches 1e-10. A kink between x - 2h and x + 2h (ReLU,
maximum, hinge) spoils the difference, so a coordinate that disagrees is tried again with smaller steps: a
wrong gradient disagrees at all of them.

Among many units there is always a kink near, and where a bias is 0 and inputs are 0 it lies at x itself. So a
coordinate that still disagrees is tried on each side alone, by

    f'(x) = (-3 f(x) + 4 f(x + h) - f(x + 2h)) / 2h + O(h^2)

and the same with -h. Where both sides agree with each other there is no kink, and the gradient is wrong.
Where they do not, the derivative of one side is right.

Steps become so small that rounding counts. What it explains is left out of the error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]

STEPS = (1e-3, 1e-4)
SIDE_STEPS = (1e-5, 1e-6, 1e-8)
ROUNDING = 8 * np.finfo(np.float64).eps  # of a difference, times |f(x)| / step
TOLERANCE = 1e-7
# A coordinate smaller than this share of the largest is judged against that share: it carries its rounding.
FLOOR = 1e-3


def numeric_gradient(
    f: Callable[[Vector], float], x: Vector, indices: NDArray[np.intp] | None = None, step: float = STEPS[0]
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
        try:
            values = []
            for offset in (-2 * h, -h, h, 2 * h):
                flat[i] = kept + offset
                values.append(f(x))
        finally:
            flat[i] = kept
        far_left, left, right, far_right = values
        gradient[place] = (far_left - 8 * left + 8 * right - far_right) / (12 * h)
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
                h_there = flat[i] - kept  # what the sum has left of it
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
    """The relative error; where it is above the tolerance, what rounding does not explain of it."""
    error = relative_error(a, b, scale)
    large = np.isfinite(error) & (error >= tolerance)
    size = np.maximum(np.maximum(np.abs(a), np.abs(b)), scale)
    error[large] = np.maximum(error[large] - rounding / size[large], 0.0)
    return error


@dataclass(frozen=True)
class Worst:
    """The coordinate of one part that disagrees most. `index` counts from the start of the part."""

    part: str
    index: int
    analytic: float
    numeric: float
    error: float
    checked: int


@dataclass(frozen=True)
class Report:
    """What a check found; `parts` in the order of the vector, only those with a checked coordinate."""

    parts: tuple[Worst, ...]
    tolerance: float

    @property
    def worst(self) -> Worst:
        return max(self.parts, key=lambda part: part.error)

    @property
    def passed(self) -> bool:
        return self.worst.error < self.tolerance

    def __str__(self) -> str:
        worst, checked = self.worst, sum(part.checked for part in self.parts)
        if self.passed:
            return f"gradients agree: {checked} checked, largest relative error {worst.error:.1e}"
        return (
            f"gradients disagree: {worst.part}[{worst.index}] is {worst.analytic:.10g}, but central"
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
) -> Report:
    """Compare `analytic` (like `x`) with central differences of `f` at `x`; see `numeric_gradient`.

    `parts`: name -> slice of the flat vector, for the report (None: one part called "x"). `indices`: flat
    coordinates to check (None: all). Copies `analytic` first, so `f` may overwrite it. Costs 4 calls of `f`
    for each coordinate, and as many for each step that it is tried again with.
    """
    chosen = np.arange(x.size) if indices is None else np.asarray(indices, dtype=np.intp)
    if analytic.shape != x.shape:
        raise ValueError(f"the gradient has shape {analytic.shape}, but x has {x.shape}")
    if len(chosen) == 0:
        raise ValueError("no coordinate to check")
    claimed = analytic.reshape(-1)[chosen].astype(np.float64)
    scale = FLOOR * float(np.abs(claimed[np.isfinite(claimed)]).max(initial=0.0))
    here = f(x)
    numeric = np.empty(len(chosen))
    error = np.full(len(chosen), np.inf)
    for step in STEPS:
        open_places = np.flatnonzero(~(error < tolerance))
        estimate = numeric_gradient(f, x, chosen[open_places], step)
        new_error = _error(claimed[open_places], estimate, scale, ROUNDING * abs(here) / step, tolerance)
        better = new_error <= error[open_places]
        numeric[open_places[better]] = estimate[better]
        error[open_places[better]] = new_error[better]
    _try_sides(f, x, here, chosen, claimed, numeric, error, scale, tolerance)
    parts = parts or {"x": slice(0, x.size)}
    return Report(tuple(_worst_parts(parts, chosen, claimed, numeric, error)), tolerance)


def _try_sides(
    f: Callable[[Vector], float],
    x: Vector,
    here: float,
    chosen: NDArray[np.intp],
    claimed: Vector,
    numeric: Vector,
    error: Vector,
    scale: float,
    tolerance: float,
) -> None:
    """Puts the derivative of the better side, and its error, in place of those of coordinates that agree with
    it and have disagreed before."""
    places = np.flatnonzero(~(error < tolerance))
    for step in SIDE_STEPS:
        if not len(places):
            return
        left, right = side_gradients(f, x, here, chosen[places], step)
        rounding, mine = ROUNDING * abs(here) / step, claimed[places]
        kinks = _error(left, right, scale, 2 * rounding, tolerance) >= tolerance
        nearer = np.where(np.abs(left - mine) < np.abs(right - mine), left, right)
        off = _error(mine, nearer, scale, rounding, tolerance)
        agree = off < tolerance
        numeric[places[agree]], error[places[agree]] = nearer[agree], off[agree]
        places = places[kinks & ~agree]


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
                )
            )
    return found
