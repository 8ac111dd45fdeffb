"""Learning-rate schedules. The contract, then each schedule, simplest first.

A schedule is a pure function of the position in training:

    rate(base_rate, progress) -> the learning rate of the update that follows `progress.step` updates

It holds no state, so a resumed run continues on the same curve. The conventions are PyTorch's
(`torch.optim.lr_scheduler`), with one scheduler step for each update. Every duration is given either in
updates (`..._steps`) or in epochs (`..._epochs`, may be a fraction; rounded to whole updates). Smooth
schedules change at every update with either unit. Many PyTorch scripts change the rate once an epoch; `step`
does that.

`reduce_on_plateau` also depends on a metric. It is a pure function too: its state comes with
`progress.plateau`, and `observe` returns the next state (see `ReduceOnPlateau`).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from distbp.core.options import option, registry
from distbp.nn.ops.elements import flat_cosine
from distbp.optim.plateau import PlateauState as PlateauState
from distbp.optim.plateau import Progress as Progress
from distbp.optim.plateau import ReduceOnPlateau as ReduceOnPlateau
from distbp.optim.plateau import Schedule as Schedule


def _check_one(name: str, steps: int | None, epochs: float | None, *, required: bool = True) -> None:
    if steps is not None and epochs is not None:
        raise ValueError(f"give {name}_steps or {name}_epochs, not both")
    if required and steps is None and epochs is None:
        raise ValueError(f"needs {name}_steps (updates) or {name}_epochs")


def _updates(steps: int | None, epochs: float | None, progress: Progress) -> int:
    """A duration in updates, at least 1. If `steps` and `epochs` are None, it is the whole job."""
    if epochs is not None:
        return max(1, round(epochs * progress.steps_per_epoch))
    return max(1, progress.total_steps if steps is None else steps)


@dataclass(frozen=True)
class Constant:
    """The base rate, always."""

    type: Literal["constant"] = "constant"

    def rate(self, base_rate: float, progress: Progress) -> float:
        return base_rate


@dataclass(frozen=True)
class StepDecay:
    """base * factor ** floor(t / every). PyTorch's StepLR. `every_epochs` is 1 where neither is given."""

    type: Literal["step"] = "step"
    every_steps: int | None = option(None, help="updates between two reductions", gt=0)
    every_epochs: float | None = option(None, help="epochs between two reductions", gt=0)
    factor: float = option(0.1, help="multiplies the rate at each reduction", gt=0)

    def __post_init__(self) -> None:
        _check_one("every", self.every_steps, self.every_epochs, required=False)

    def rate(self, base_rate: float, progress: Progress) -> float:
        epochs = 1.0 if self.every_steps is None and self.every_epochs is None else self.every_epochs
        return base_rate * self.factor ** (progress.step // _updates(self.every_steps, epochs, progress))


@dataclass(frozen=True)
class Exponential:
    """base * factor ** (t / every), smoothly. PyTorch's ExponentialLR with `every_steps: 1`; one epoch where
    neither duration is given."""

    type: Literal["exponential"] = "exponential"
    every_steps: int | None = option(None, help="updates in which the rate falls by `factor`", gt=0)
    every_epochs: float | None = option(None, help="epochs in which the rate falls by `factor`", gt=0)
    factor: float = option(0.9, help="the rate after `every`, as a part of the rate before", gt=0)

    def __post_init__(self) -> None:
        _check_one("every", self.every_steps, self.every_epochs, required=False)

    def rate(self, base_rate: float, progress: Progress) -> float:
        epochs = 1.0 if self.every_steps is None and self.every_epochs is None else self.every_epochs
        exponent = progress.step / _updates(self.every_steps, epochs, progress)
        return float(base_rate * self.factor**exponent)


@dataclass(frozen=True)
class Polynomial:
    """minimum + (base - minimum) * (1 - t / T) ** power until T, then the minimum. PyTorch's PolynomialLR
    (whose minimum is 0). T is the whole job where no duration is given."""

    type: Literal["polynomial"] = "polynomial"
    duration_steps: int | None = option(None, help="updates until the minimum", gt=0)
    duration_epochs: float | None = option(None, help="epochs until the minimum", gt=0)
    power: float = option(1.0, help="1 is a straight line", gt=0)
    minimum_rate: float = option(0.0, help="the rate at the end", ge=0)

    def __post_init__(self) -> None:
        _check_one("duration", self.duration_steps, self.duration_epochs, required=False)

    def rate(self, base_rate: float, progress: Progress) -> float:
        duration = _updates(self.duration_steps, self.duration_epochs, progress)
        left = 1 - min(progress.step, duration) / duration
        return float(self.minimum_rate + (base_rate - self.minimum_rate) * left**self.power)


def _cosine(start: float, end: float, part: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * part)) / 2


@dataclass(frozen=True)
class Cosine:
    """minimum + (base - minimum) * (1 + cos(pi t / T)) / 2 (Loshchilov and Hutter, SGDR, 2017).

    With `restarts`, t starts again at 0 after each period T, and each period is `period_growth` times as
    long as the one before (PyTorch's CosineAnnealingWarmRestarts). Without, the rate stays at the minimum
    after T (PyTorch's CosineAnnealingLR until T; that one climbs again afterwards). T is the whole job
    where no period is given.
    """

    type: Literal["cosine"] = "cosine"
    period_steps: int | None = option(None, help="updates in the first period", gt=0)
    period_epochs: float | None = option(None, help="epochs in the first period", gt=0)
    restarts: bool = option(False, help="jump back to the base rate after each period")
    period_growth: int = option(1, help="each period is this many times as long as the last", ge=1)
    minimum_rate: float = option(0.0, help="the rate at the end of a period", ge=0)

    def __post_init__(self) -> None:
        _check_one("period", self.period_steps, self.period_epochs, required=self.restarts)

    def rate(self, base_rate: float, progress: Progress) -> float:
        period = _updates(self.period_steps, self.period_epochs, progress)
        step = progress.step
        if not self.restarts:
            return _cosine(base_rate, self.minimum_rate, min(step, period) / period)
        if self.period_growth == 1:
            return _cosine(base_rate, self.minimum_rate, step % period / period)
        while step >= period:
            step -= period
            period *= self.period_growth
        return _cosine(base_rate, self.minimum_rate, step / period)


