"""The input of schedules, and the schedule that depends on a metric (see `distbp.optim.schedules`)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Protocol

from distbp.core.options import option


@dataclass(frozen=True)
class PlateauState:
    """The state of `reduce_on_plateau`. `dataclasses.asdict` makes JSON data of it, and
    `PlateauState(**data)` restores it.

    `best`: the best metric so far; None: there was none yet. `bad`: consecutive observations without
    improvement. `cooling`: the number of next observations that do not count as bad. `rate`: the reduced
    rate; None: not reduced yet.
    """

    best: float | None = None
    bad: int = 0
    cooling: int = 0
    rate: float | None = None


@dataclass(frozen=True)
class Progress:
    """The position in training. `step`: the number of updates before the one whose rate is wanted (0 for the
    first update). `total_steps`: updates in the whole job."""

    step: int
    steps_per_epoch: int
    total_steps: int
    plateau: PlateauState = PlateauState()


class Schedule(Protocol):
    """The interface of all schedules. `type`: the name in a job. `rate`: see `distbp.optim.schedules`."""

    @property
    def type(self) -> str: ...

    def rate(self, base_rate: float, progress: Progress) -> float: ...


@dataclass(frozen=True)
class ReduceOnPlateau:
    """Multiplies the rate by `factor` when a metric has not improved for more than `patience` evaluations.

    PyTorch's ReduceLROnPlateau, one `observe` for each evaluation, but for metrics below 0: there, too, an
    improvement is one by more than the threshold, relative to the magnitude of the best (PyTorch takes a
    slightly worse one for better). A metric that is NaN is no improvement; training does not tell of those.
    """

    type: Literal["reduce_on_plateau"] = "reduce_on_plateau"
    metric: str = option("validation_loss", help="the metric to watch")
    mode: Literal["min", "max"] = option("min", help="whether a lower or a higher metric is better")
    factor: float = option(0.1, help="multiplies the rate at each reduction", gt=0, lt=1)
    patience: int = option(10, help="evaluations without improvement that are forgiven", ge=0)
    threshold: float = option(1e-4, help="improvements smaller than this do not count", ge=0)
    threshold_mode: Literal["relative", "absolute"] = option("relative", help="to the best metric, or not")
    cooldown: int = option(0, help="evaluations after a reduction in which none is counted", ge=0)
    minimum_rate: float = option(0.0, help="the rate never falls below this", ge=0)
    minimum_change: float = option(1e-8, help="a reduction by less than this is not made", ge=0)

    def rate(self, base_rate: float, progress: Progress) -> float:
        return base_rate if progress.plateau.rate is None else progress.plateau.rate

    def observe(self, state: PlateauState, base_rate: float, metric: float) -> PlateauState:
        """The state after one more evaluation, whose result is `metric`. A pure function."""
        better = self._improves(state.best, metric)
        best = metric if better else state.best
        bad = 0 if better else state.bad + 1
        cooling = state.cooling
        if cooling > 0:
            cooling, bad = cooling - 1, 0
        rate = state.rate
        if bad > self.patience:
            old = base_rate if rate is None else rate
            new = max(old * self.factor, self.minimum_rate)
            rate = new if old - new > self.minimum_change else rate
            cooling, bad = self.cooldown, 0
        return PlateauState(best, bad, cooling, rate)

    def _improves(self, best: float | None, metric: float) -> bool:
        # A first metric of infinity or NaN is no improvement either.
        sign = 1.0 if self.mode == "min" else -1.0
        if best is None:
            return sign * metric < math.inf
        size = abs(best) if self.threshold_mode == "relative" else 1.0
        return sign * metric < sign * best - self.threshold * size
