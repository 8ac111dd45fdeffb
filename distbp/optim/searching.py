"""The engine of methods that search along a line: its work between two evaluations.

`probe` writes the trial to the parameters. The caller evaluates loss and gradient there and hands them to
`apply_measured`, which writes the point back: the parameters that were accepted last. So between two steps
the parameters are always an accepted point, never a trial, and training may end there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from distbp.core.arrays import Array, aligned_vector
from distbp.core.reduction import PIECE
from distbp.optim.groups import ordered
from distbp.optim.line_search import ACCEPTED, FAILED, GOING_ON, End, Line, advance, begin
from distbp.optim.parts import Step
from distbp.optim.updater import cut, sum_of_squares
from distbp.optim.whole_batch import WholeBatch, dot

NUMBERS = "search"  # the slot that holds `Found`, float64
# The relative difference up to which two loss values count as equal. It is far above the rounding error of
# one number, since outputs may be large compared with their differences from the targets.
ROUNDING = {"float32": 1e-5, "float64": 1e-10}
STALE = 50  # iterations without a lower loss or a clearly smaller gradient; then only rounding errors change
SEARCHING, CONVERGED, STUCK = range(3)


class Found(NamedTuple):
    """The state of the method except for its vectors. `loss`: the mean loss at the point, without the
    penalty. `norm`: the norm of the gradient at the point, with the penalty. `evaluations`: evaluations so
    far. `iterations`: points accepted after the first one. `accepted`: points accepted since the method last
    started afresh. `stale`: points accepted since the last improvement. `lowest`, `smallest`: the least value
    (with the penalty) and norm so far. `state`: SEARCHING, CONVERGED or STUCK."""

    line: Line
    loss: float = 0.0
    norm: float = 0.0
    evaluations: float = 0.0
    iterations: float = 0.0
    accepted: float = 0.0
    stale: float = 0.0
    lowest: float = math.inf
    smallest: float = math.inf
    state: float = SEARCHING

    def flat(self) -> list[float]:
        phase, step, *ends, tries = self.line
        return [phase, step, *(number for end in ends for number in end), tries, *self[1:]]

    def counted(self, value: float, norm: float, epsilon: float) -> Found:
        """This state after one more accepted point with a value and a norm. epsilon: that of the dtype."""
        better = value < self.lowest - 4 * epsilon * abs(value) or norm < 0.9 * self.smallest
        stale = 0.0 if better else self.stale + 1
        return self._replace(stale=stale, lowest=min(value, self.lowest), smallest=min(norm, self.smallest))

    @staticmethod
    def of(numbers: Sequence[float]) -> Found:
        start, low, high = (End(*numbers[at : at + 3]) for at in (2, 5, 8))
        return Found(Line(numbers[0], numbers[1], start, low, high, numbers[11]), *numbers[12:])


class Searching:
    """Updates `parameters` in place by a method.

    parameters: (n,), float32 or float64. decays: stretches to which the penalty `l2` applies. tensors:
    stretches that are measured separately. slots: the saved state, by name, which is copied; None: a new
    state. Raises ValueError if the slots do not fit.
    """

    compiled = False  # an evaluation is a pass over all data, so this code takes almost none of the time
    one_pass = False

    def __init__(
        self,
        method: WholeBatch,
        parameters: Array,
        decays: Sequence[tuple[int, int]],
        *,
        l2: float = 0.0,
        tensors: Sequence[tuple[int, int]] = (),
        slots: Mapping[str, Array] | None = None,
    ) -> None:
        self.method = method
        self.parameters = parameters
        decaying = ordered(decays, parameters.size)
        self.parts = cut(tensors, [(a, b, 1) for a, b in decaying], PIECE)
        self.slots = _slots(method, parameters, slots)
        self._decays = [slice(a, b) for a, b in decaying]
        self._l2 = l2
        self._point = aligned_vector(parameters.size, parameters.dtype)
        self._point[:] = parameters
        self._trial = aligned_vector(parameters.size, parameters.dtype)

    @property
    def found(self) -> Found:
        return Found.of(self.slots[NUMBERS].tolist())

    @property
    def bears_infinity(self) -> bool:
        """Whether the next evaluation may give a loss that is not finite, because the step is too long."""
        return self.found.evaluations > 0

    def probe(self) -> None:
        """Writes the trial to the parameters."""
        step = self.parameters.dtype.type(self.found.line.step)
        if step:
            np.multiply(self.slots["direction"], step, out=self.parameters)
            np.add(self.parameters, self._point, out=self.parameters)

    def apply_measured(self, gradient: Array, step: Step, scale: float) -> Array:
        """Takes the evaluation of the trial: the mean loss `step.loss` and the gradient `scale * gradient`.
        `gradient` is overwritten. Writes the point to the parameters. Returns the sums of squares of each
        part, (parts, 3) float64: of the gradient at the point, of the parameters before, and of their
        change."""
        found, point = self.found, self._point
        self._trial[:] = self.parameters
        np.multiply(gradient, gradient.dtype.type(scale), out=gradient)
        value = step.loss + self._penalize(gradient)
        self.parameters[:] = point  # `_next` changes it if the trial is accepted
        found = self._next(found._replace(evaluations=found.evaluations + 1), step.loss, value, gradient)
        self.slots[NUMBERS][:] = found.flat()
        measured = self.slots["gradient"], point, self.parameters - point
        squares = np.array([[sum_of_squares(one[a:b]) for one in measured] for a, b, _ in self.parts])
        point[:] = self.parameters
        return squares.reshape(-1, 3)

    def close(self) -> None:
        """Does nothing: there are no threads to end (see `Updater.close`)."""

    def _penalize(self, gradient: Array) -> float:
        """Adds the gradient of the penalty l2 / 2 * sum of p^2 at the trial. Returns the penalty."""
        penalty = 0.0
        for place in self._decays if self._l2 else ():
            trial = self._trial[place]
            gradient[place] += gradient.dtype.type(self._l2) * trial
            penalty += 0.5 * self._l2 * dot(trial, trial)
        return penalty

    def _next(self, found: Found, loss: float, value: float, gradient: Array) -> Found:
        if found.state != SEARCHING:
            return found
        if found.evaluations == 1:
            return self._afresh(found._replace(loss=loss), value, gradient)
        slope = dot(gradient, self.slots["direction"])
        rounding = ROUNDING[gradient.dtype.name] * abs(found.line.start.value)
        method = self.method
        line = advance(found.line, value, slope, method.curvature, rounding, method.on_parabola)
        found = found._replace(line=line)
        if line.phase == FAILED:
            if found.accepted == 0:  # steepest descent has failed, too
                return self._ended(found, STUCK)
            return self._afresh(found, line.start.value, self.slots["gradient"])
        return self._accept(found, loss, value, gradient) if line.phase == ACCEPTED else found

    def _afresh(self, found: Found, value: float, gradient: Array) -> Found:
        """Starts afresh at the point, along steepest descent. gradient: the gradient at the point."""
        norm = math.sqrt(dot(gradient, gradient))
        self.slots["gradient"][:] = gradient
        np.negative(gradient, out=self.slots["direction"])
        found = found._replace(norm=norm, accepted=0.0)
        if norm <= self.method.tolerance:
            return self._ended(found, CONVERGED)
        return found._replace(line=begin(value, -norm * norm, min(1.0, 1.0 / norm)))

    def _accept(self, found: Found, loss: float, value: float, gradient: Array) -> Found:
        """The trial is the new point."""
        line, accepted = found.line, found.accepted + 1
        self.parameters[:] = self._trial
        moved = self._trial - self._point
        first = self.method.turn(self.slots, gradient, moved, int(accepted))
        self.slots["gradient"][:] = gradient
        norm = math.sqrt(dot(gradient, gradient))
        found = found._replace(loss=loss, norm=norm, iterations=found.iterations + 1, accepted=accepted)
        if norm <= self.method.tolerance:
            return self._ended(found, CONVERGED)
        found = found.counted(value, norm, float(np.finfo(gradient.dtype).eps))
        if found.stale >= STALE:
            return self._ended(found, STUCK)
        slope = dot(gradient, self.slots["direction"])
        if not slope < 0:
            return self._afresh(found, value, gradient)
        # The step that, to first order, changes the value as much as the last one (Nocedal and Wright, 3.5).
        return found._replace(line=begin(value, slope, first or line.step * line.start.slope / slope))

    def _ended(self, found: Found, state: int) -> Found:
        return found._replace(state=state, line=found.line._replace(phase=GOING_ON, step=0.0))

    @property
    def verdict(self) -> str:
        """Why training is done, for the user; "": it is not."""
        found = self.found
        count = f"{int(found.iterations):,} iterations, {int(found.evaluations):,} evaluations"
        if found.state == CONVERGED:
            return (
                f"converged after {count}: the gradient's norm is {found.norm:.3g}, and tolerance is"
                f" {self.method.tolerance:g}"
            )
        if found.state == STUCK:
            return (
                f"converged after {count}: no step lowers the loss beyond rounding; the gradient's norm is"
                f" {found.norm:.3g} (tolerance {self.method.tolerance:g} was not reached)"
            )
        return ""


def _slots(method: WholeBatch, like: Array, given: Mapping[str, Array] | None) -> dict[str, Array]:
    fresh = {name: aligned_vector(like.size, like.dtype) for name in ("direction", "gradient")}
    for name, count in method.slots.items():
        fresh[name] = aligned_vector(count * like.size, like.dtype).reshape(count, like.size)
    fresh[NUMBERS] = np.array(Found(begin(0.0, 0.0, 0.0)).flat())
    if given is None:
        return fresh
    for name in fresh.keys() | given.keys():
        shapes = [one[name].shape if name in one else None for one in (given, fresh)]
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"the saved state of {method.type} has {name!r} of shape {shapes[0]}, but {shapes[1]} is"
                " needed; resume with the optimizer that wrote it"
            )
        fresh[name][...] = given[name]
    return fresh
