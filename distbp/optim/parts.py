"""Update rules as small parts that compose. The contract of a part, then each part, simplest first.

A rule is a chain of parts over flat vectors. The direction u starts as the gradient sum; each part turns
it into the direction of the next one; every chain ends with p <- p - u. So

    sgd    = (ScaleByLearningRate(),)
    adamw  = (DecayWeights(0.01), ScaleByAdam(), ScaleByLearningRate())

A part is a frozen dataclass that holds no arrays. Its state lives in slots: vectors with one value for each
parameter, which a checkpoint stores by name. `emit` appends the ops of the part (`distbp.optim.ops`) to the
rule.

The direction is `factor * u`. A number that only scales the direction goes into the factor, not into the
vector u. So the division by the batch's total weight, clipping by norm and the learning rate take no time,
and plain SGD is one op.

Conventions follow PyTorch. A part names the differences of other frameworks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple, Protocol

import numpy as np

from distbp.core.arrays import Array
from distbp.nn.ops.base import Op
from distbp.nn.tape import Ref, Row
from distbp.optim.groups import PLAIN, Group
from distbp.optim.ops import RULE_OPS


class Vector(IntEnum):
    """The spaces that a rule's ops address: stretches of the flat vectors, and the constants of a step."""

    PARAMETERS = 0
    SUMS = 1
    DIRECTION = 2
    SLOTS = 3  # the first slot of at most three
    SECOND_SLOT = 4
    THIRD_SLOT = 5
    CONSTANTS = 7


class Step(NamedTuple):
    """One update. `number`: 1 for the first update. `learning_rate`: the rate of this update, from the
    schedule. `gradient_norm`: the Euclidean norm of the whole averaged gradient, before any clipping; only
    `ClipByNorm` needs it. `loss`: the mean loss of the batch; only methods that search along a line need it.
    `decay`: a factor on the weight decay, from its schedule."""

    number: int
    learning_rate: float
    gradient_norm: float = 0.0
    loss: float = 0.0
    decay: float = 1.0


Numbers = Callable[[Step], Sequence[float]]
CONSTANTS = 4  # the numbers of an op at one step; the first number is the factor of its direction


def _no_numbers(step: Step) -> Sequence[float]:
    return ()