@dataclass(frozen=True)
class FlatCosine:
    """The base rate until the share `flat` of T, then down along a cosine to the minimum at T. T is the whole
    job. With a share of a half it is the schedule of dropout and weight decay in Holzmueller et al., "Better
    by Default", NeurIPS 2024, appendix A."""

    type: Literal["flat_cosine"] = "flat_cosine"
    flat: float = option(0.5, help="the share of the job before the rate falls", ge=0, lt=1)
    minimum_rate: float = option(0.0, help="the rate at the end", ge=0)

    def rate(self, base_rate: float, progress: Progress) -> float:
        left = flat_cosine(progress.step, progress.total_steps, self.flat)
        return self.minimum_rate + (base_rate - self.minimum_rate) * left


@dataclass(frozen=True)
class CosineLog:
    """base * (1 - cos(2 pi log2(1 + (2^cycles - 1) t / T))) / 2: it rises from 0 and falls to 0 so many
    times, each time in twice as many steps as the time before. T is the whole job. Holzmueller et al.,
    "Better by Default", NeurIPS 2024, section 3 (coslog_4)."""

    type: Literal["cosine_log"] = "cosine_log"
    cycles: int = option(4, help="how often the rate rises and falls", ge=1, le=32)

    def rate(self, base_rate: float, progress: Progress) -> float:
        part = min(progress.step / max(1, progress.total_steps), 1.0)
        turns = math.log2(1 + (2**self.cycles - 1) * part)
        return base_rate * (1 - math.cos(2 * math.pi * turns)) / 2


@dataclass(frozen=True)
class WarmUp:
    """base * (start_factor + (1 - start_factor) * t / T) before T, then the schedule `then`, which counts its
    steps from T. PyTorch's SequentialLR of a LinearLR and `then`."""

    type: Literal["warm_up"] = "warm_up"
    warmup_steps: int | None = option(None, help="updates until the base rate", gt=0)
    warmup_epochs: float | None = option(None, help="epochs until the base rate", gt=0)
    start_factor: float = option(1 / 3, help="the first rate, as a part of the base rate", gt=0, le=1)
    then: Schedule = option(Constant(), help="the schedule after the warm-up", choices="schedules")

    def __post_init__(self) -> None:
        _check_one("warmup", self.warmup_steps, self.warmup_epochs)

    def rate(self, base_rate: float, progress: Progress) -> float:
        duration = _updates(self.warmup_steps, self.warmup_epochs, progress)
        if progress.step < duration:
            return base_rate * (self.start_factor + (1 - self.start_factor) * progress.step / duration)
        rest = dataclasses.replace(
            progress, step=progress.step - duration, total_steps=max(1, progress.total_steps - duration)
        )
        return self.then.rate(base_rate, rest)


@dataclass(frozen=True)
class OneCycle:
    """Up from base / start_divisor to base, then down to base / start_divisor / final_divisor (Smith and
    Topin, 2018). PyTorch's OneCycleLR with `max_lr` the base rate, two phases, and momentum left alone
    (PyTorch's `cycle_momentum=False`). Where less than one update would rise, it begins with the base rate;
    PyTorch begins a little below."""

    type: Literal["one_cycle"] = "one_cycle"
    duration_steps: int | None = option(None, help="updates in the cycle; the whole job if not given", gt=1)
    duration_epochs: float | None = option(None, help="epochs in the cycle", gt=0)
    rising: float = option(0.3, help="the part of the cycle in which the rate rises", gt=0, lt=1)
    start_divisor: float = option(25.0, help="base rate / first rate", ge=1)
    final_divisor: float = option(1e4, help="first rate / last rate", ge=1)
    shape: Literal["cosine", "linear"] = option("cosine", help="of the two slopes")

    def __post_init__(self) -> None:
        _check_one("duration", self.duration_steps, self.duration_epochs, required=False)

    def rate(self, base_rate: float, progress: Progress) -> float:
        last = _updates(self.duration_steps, self.duration_epochs, progress) - 1
        peak = max(0.0, self.rising * (last + 1) - 1)  # the step of the highest rate; may be a fraction
        start = base_rate / self.start_divisor
        if progress.step <= peak and peak > 0:
            return self._slope(start, base_rate, progress.step / peak)
        part = (progress.step - peak) / (last - peak) if last > peak else 1.0
        return self._slope(base_rate, start / self.final_divisor, min(part, 1.0))

    def _slope(self, start: float, end: float, part: float) -> float:
        return _cosine(start, end, part) if self.shape == "cosine" else start + (end - start) * part


def plateau_of(schedule: Any) -> ReduceOnPlateau | None:
    """The `reduce_on_plateau` in a schedule: the schedule itself, or the one after its warm-ups; else None.
    The trainer must call its `observe`."""
    while isinstance(schedule, WarmUp):
        schedule = schedule.then
    return schedule if isinstance(schedule, ReduceOnPlateau) else None


SCHEDULES: Mapping[str, type] = registry(
    Constant,
    StepDecay,
    Exponential,
    Polynomial,
    Cosine,
    FlatCosine,
    CosineLog,
    WarmUp,
    OneCycle,
    ReduceOnPlateau,
)
