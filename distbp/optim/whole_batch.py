"""Methods that search along a line, with loss and gradient of the whole training set.

A method chooses the direction at each new point; `distbp.optim.line_search` finds the step size. One step of
training is one evaluation. `distbp.optim.searching` does the work before and after it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import numpy as np

from distbp.core.arrays import Array
from distbp.core.options import option
from distbp.core.reduction import PIECE
from distbp.optim.facts import OptimizerFacts

_TOLERANCE_HELP = "training ends where the Euclidean norm of the gradient is at most this"
_CURVATURE_HELP = (
    "a step is long enough where the slope has fallen to this share (c2 of the Wolfe conditions)"
)


def dot(a: Array, b: Array) -> float:
    """Returns the sum of a * b in float64. a, b: (n,). Pieces of PIECE numbers are added in order."""
    total = 0.0
    for start in range(0, a.size, PIECE):
        x, y = a[start : start + PIECE], b[start : start + PIECE]
        total += float(np.dot(x.astype(np.float64, copy=False), y.astype(np.float64, copy=False)))
    return total


class WholeBatch(Protocol):
    """The interface of such a method. `slots`: name -> the number of vectors that it keeps besides the
    direction and the gradient at the point. `on_parabola`, `curvature`: see `line_search.advance`."""

    on_parabola: ClassVar[float]

    @property
    def type(self) -> str: ...

    @property
    def tolerance(self) -> float: ...

    @property
    def curvature(self) -> float: ...

    @property
    def slots(self) -> Mapping[str, int]: ...

    def turn(self, slots: Mapping[str, Array], gradient: Array, moved: Array, accepted: int) -> float:
        """Writes the direction from a new point to `slots["direction"]`, which holds the last direction.
        Returns the first step to try along it; 0: none is known. `slots["gradient"]`: the gradient at the old
        point. `gradient`: that at the new point. `moved`: the new point minus the old one. `accepted`: the
        number of points accepted since the method started afresh, including this one."""
        ...


@dataclass(frozen=True)
class ConjugateGradient(OptimizerFacts):
    """d <- -g + beta d with beta = max(0, g (g - g_before) / g_before^2): non-linear conjugate gradients of
    Polak and Ribiere, which begin afresh where beta would be negative (Nocedal and Wright, "Numerical
    Optimization", 2nd ed., section 5.2). Each step is one pass over the training set."""

    whole_batch: ClassVar[bool] = True
    on_parabola: ClassVar[float] = 0.001  # the steps of a least-squares problem are then exact

    type: Literal["conjugate_gradient"] = "conjugate_gradient"
    tolerance: float = option(1e-5, help=_TOLERANCE_HELP, ge=0)
    curvature: float = option(0.2, help=_CURVATURE_HELP, gt=1e-4, lt=0.5)

    @property
    def slots(self) -> Mapping[str, int]:
        return {}

    def turn(self, slots: Mapping[str, Array], gradient: Array, moved: Array, accepted: int) -> float:
        before, direction = slots["gradient"], slots["direction"]
        length = dot(before, before)
        change = dot(gradient, gradient) - dot(gradient, before)
        beta = max(0.0, change / length) if length > 0 else 0.0
        np.multiply(direction, direction.dtype.type(beta), out=direction)
        np.subtract(direction, gradient, out=direction)
        return 0.0


@dataclass(frozen=True)
class LBFGS(OptimizerFacts):
    """d <- -H g, H the inverse Hessian as the last `history` steps show it, by the two loops of J. Nocedal
    (Math. of Computation 35, 1980; Nocedal and Wright, "Numerical Optimization", 2nd ed., algorithm 7.4).
    Each step is one pass over the training set."""

    whole_batch: ClassVar[bool] = True
    on_parabola: ClassVar[float] = 1.0  # a second trial costs more than it gains

    type: Literal["lbfgs"] = "lbfgs"
    history: int = option(10, help="steps that are remembered: two vectors each", ge=1, le=100)
    tolerance: float = option(1e-5, help=_TOLERANCE_HELP, ge=0)
    curvature: float = option(0.9, help=_CURVATURE_HELP, gt=1e-4, lt=1)

    @property
    def slots(self) -> Mapping[str, int]:
        return {"moves": self.history, "changes": self.history}

    def turn(self, slots: Mapping[str, Array], gradient: Array, moved: Array, accepted: int) -> float:
        moves, changes, u = slots["moves"], slots["changes"], slots["direction"]
        here = (accepted - 1) % self.history
        moves[here] = moved
        np.subtract(gradient, slots["gradient"], out=changes[here])
        newest_first = [(accepted - 1 - n) % self.history for n in range(min(accepted, self.history))]
        # Only a pair whose curvature is lost to rounding fails this test. It would make H unbounded.
        bends = {n: dot(moves[n], changes[n]) for n in newest_first}
        pairs = [n for n in newest_first if bends[n] > np.finfo(u.dtype).eps * dot(changes[n], changes[n])]
        np.negative(gradient, out=u)
        shares = {}
        for n in pairs:
            shares[n] = dot(moves[n], u) / bends[n]
            np.subtract(u, u.dtype.type(shares[n]) * changes[n], out=u)
        if pairs:
            newest = pairs[0]
            size = bends[newest] / dot(changes[newest], changes[newest])
            np.multiply(u, u.dtype.type(size), out=u)
        for n in reversed(pairs):
            share = shares[n] - dot(changes[n], u) / bends[n]
            np.add(u, u.dtype.type(share) * moves[n], out=u)
        return 1.0 if pairs else 0.0
