"""The optimizers that take a gradient. Each consists of its options and a short chain of parts.

Conventions are PyTorch's (`torch.optim`); the docstrings name those of other frameworks. `weight_decay` is
coupled (added to the gradient) except in `adamw`. It applies to weights only, unless the job sets
`regularization.biases`. PyTorch decays biases too, unless parameter groups exclude them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

from distbp.core.options import OptionError, option, registry
from distbp.optim.facts import OptimizerFacts
from distbp.optim.parts import (
    AddL1,
    AddL2,
    ClipByNorm,
    ClipByValue,
    DecayWeights,
    Part,
    ScaleByAdagrad,
    ScaleByAdam,
    ScaleByLearningRate,
    ScaleByRMS,
    Trace,
)
from distbp.optim.schedules import Constant, Schedule, plateau_of

_SCHEDULE_HELP = "how the learning rate changes during training"
_DECAY_HELP = "times the weight, added to the averaged gradient (coupled)"


class Optimizer(Protocol):
    """The interface of all optimizers. `type`: the name in a job. The learning rate of a step is
    `schedule.rate(learning_rate, progress)`. For the other facts see `distbp.optim.facts`."""

    @property
    def type(self) -> str: ...

    @property
    def learning_rate(self) -> float: ...

    @property
    def schedule(self) -> Schedule: ...

    @property
    def decay_schedule(self) -> Schedule | None: ...

    @property
    def whole_batch(self) -> bool: ...

    @property
    def copies(self) -> int: ...

    @property
    def passes(self) -> float: ...

    def parts(self) -> tuple[Part, ...]:
        """The rule as a chain (see `distbp.optim.parts`), without clipping and regularization."""
        ...


def chain(
    optimizer: Optimizer,
    *,
    clip_norm: float | None = None,
    clip_value: float | None = None,
    l1: float = 0.0,
    l2: float = 0.0,
) -> tuple[Part, ...]:
    """The whole update rule: clip by norm, then by value, add L2, add L1, then the optimizer.

    `l2` adds l2 * w to the averaged gradient (the penalty l2 / 2 * sum of w^2). With SGD this gives
    w <- (1 - rate * l2) w - rate * gradient. This is Nielsen's rule with l2 = lambda / n for n training rows.
    """
    clip = () if clip_norm is None else (ClipByNorm(clip_norm),)
    limit = () if clip_value is None else (ClipByValue(clip_value),)
    lasso = (AddL1(l1),) if l1 else ()
    return (*clip, *limit, *_l2(l2), *lasso, *optimizer.parts())


def _l2(strength: float) -> tuple[Part, ...]:
    return (AddL2(strength),) if strength else ()


@dataclass(frozen=True)
class SGD(OptimizerFacts):
    """w <- w - rate * gradient."""

    type: Literal["sgd"] = "sgd"
    learning_rate: float = option(0.1, help="step size", gt=0)
    schedule: Schedule = option(Constant(), help=_SCHEDULE_HELP, choices="schedules")
    weight_decay: float = option(0.0, help=_DECAY_HELP, ge=0)

    def parts(self) -> tuple[Part, ...]:
        return (*_l2(self.weight_decay), ScaleByLearningRate())


@dataclass(frozen=True)
class _Momentum(OptimizerFacts):
    nesterov: ClassVar[bool] = False
    type: str
    learning_rate: float = option(0.05, help="step size", gt=0)
    momentum: float = option(0.9, help="the part of the last step's direction that is kept", ge=0, lt=1)
    convention: Literal["pytorch", "keras"] = option(
        "pytorch", help="is the rate outside of the momentum, or in"
    )
    schedule: Schedule = option(Constant(), help=_SCHEDULE_HELP, choices="schedules")
    weight_decay: float = option(0.0, help=_DECAY_HELP, ge=0)

    def parts(self) -> tuple[Part, ...]:
        trace, rate = Trace(self.momentum, self.nesterov), ScaleByLearningRate()
        return (*_l2(self.weight_decay), *((rate, trace) if self.convention == "keras" else (trace, rate)))


@dataclass(frozen=True)
class Momentum(_Momentum):
    """b <- momentum * b + gradient; w <- w - rate * b (PyTorch, Optax). `convention: keras` (also
    scikit-learn's): v <- momentum * v - rate * gradient; w <- w + v. The two differ when the rate changes."""

    type: Literal["momentum"] = "momentum"


@dataclass(frozen=True)
class Nesterov(_Momentum):
    """b <- momentum * b + gradient; w <- w - rate * (gradient + momentum * b), with the new b (PyTorch).
    `convention: keras`: v <- momentum * v - rate * gradient; w <- w + momentum * v - rate * gradient."""

    nesterov: ClassVar[bool] = True
    type: Literal["nesterov"] = "nesterov"


@dataclass(frozen=True)
class Adagrad(OptimizerFacts):
    """s <- s + gradient^2; w <- w - rate * gradient / (sqrt(s) + epsilon). PyTorch's `lr_decay` is a
    schedule's business here."""

    type: Literal["adagrad"] = "adagrad"
    learning_rate: float = option(0.01, help="step size", gt=0)
    epsilon: float = option(1e-10, help="added to the root", gt=0)
    initial_sum: float = option(0.0, help="what s starts with", ge=0)
    schedule: Schedule = option(Constant(), help=_SCHEDULE_HELP, choices="schedules")
    weight_decay: float = option(0.0, help=_DECAY_HELP, ge=0)

    def parts(self) -> tuple[Part, ...]:
        rule = ScaleByAdagrad(self.epsilon, self.initial_sum)
        return (*_l2(self.weight_decay), rule, ScaleByLearningRate())


@dataclass(frozen=True)
class RMSprop(OptimizerFacts):
    """v <- decay * v + (1 - decay) * gradient^2; w <- w - rate * gradient / (sqrt(v) + epsilon), through
    momentum where `momentum` is not 0. `centered` divides by the standard deviation."""

    type: Literal["rmsprop"] = "rmsprop"
    learning_rate: float = option(0.001, help="step size", gt=0)
    decay: float = option(0.99, help="the part of v that is kept (PyTorch's alpha)", ge=0, lt=1)
    momentum: float = option(0.0, help="the part of the last step's direction that is kept", ge=0, lt=1)
    centered: bool = option(False, help="subtract the square of the running mean")
    epsilon: float = option(1e-8, help="added to the root", gt=0)
    schedule: Schedule = option(Constant(), help=_SCHEDULE_HELP, choices="schedules")
    weight_decay: float = option(0.0, help=_DECAY_HELP, ge=0)

    def parts(self) -> tuple[Part, ...]:
        rule = ScaleByRMS(self.decay, self.epsilon, self.centered)
        trace = (Trace(self.momentum),) if self.momentum else ()
        return (*_l2(self.weight_decay), rule, *trace, ScaleByLearningRate())


@dataclass(frozen=True)
class _Adam(OptimizerFacts):
    type: str
    learning_rate: float = option(0.001, help="step size", gt=0)
    beta1: float = option(0.9, help="the part of the first moment that is kept", ge=0, lt=1)
    beta2: float = option(0.999, help="the part of the second moment that is kept", ge=0, lt=1)
    epsilon: float = option(1e-8, help="added to the root", gt=0)
    epsilon_hat: bool = option(False, help="add epsilon before the bias correction")
    schedule: Schedule = option(Constant(), help=_SCHEDULE_HELP, choices="schedules")

    def _step(self) -> tuple[Part, ...]:
        return ScaleByAdam(self.beta1, self.beta2, self.epsilon, self.epsilon_hat), ScaleByLearningRate()


@dataclass(frozen=True)
class Adam(_Adam):
    """Kingma and Ba (2015). Epsilon is added to the bias-corrected root (PyTorch, Optax); `epsilon_hat`
    adds it before the correction (Keras, scikit-learn)."""

    type: Literal["adam"] = "adam"
    weight_decay: float = option(0.0, help=_DECAY_HELP, ge=0)

    def parts(self) -> tuple[Part, ...]:
        return (*_l2(self.weight_decay), *self._step())


@dataclass(frozen=True)
class AdamW(_Adam):
    """Adam with decoupled decay (Loshchilov and Hutter, 2019), in PyTorch's order:
    w <- w * (1 - rate * weight_decay), then Adam's step."""

    type: Literal["adamw"] = "adamw"
    weight_decay: float = option(0.01, help="the part of a weight lost in one step is rate * this", ge=0)
    decay_schedule: Schedule | None = option(
        None,
        help="how weight_decay changes during training, beside the learning rate; left out: it stays",
        choices="schedules",
    )

    def __post_init__(self) -> None:
        if plateau_of(self.decay_schedule) is not None:
            raise OptionError("decay_schedule", "watches the learning rate alone; take another schedule")

    def parts(self) -> tuple[Part, ...]:
        decay = (DecayWeights(self.weight_decay),) if self.weight_decay else ()
        return (*decay, *self._step())


CHAINS: Mapping[str, type] = registry(SGD, Momentum, Nesterov, Adagrad, RMSprop, Adam, AdamW)