class Rule:
    """A chain of parts as a list of ops. `rows`: the ops. `slots`: name -> the initial value of every
    element. `groups`: the groups of the parameters, by number. Raises ValueError if two parts name their
    slots alike."""

    def __init__(self, parts: Sequence[Part], groups: Sequence[Group] = PLAIN) -> None:
        self.groups = tuple(groups)
        self._of_rate = {  # rate -> the numbers of its groups
            rate: [number for number, group in enumerate(self.groups) if group.rate == rate]
            for rate in dict.fromkeys(group.rate for group in self.groups)
        }
        self.rows: list[Row] = []
        self.slots: dict[str, float] = {}
        self.clip: ClipByNorm | None = None
        self._numbers: list[tuple[tuple[Callable[[Step], float], ...], Numbers, Sequence[float] | None]] = []
        self._factors: list[Callable[[Step], float]] = []
        self._scaled = -1  # see `scaled`
        self._u = vector(Vector.SUMS)
        for part in parts:
            part.emit(self)
        self.emit("descend", self.direction, vector(Vector.PARAMETERS))

    @property
    def direction(self) -> Ref:
        """The place of the direction so far, which the next part reads."""
        return self._u

    def slot(self, name: str, initial: float) -> Ref:
        """Adds a slot to the rule and returns its place. Raises ValueError if the name is taken."""
        if name in self.slots:
            raise ValueError(f"two parts of one update rule keep a slot named {name!r}")
        self.slots[name] = initial
        return vector(Vector.SLOTS + len(self.slots) - 1)

    def multiply(self, factor: Callable[[Step], float]) -> None:
        """Multiplies the direction by `factor(step)` at each step."""
        self._factors.append(factor)

    def emit(
        self, name: str, *refs: Ref, numbers: Numbers = _no_numbers, undecayed: Sequence[float] | None = None,
        becomes: Ref | None = None, takes_factor: bool = True,
    ) -> None:  # fmt: skip
        """Appends the op `name` with the operands `refs`. `numbers`: gives its own numbers at a step.
        `undecayed`: its numbers for parameters that do not decay; None: the same. `becomes`: the place of the
        new direction; None: as before. `takes_factor`: whether the op multiplies u by the factor."""
        op: Op = RULE_OPS[name]
        constants = Ref(Vector.CONSTANTS, CONSTANTS * len(self.rows), CONSTANTS, plus=1)
        factors: tuple[Callable[[Step], float], ...] = ()
        if takes_factor:
            factors, self._factors = tuple(self._factors), []
            if self._scaled < 0:
                self._scaled = len(self.rows)
        self.rows.append(Row(op, (*refs, constants), (), (), -1))
        self._numbers.append((factors, numbers, undecayed))
        if becomes is not None:
            self._u = becomes

    @property
    def scaled(self) -> int:
        """The number of the op whose factor the caller multiplies by 1 / (the batch's weight) and by the
        factor of clipping (see `scale`)."""
        return self._scaled

    def constants(self, steps: Sequence[Step]) -> Array:
        """The numbers that ops read for the parameters of each group: (steps, groups, rows, 4) float64,
        without the scale. Steps must hold Python's numbers: those of NumPy would change the types of the
        results."""
        found = np.zeros((len(steps), len(self.groups), len(self.rows), CONSTANTS))
        found[..., 0] = 1.0
        for rate, groups in self._of_rate.items():
            own = steps
            if rate != 1:
                own = [step._replace(learning_rate=step.learning_rate * rate) for step in steps]
            for row, (factors, numbers, undecayed) in enumerate(self._numbers):
                if factors:
                    first, *others = factors
                    whole = [first(step) for step in own]
                    for other in others:
                        whole = [value * other(step) for value, step in zip(whole, own, strict=True)]
                    found[:, groups, row, 0] = np.array(whole)[:, None]
                if numbers is _no_numbers:
                    continue
                values = np.array([numbers(step) for step in own])
                for group in groups:
                    plain = undecayed is None or self.groups[group].decays
                    found[:, group, row, 1 : 1 + values.shape[1]] = values if plain else undecayed
        return found

    def scale(self, scale: float, norm: float) -> float:
        """`scale` times the factor of clipping. norm: that of the whole averaged gradient."""
        return scale if self.clip is None else scale * self.clip.factor(norm)


def vector(space: int) -> Ref:
    """The place of a stretch of a flat vector. space: see `Vector`."""
    return Ref(space, 0, 1, 1)


class Part(Protocol):
    def emit(self, rule: Rule) -> None: ...


@dataclass(frozen=True)
class ScaleByLearningRate:
    """u <- learning_rate * u."""

    def emit(self, rule: Rule) -> None:
        rule.multiply(lambda step: step.learning_rate)


@dataclass(frozen=True)
class ClipByNorm:
    """u <- u * min(1, maximum / (norm + 1e-6)), where norm is that of the whole averaged gradient. This part
    is the first in its chain, before L1, L2 and weight decay. PyTorch's clip_grad_norm_."""

    maximum: float

    def factor(self, norm: float) -> float:
        return min(1.0, self.maximum / (norm + 1e-6))

    def emit(self, rule: Rule) -> None:
        rule.clip = self


@dataclass(frozen=True)
class ClipByValue:
    """u <- u limited to [-maximum, maximum], element by element. PyTorch's clip_grad_value_."""

    maximum: float

    def emit(self, rule: Rule) -> None:
        out = vector(Vector.DIRECTION)
        rule.emit("clip_value", rule.direction, out, numbers=lambda step: (self.maximum,), becomes=out)


@dataclass(frozen=True)
class AddL2:
    """u <- u + strength * p on the decayed stretches: the gradient of strength / 2 * sum of p^2.

    PyTorch's `weight_decay` of SGD, Adagrad, RMSprop and Adam. It is "coupled": later parts transform it too.
    """

    strength: float

    def emit(self, rule: Rule) -> None:
        _penalty(rule, "add_l2", self.strength)


@dataclass(frozen=True)
class AddL1:
    """u <- u + strength * sign(p) on the decayed stretches: a subgradient of strength * sum of |p|."""

    strength: float

    def emit(self, rule: Rule) -> None:
        _penalty(rule, "add_l1", self.strength)


def _penalty(rule: Rule, op: str, strength: float) -> None:
    out, p = vector(Vector.DIRECTION), vector(Vector.PARAMETERS)
    rule.emit(op, rule.direction, p, out, numbers=lambda step: (strength,), undecayed=(0.0,), becomes=out)


