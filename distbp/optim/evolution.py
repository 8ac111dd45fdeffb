"""Evolution strategies: a direction from the losses of perturbed copies of the parameters.

T. Salimans, J. Ho, X. Chen, S. Sidor, I. Sutskever, "Evolution Strategies as a Scalable Alternative to
Reinforcement Learning" (2017), algorithm 2: a copy is p + sigma e with e drawn from N(0, 1), in pairs of e
and -e (antithetic). Every process draws e itself from its position (step, pair), so only losses are sent.
Losses are replaced by their ranks, from -1/2 to 1/2, which depend neither on outliers nor on the unit of the
loss.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from distbp.core.arrays import Array
from distbp.core.options import OptionError, option
from distbp.core.streams import Purpose, Stream
from distbp.optim.facts import OptimizerFacts
from distbp.optim.parts import AddL2, Part, ScaleByAdam, ScaleByLearningRate
from distbp.optim.schedules import Constant, Schedule


@dataclass(frozen=True)
class Evolution(OptimizerFacts):
    """g <- the sum over copies of rank * e, divided by population * sigma; then Adam's step. No derivative
    is needed, so networks with step activations can be trained (Salimans et al., 2017; antithetic pairs,
    ranks)."""

    type: Literal["evolution"] = "evolution"
    learning_rate: float = option(0.01, help="step size", gt=0)
    population: int = option(50, help="copies in a step, an even number", ge=2, le=10_000)
    sigma: float = option(0.1, help="the deviation of each parameter of a copy", gt=0)
    beta1: float = option(0.9, help="the part of the first moment that is kept", ge=0, lt=1)
    beta2: float = option(0.999, help="the part of the second moment that is kept", ge=0, lt=1)
    schedule: Schedule = option(
        Constant(), help="how the learning rate changes during training", choices="schedules"
    )
    weight_decay: float = option(0.0, help="times the weight, added to the direction (coupled)", ge=0)

    def __post_init__(self) -> None:
        if self.population % 2:
            raise OptionError("population", f"must be even, as copies come in pairs, not {self.population}")

    @property
    def copies(self) -> int:
        return self.population

    @property
    def passes(self) -> float:
        return self.population / 3  # forward passes only; a gradient takes as long as two of them

    def parts(self) -> tuple[Part, ...]:
        decay = (AddL2(self.weight_decay),) if self.weight_decay else ()
        return (*decay, ScaleByAdam(self.beta1, self.beta2), ScaleByLearningRate())


class Noise:
    """The noise e of every (step, pair): (count,) in `dtype`. `past`: the steps trained before this job. The
    array that `at` returns is overwritten by the next call."""

    def __init__(self, seed: int, count: int, dtype: Any, past: int = 0) -> None:
        self._stream, self._past = Stream(seed, Purpose.COPIES), past
        self._values = np.empty(count, dtype)

    def at(self, step: int, pair: int) -> Array:
        self._stream.at(self._past + step, pair).standard_normal(dtype=self._values.dtype, out=self._values)
        return self._values


def centered_ranks(losses: Array) -> Array:
    """Ranks of losses (n,) from -1/2 (the lowest loss) to 1/2: (n,) float64. Equal losses get the mean of
    their ranks. NaN and infinite losses are the highest."""
    known = np.where(np.isfinite(losses), losses, np.inf)
    _, place, counts = np.unique(known, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - (counts + 1) / 2  # the mean of the ranks 0, 1, ... of equal losses
    return np.asarray(middle[place] / (losses.size - 1) - 0.5)


def estimate(losses: Array, sigma: float, step: int, noise: Noise, out: Array) -> None:
    """Writes the direction to `out`, (parameters,). losses: (copies,), of pair n at 2n (plus) and 2n + 1
    (minus). Pairs are added in order."""
    ranks = centered_ranks(losses)
    shares = (ranks[0::2] - ranks[1::2]) / (losses.size * sigma)
    out.fill(0)
    for pair, share in enumerate(shares.tolist()):
        if share:
            values = noise.at(step, pair)
            np.multiply(values, values.dtype.type(share), out=values)
            np.add(out, values, out=out)
