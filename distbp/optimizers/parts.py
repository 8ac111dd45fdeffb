"""Update rules as small parts that compose. The contract of a part, then each part, simplest first.

A rule is a chain of parts over flat vectors. The direction u starts as the gradient sum; each part turns
it into the direction of the next one; the updater ends every chain with p <- p - u. So

    sgd    = (ScaleByLearningRate(),)
    adamw  = (DecayWeights(0.01), ScaleByAdam(), ScaleByLearningRate())

A part is a frozen dataclass that holds no arrays. State lives outside of it, in slots: vectors as long as
the parameters, one value for each parameter, which a checkpoint stores by name. `bind` gives the function
that works on one piece of the vectors.

Numbers that only scale the direction are not multiplied into it one by one: the direction is `factor * u`,
and `apply(step, factor)` returns the factor of its result. The division by the batch's total weight,
clipping by norm and the learning rate so cost nothing, and plain SGD is two NumPy calls.

Every part works element by element, with the same operations for each element: the result does not depend
on where a vector is cut. Conventions follow PyTorch; where another framework's differ, the part says so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class Step(NamedTuple):
    """One update. `number`: 1 for the first. `learning_rate`: this update's, from the schedule.
    `gradient_norm`: Euclidean norm of the whole averaged gradient (not of a part or a piece of it), before
    any clipping; needed by `ClipByNorm` only."""

    number: int
    learning_rate: float
    gradient_norm: float = 0.0


class Piece(NamedTuple):
    """What a part is given to bind itself to: views of one stretch of the flat vectors, each (length,).

    `gradient`: where a part writes a direction that it makes (never into `direction`, which may be another
    part's slot). `direction`: the u it is given; may be `gradient` itself. `decayed`: the stretches, counted
    within the piece, that L1, L2 and weight decay touch. `scratch`: free to use, not kept.
    """

    gradient: Array
    direction: Array
    parameters: Array
    slots: Mapping[str, Array]
    decayed: tuple[slice, ...]
    scratch: Array


Apply = Callable[[Step, float], float]


class BoundPart(NamedTuple):
    """`direction`: the array that holds the direction after `apply`; `apply(step, factor) -> factor`."""

    direction: Array
    apply: Apply


class Part(Protocol):
    def slots(self) -> Mapping[str, float]:
        """The slots: name -> value that every element starts with."""
        ...

    def bind(self, piece: Piece) -> BoundPart: ...


NO_SLOTS: Mapping[str, float] = {}


@dataclass(frozen=True)
class ScaleByLearningRate:
    """u <- learning_rate * u."""

    def slots(self) -> Mapping[str, float]:
        return NO_SLOTS

    def bind(self, piece: Piece) -> BoundPart:
        def apply(step: Step, factor: float) -> float:
            return factor * step.learning_rate

        return BoundPart(piece.direction, apply)


@dataclass(frozen=True)
class ClipByNorm:
    """u <- u * min(1, maximum / (norm + 1e-6)), the norm that of the whole averaged gradient. First in its
    chain, so before L1, L2 and weight decay. PyTorch's clip_grad_norm_."""

    maximum: float

    def slots(self) -> Mapping[str, float]:
        return NO_SLOTS

    def factor(self, step: Step) -> float:
        return min(1.0, self.maximum / (step.gradient_norm + 1e-6))

    def bind(self, piece: Piece) -> BoundPart:
        clip = self.factor

        def apply(step: Step, factor: float) -> float:
            return factor * clip(step)

        return BoundPart(piece.direction, apply)


@dataclass(frozen=True)
class ClipByValue:
    """u <- u limited to [-maximum, maximum], element by element. PyTorch's clip_grad_value_."""

    maximum: float

    def slots(self) -> Mapping[str, float]:
        return NO_SLOTS

    def bind(self, piece: Piece) -> BoundPart:
        u, out, maximum = piece.direction, piece.gradient, self.maximum

        def apply(step: Step, factor: float) -> float:
            np.multiply(u, factor, out=out)
            np.minimum(out, maximum, out=out)
            np.maximum(out, -maximum, out=out)
            return 1.0

        return BoundPart(out, apply)


@dataclass(frozen=True)
class AddL2:
    """u <- u + strength * p on the decayed stretches: the gradient of strength / 2 * sum of p^2.

    PyTorch's `weight_decay` of SGD, Adagrad, RMSprop and Adam ("coupled": it passes through the parts after).
    """

    strength: float

    def slots(self) -> Mapping[str, float]:
        return NO_SLOTS

    def bind(self, piece: Piece) -> BoundPart:
        u, out, strength = piece.direction, piece.gradient, self.strength
        stretches = [(out[s], piece.parameters[s], piece.scratch[s]) for s in piece.decayed]

        def apply(step: Step, factor: float) -> float:
            np.multiply(u, factor, out=out)
            for direction, p, scratch in stretches:
                np.multiply(p, strength, out=scratch)
                np.add(direction, scratch, out=direction)
            return 1.0

        return BoundPart(out, apply)


@dataclass(frozen=True)
class AddL1:
    """u <- u + strength * sign(p) on the decayed stretches: a subgradient of strength * sum of |p|."""

    strength: float

    def slots(self) -> Mapping[str, float]:
        return NO_SLOTS

    def bind(self, piece: Piece) -> BoundPart:
        u, out, strength = piece.direction, piece.gradient, self.strength
        stretches = [(out[s], piece.parameters[s], piece.scratch[s]) for s in piece.decayed]

        def apply(step: Step, factor: float) -> float:
            np.multiply(u, factor, out=out)
            for direction, p, scratch in stretches:
                np.sign(p, out=scratch)
                np.multiply(scratch, strength, out=scratch)
                np.add(direction, scratch, out=direction)
            return 1.0

        return BoundPart(out, apply)


@dataclass(frozen=True)
class DecayWeights:
    """p <- p * (1 - learning_rate * strength) on the decayed stretches; u stays. Decoupled weight decay
    (Loshchilov and Hutter, 2019), in PyTorch's order: before the update."""

    strength: float

    def slots(self) -> Mapping[str, float]:
        return NO_SLOTS

    def bind(self, piece: Piece) -> BoundPart:
        stretches, strength = [piece.parameters[s] for s in piece.decayed], self.strength

        def apply(step: Step, factor: float) -> float:
            keep = 1 - step.learning_rate * strength
            for p in stretches:
                np.multiply(p, keep, out=p)
            return factor

        return BoundPart(piece.direction, apply)


@dataclass(frozen=True)
class Trace:
    """Momentum: b <- momentum * b + u; u <- b. Nesterov: u <- u + momentum * b, with the new b.

    Before `ScaleByLearningRate` this is PyTorch's convention; after it, that of Keras and scikit-learn, whose
    velocity remembers the rates of earlier steps (the same while the rate is constant).
    """

    momentum: float
    nesterov: bool = False

    def slots(self) -> Mapping[str, float]:
        return {"momentum": 0.0}

    def bind(self, piece: Piece) -> BoundPart:
        u, out, b, momentum = piece.direction, piece.gradient, piece.slots["momentum"], self.momentum
        scratch = piece.scratch

        def plain(step: Step, factor: float) -> float:
            np.multiply(u, factor, out=out)
            np.multiply(b, momentum, out=b)
            np.add(b, out, out=b)
            return 1.0

        def nesterov(step: Step, factor: float) -> float:
            plain(step, factor)
            np.multiply(b, momentum, out=scratch)
            np.add(out, scratch, out=out)
            return 1.0

        return BoundPart(out, nesterov) if self.nesterov else BoundPart(b, plain)


@dataclass(frozen=True)
class ScaleByAdagrad:
    """s <- s + u^2; u <- u / (sqrt(s) + epsilon) (Duchi, Hazan and Singer, 2011)."""

    epsilon: float = 1e-10
    initial: float = 0.0

    def slots(self) -> Mapping[str, float]:
        return {"sum_of_squares": self.initial}

    def bind(self, piece: Piece) -> BoundPart:
        u, out, s, scratch = piece.direction, piece.gradient, piece.slots["sum_of_squares"], piece.scratch
        epsilon = self.epsilon

        def apply(step: Step, factor: float) -> float:
            np.multiply(u, factor, out=out)
            np.multiply(out, out, out=scratch)
            np.add(s, scratch, out=s)
            np.sqrt(s, out=scratch)
            np.add(scratch, epsilon, out=scratch)
            np.divide(out, scratch, out=out)
            return 1.0

        return BoundPart(out, apply)


@dataclass(frozen=True)
class ScaleByRMS:
    """v <- decay * v + (1 - decay) * u^2; u <- u / (sqrt(v) + epsilon) (Tieleman and Hinton, 2012).

    `centered`: divides by the standard deviation instead, sqrt(v - m^2) with m the running mean of u
    (Graves, 2013). Epsilon is outside the root, as in PyTorch.
    """

    decay: float = 0.99
    epsilon: float = 1e-8
    centered: bool = False

    def slots(self) -> Mapping[str, float]:
        return {"mean_square": 0.0, "mean": 0.0} if self.centered else {"mean_square": 0.0}

    def bind(self, piece: Piece) -> BoundPart:
        u, out, scratch = piece.direction, piece.gradient, piece.scratch
        v, m = piece.slots["mean_square"], piece.slots.get("mean")
        decay, epsilon = self.decay, self.epsilon

        def apply(step: Step, factor: float) -> float:
            np.multiply(u, factor, out=out)
            np.multiply(out, out, out=scratch)
            np.multiply(scratch, 1 - decay, out=scratch)
            np.multiply(v, decay, out=v)
            np.add(v, scratch, out=v)
            if m is None:
                np.sqrt(v, out=scratch)
            else:
                np.multiply(out, 1 - decay, out=scratch)
                np.multiply(m, decay, out=m)
                np.add(m, scratch, out=m)
                np.multiply(m, m, out=scratch)
                np.subtract(v, scratch, out=scratch)
                np.maximum(scratch, 0, out=scratch)  # rounding may leave a variance just below zero
                np.sqrt(scratch, out=scratch)
            np.add(scratch, epsilon, out=scratch)
            np.divide(out, scratch, out=out)
            return 1.0

        return BoundPart(out, apply)


@dataclass(frozen=True)
class ScaleByAdam:
    """m <- beta1 m + (1 - beta1) u; v <- beta2 v + (1 - beta2) u^2; u <- m' / (sqrt(v') + epsilon), with
    m' = m / (1 - beta1^t) and v' = v / (1 - beta2^t) (Kingma and Ba, 2015, algorithm 1; PyTorch, Optax).

    `epsilon_hat`: epsilon is added to sqrt(v) before the correction, the paper's second form (Keras,
    scikit-learn): far smaller first steps where gradients are small against epsilon.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    epsilon_hat: bool = False

    def slots(self) -> Mapping[str, float]:
        return {"first_moment": 0.0, "second_moment": 0.0}

    def corrections(self, step: Step) -> tuple[float, float]:
        """(c, e) so that the new direction is c * m / (sqrt(v) + e)."""
        root2 = math.sqrt(1 - self.beta2**step.number)
        epsilon = self.epsilon if self.epsilon_hat else self.epsilon * root2
        return root2 / (1 - self.beta1**step.number), epsilon

    def bind(self, piece: Piece) -> BoundPart:
        u, out, scratch = piece.direction, piece.gradient, piece.scratch
        m, v = piece.slots["first_moment"], piece.slots["second_moment"]
        beta1, beta2, corrections = self.beta1, self.beta2, self.corrections

        def apply(step: Step, factor: float) -> float:
            np.multiply(u, factor, out=out)
            np.multiply(out, 1 - beta1, out=scratch)
            np.multiply(m, beta1, out=m)
            np.add(m, scratch, out=m)
            np.multiply(out, out, out=scratch)
            np.multiply(scratch, 1 - beta2, out=scratch)
            np.multiply(v, beta2, out=v)
            np.add(v, scratch, out=v)
            correction, epsilon = corrections(step)
            np.sqrt(v, out=scratch)
            np.add(scratch, epsilon, out=scratch)
            np.divide(m, scratch, out=out)
            return correction

        return BoundPart(out, apply)