@dataclass(frozen=True)
class DecayWeights:
    """p <- p * (1 - learning_rate * strength) on the decayed stretches; u stays. Decoupled weight decay
    (Loshchilov and Hutter, 2019), in PyTorch's order: before the update. A schedule may scale the strength at
    each step."""

    strength: float

    def emit(self, rule: Rule) -> None:
        rule.emit(
            "decay", vector(Vector.PARAMETERS),
            numbers=lambda step: (1 - step.learning_rate * (self.strength * step.decay),), undecayed=(1.0,),
            takes_factor=False,
        )  # fmt: skip


@dataclass(frozen=True)
class Trace:
    """Momentum: b <- momentum * b + u; u <- b. Nesterov: u <- u + momentum * b, with the new b.

    Before `ScaleByLearningRate` in the chain, this is PyTorch's convention. After it, this is the convention
    of Keras and scikit-learn, in which b contains the rates of earlier steps. At a constant rate both agree.
    """

    momentum: float
    nesterov: bool = False

    def emit(self, rule: Rule) -> None:
        b, out = rule.slot("momentum", 0.0), vector(Vector.DIRECTION)
        numbers: Numbers = lambda step: (self.momentum,)  # noqa: E731
        if self.nesterov:
            rule.emit("nesterov", rule.direction, b, out, numbers=numbers, becomes=out)
        else:
            rule.emit("trace", rule.direction, b, numbers=numbers, becomes=b)


@dataclass(frozen=True)
class ScaleByAdagrad:
    """s <- s + u^2; u <- u / (sqrt(s) + epsilon) (Duchi, Hazan and Singer, 2011)."""

    epsilon: float = 1e-10
    initial: float = 0.0

    def emit(self, rule: Rule) -> None:
        s, out = rule.slot("sum_of_squares", self.initial), vector(Vector.DIRECTION)
        rule.emit("adagrad", rule.direction, s, out, numbers=lambda step: (self.epsilon,), becomes=out)


@dataclass(frozen=True)
class ScaleByRMS:
    """v <- decay * v + (1 - decay) * u^2; u <- u / (sqrt(v) + epsilon) (Tieleman and Hinton, 2012).

    `centered`: whether to divide by the standard deviation instead, sqrt(v - m^2), where m is the running
    mean of u (Graves, 2013). Epsilon is outside the root, as in PyTorch.
    """

    decay: float = 0.99
    epsilon: float = 1e-8
    centered: bool = False

    def emit(self, rule: Rule) -> None:
        out, slots = vector(Vector.DIRECTION), [rule.slot("mean_square", 0.0)]
        if self.centered:
            slots.append(rule.slot("mean", 0.0))
        rule.emit(
            "centered_rms" if self.centered else "rms", rule.direction, *slots, out,
            numbers=lambda step: (self.decay, 1 - self.decay, self.epsilon), becomes=out,
        )  # fmt: skip


@dataclass(frozen=True)
class ScaleByAdam:
    """m <- beta1 m + (1 - beta1) u; v <- beta2 v + (1 - beta2) u^2; u <- m' / (sqrt(v') + epsilon), with
    m' = m / (1 - beta1^t) and v' = v / (1 - beta2^t) (Kingma and Ba, 2015, algorithm 1; PyTorch, Optax).

    `epsilon_hat`: whether to add epsilon to sqrt(v) before the correction. This is the paper's second form
    (Keras, scikit-learn). Its first steps are far smaller if gradients are small compared with epsilon.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    epsilon_hat: bool = False

    def emit(self, rule: Rule) -> None:
        m, v = rule.slot("first_moment", 0.0), rule.slot("second_moment", 0.0)
        out = vector(Vector.DIRECTION)
        # m' / (sqrt(v') + epsilon) is c m / (sqrt(v) + e).
        rule.emit(
            "adam", rule.direction, m, v, out,
            numbers=lambda step: (self.beta1, self.beta2, self._epsilon(step)), becomes=out,
        )  # fmt: skip
        rule.multiply(lambda step: self._root2(step) / (1 - self.beta1**step.number))

    def _root2(self, step: Step) -> float:
        return math.sqrt(1 - self.beta2**step.number)

    def _epsilon(self, step: Step) -> float:
        return self.epsilon if self.epsilon_hat else self.epsilon * self._root2(step)
