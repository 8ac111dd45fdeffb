"""Gradient checking: an analytic gradient against central differences, in float64.

    f'(x) = (f(x - 2h) - 8 f(x - h) + 8 f(x + h) - f(x + 2h)) / 12h + O(h^4)

(Abramowitz and Stegun, 25.3.6.) With h near eps^(1/5) the errors of the formula and of rounding are both
about 1e-12, where the usual two-point difference reaches 1e-10. A kink between x - 2h and x + 2h (ReLU,
hinge) spoils the difference, so a coordinate that disagrees is tried again with smaller steps: a wrong
gradient disagrees at all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]

STEPS = (1e-3, 1e-4, 1e-5, 1e-6)
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


def relative_error(a: Vector, b: Vector, scale: float = 0.0) -> Vector:
    """|a - b| / max(|a|, |b|, scale), by element; 0 where both are 0, inf where one is not finite."""
    finite = np.isfinite(a) & np.isfinite(b)
    a, b = np.where(finite, a, 0), np.where(finite, b, 0)
    size = np.maximum(np.maximum(np.abs(a), np.abs(b)), scale)
    error = np.divide(np.abs(a - b), size, out=np.zeros_like(size), where=size > 0)
    return np.where(finite, error, np.inf)


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
    for each coordinate.
    """
    chosen = np.arange(x.size) if indices is None else np.asarray(indices, dtype=np.intp)
    if analytic.shape != x.shape:
        raise ValueError(f"the gradient has shape {analytic.shape}, but x has {x.shape}")
    if len(chosen) == 0:
        raise ValueError("no coordinate to check")
    claimed = analytic.reshape(-1)[chosen].astype(np.float64)
    scale = FLOOR * float(np.abs(claimed[np.isfinite(claimed)]).max(initial=0.0))
    numeric = np.empty(len(chosen))
    error = np.full(len(chosen), np.inf)
    for step in STEPS:
        open_places = np.flatnonzero(~(error < tolerance))
        estimate = numeric_gradient(f, x, chosen[open_places], step)
        new_error = relative_error(claimed[open_places], estimate, scale)
        better = new_error <= error[open_places]
        numeric[open_places[better]] = estimate[better]
        error[open_places[better]] = new_error[better]
    parts = parts or {"x": slice(0, x.size)}
    return Report(tuple(_worst_parts(parts, chosen, claimed, numeric, error)), tolerance)


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
