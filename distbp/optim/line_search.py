"""A line search that asks for one evaluation at a time, as pure functions on numbers.

Along a direction d from the point p, phi(a) = E(p + a d). A step a is accepted if it satisfies the strong
Wolfe conditions: phi(a) <= phi(0) + c1 a phi'(0) and |phi'(a)| <= c2 |phi'(0)|. The search first lengthens
the step until it is too long. Then it narrows the bracket by the minimum of the cubic through both ends
(J. Nocedal and S. Wright, "Numerical Optimization", 2nd ed., algorithms 3.5 and 3.6, equation 3.59).

Close to a minimum, values differ by less than their rounding errors, so the first condition decides nothing.
Each comparison of values therefore allows for rounding, and slopes decide (the approximate Wolfe conditions
of W. Hager and H. Zhang, SIAM J. Optim. 16, 2005, section 3).

Conjugate gradients find the minimum of a quadratic function of n variables in n steps, if each step ends at
the minimum along its line (Nocedal and Wright, section 5.1). A first trial may satisfy the Wolfe conditions
and still lie off that minimum. The second trial then finds it, because the cubic through two points of a
parabola is the parabola. So where phi is a parabola, a method may demand more of the first trial.
"""

from __future__ import annotations

import math
from typing import NamedTuple

DECREASE = 1e-4  # c1
MOST_TRIES = 25  # evaluations along one line
FURTHER = 9.0  # the most by which a step grows, as a multiple of its last growth
NEAREST = 0.05  # the least distance of a trial from both ends of a bracket, as a share of its width
TRUSTED = 1e-3  # the same if both ends lie on a parabola, whose minimum is then known
NOT_FINITE = 0.1  # the place of a trial in a bracket whose other end is not finite, as a share of its width
NARROWEST = 1e-12  # the least width of a bracket, relative to its better end
PARABOLA = 1e-4  # the relative error of a parabola's fall up to which a line counts as a parabola

GOING_ON, NARROWING, LAST, ACCEPTED, FAILED = range(5)  # phases; LAST: the next trial is accepted in any case


class End(NamedTuple):
    """A step along the line, with value and slope at that step."""

    step: float
    value: float
    slope: float


class Line(NamedTuple):
    """The state of a search. `step`: the next trial. `start`: value and slope at 0. `low`: the best step so
    far. `high`: the other end of the bracket. `tries`: evaluations so far. All numbers are floats, so that
    one vector can hold them."""

    phase: float
    step: float
    start: End
    low: End
    high: End
    tries: float = 0.0


def begin(value: float, slope: float, step: float) -> Line:
    """Starts a search. value: the loss at the point. slope: the slope along the direction, below 0. step:
    the first trial."""
    here = End(0.0, value, slope)
    return Line(GOING_ON, step, here, here, here)


def advance(
    line: Line, value: float, slope: float, curvature: float, rounding: float, on_parabola: float = 1.0
) -> Line:
    """The search after one more evaluation. value, slope: those of the trial, which may be NaN or infinite.
    curvature: c2. rounding: the rounding error of a difference of values. on_parabola: c2 for the first trial
    if the line is a parabola and this is less than `curvature`."""
    trial, start, low = End(line.step, value, slope), line.start, line.low
    line = line._replace(tries=line.tries + 1)
    if line.phase == LAST:
        return line._replace(phase=ACCEPTED)
    finite = math.isfinite(value) and math.isfinite(slope)
    enough = finite and value <= start.value + DECREASE * trial.step * start.slope + rounding
    if not enough or (line.tries > 1 and value > low.value + rounding):
        return _narrow(line, low, trial, rounding)
    if line.tries == 1 and _is_parabola(start, trial, rounding):
        curvature = min(curvature, on_parabola)
    if abs(slope) <= -curvature * start.slope:
        return line._replace(phase=ACCEPTED)
    if line.phase == NARROWING:
        other = low if slope * (line.high.step - low.step) >= 0 else line.high
        return _narrow(line, trial, other, rounding)
    if slope >= 0:
        return _narrow(line, trial, low, rounding)
    if line.tries >= MOST_TRIES:
        return line._replace(phase=ACCEPTED)
    return line._replace(step=_further(low, trial, rounding), low=trial, high=low)


def _is_parabola(a: End, b: End, rounding: float) -> bool:
    """Whether both ends may lie on one parabola, whose values differ by the mean slope times the distance."""
    expected = 0.5 * (b.step - a.step) * (a.slope + b.slope)
    return abs(b.value - a.value - expected) <= PARABOLA * abs(expected) + rounding


def _narrow(line: Line, low: End, high: End, rounding: float) -> Line:
    """The search with a trial between `low`, the better end, and `high`; or in the phase LAST or FAILED, if
    the bracket is too narrow or there were too many trials."""
    width = high.step - low.step
    if line.tries >= MOST_TRIES or abs(width) <= NARROWEST * abs(low.step):
        if low.step == 0:
            return line._replace(phase=FAILED, step=0.0, low=low, high=high)
        return line._replace(phase=LAST, step=low.step, low=low, high=high)
    if not (math.isfinite(high.value) and math.isfinite(high.slope)):
        step = low.step + NOT_FINITE * width
    else:
        found = _minimum(low, high, rounding)
        share = 0.5 if found is None else (found - low.step) / width
        nearest = TRUSTED if _is_parabola(low, high, rounding) else NEAREST
        step = low.step + min(max(share, nearest), 1 - nearest) * width
    return line._replace(phase=NARROWING, step=step, low=low, high=high)


def _further(before: End, trial: End, rounding: float) -> float:
    """The step to try after `trial`, a longer one. At the trial the slope is still negative."""
    stretch = trial.step - before.step
    most = trial.step + FURTHER * stretch
    found = _minimum(before, trial, rounding)
    if found is None or found <= trial.step:
        return most
    nearest = TRUSTED if _is_parabola(before, trial, rounding) else NEAREST
    return min(max(found, trial.step + nearest * stretch), most)


def _minimum(a: End, b: End, rounding: float) -> float | None:
    """The step at which the cubic through both ends has its minimum; None: it has none. If the values differ
    by no more than `rounding`, the step at which the straight line through both slopes is 0."""
    width, bend = b.step - a.step, b.slope - a.slope
    if abs(b.value - a.value) <= rounding:
        return a.step - a.slope * width / bend if bend * width > 0 else None
    d1 = a.slope + b.slope - 3 * (b.value - a.value) / width
    square = d1 * d1 - a.slope * b.slope
    if not 0 <= square < math.inf:
        return None
    d2 = math.copysign(math.sqrt(square), width)
    below = bend + 2 * d2
    return None if below == 0 else b.step - width * (b.slope + d2 - d1) / below
