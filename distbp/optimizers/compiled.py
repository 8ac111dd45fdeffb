"""Compiled updates (Numba, optional): a whole chain in one pass over a piece.

For the chains [ClipByNorm] [AddL2] [DecayWeights] [Trace or ScaleByAdam] ScaleByLearningRate; any other
runs part by part. No fast-math: every element's operations and their order are fixed, whether or not a
loop is vectorized, so the bits do not depend on where a vector is cut.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from distbp.nn.jit import jit
from distbp.nn.pointers import ask_to_write
from distbp.optimizers.parts import (
    AddL2,
    Apply,
    Array,
    ClipByNorm,
    DecayWeights,
    Part,
    Piece,
    ScaleByAdam,
    ScaleByLearningRate,
    Step,
    Trace,
)

# In all of them: p parameters, g gradient sums (untouched), k what the sums are multiplied by, l2 the coupled
# decay, keep = 1 - rate * (decoupled decay). Scalars come as Python floats, which Numba takes 2 us faster
# than NumPy's, and are rounded to the vectors' dtype before the loop.


@jit
def _sgd(p: Array, g: Array, k: float, l2: float, keep: float, rate: float) -> None:
    t = p.dtype.type
    keep_, a, b = t(keep), t(rate * k), t(rate * l2)
    for i in range(p.size):
        p[i] = p[i] * keep_ - (a * g[i] + b * p[i])


@jit
def _momentum(
    p: Array, g: Array, b: Array, k: float, l2: float, keep: float, rate: float, momentum: float
) -> None:
    t = p.dtype.type
    k_, l2_, keep_, rate_, momentum_ = t(k), t(l2), t(keep), t(rate), t(momentum)
    for i in range(p.size):
        b[i] = momentum_ * b[i] + (k_ * g[i] + l2_ * p[i])
        p[i] = p[i] * keep_ - rate_ * b[i]


@jit
def _nesterov(
    p: Array, g: Array, b: Array, k: float, l2: float, keep: float, rate: float, momentum: float
) -> None:
    t = p.dtype.type
    k_, l2_, keep_, rate_, momentum_ = t(k), t(l2), t(keep), t(rate), t(momentum)
    for i in range(p.size):
        u = k_ * g[i] + l2_ * p[i]
        b[i] = momentum_ * b[i] + u
        p[i] = p[i] * keep_ - rate_ * (u + momentum_ * b[i])


@jit
def _adam(
    p: Array,
    g: Array,
    m: Array,
    v: Array,
    k: float,
    l2: float,
    keep: float,
    rate: float,
    beta1: float,
    beta2: float,
    epsilon: float,
) -> None:
    t = p.dtype.type
    k_, l2_, keep_, rate_, epsilon_ = t(k), t(l2), t(keep), t(rate), t(epsilon)
    beta1_, rest1, beta2_, rest2 = t(beta1), t(1 - beta1), t(beta2), t(1 - beta2)
    for i in range(p.size):
        u = k_ * g[i] + l2_ * p[i]
        m[i] = beta1_ * m[i] + rest1 * u
        v[i] = beta2_ * v[i] + rest2 * (u * u)
        p[i] = p[i] * keep_ - rate_ * (m[i] / (np.sqrt(v[i]) + epsilon_))


ASKED = 1024  # parameters at a time; some more lines of a cache than a core can wait for at once
# The kernels by number, for compiled code that applies a rule to pieces of its own.
_SGD, _MOMENTUM, _NESTEROV, _ADAM = 0, 1, 2, 3


@jit
def update(
    rule: int, p: Array, g: Array, first: Array, second: Array, k: float, l2: float, keep: float, c: Array
) -> None:
    """One kernel: `first` and `second` are its slots where it has them, `c` what follows `keep`."""
    if rule == _SGD:
        _sgd(p, g, k, l2, keep, c[0])
    elif rule == _MOMENTUM:
        _momentum(p, g, first, k, l2, keep, c[0], c[1])
    elif rule == _NESTEROV:
        _nesterov(p, g, first, k, l2, keep, c[0], c[1])
    else:
        _adam(p, g, first, second, k, l2, keep, c[0], c[1], c[2], c[3])


@jit
def update_shared(
    rule: int, p: Array, g: Array, first: Array, second: Array, k: float, l2: float, keep: float, c: Array
) -> None:
    """The same for parameters that other cores have read: the next are asked for while some are updated."""
    for start in range(0, p.size, ASKED):
        stop = min(start + ASKED, p.size)  # what follows may be another's, who is writing it
        part = slice(start, stop)
        ask_to_write(p.ctypes.data + stop * p.itemsize, min(ASKED, p.size - stop) * p.itemsize)
        update(rule, p[part], g[part], first[part], second[part], k, l2, keep, c)


class _Chain(NamedTuple):
    clip: ClipByNorm | None
    l2: AddL2 | None
    decay: DecayWeights | None
    rule: Trace | ScaleByAdam | None


Constants = Callable[[Step], tuple[float, ...]]
P = TypeVar("P")


def _match(parts: Sequence[Part]) -> _Chain | None:
    rest = list(parts)

    def take(kind: type[P]) -> P | None:
        if rest and isinstance(rest[0], kind):
            found = rest[0]
            del rest[0]
            return found
        return None

    clip, l2, decay = take(ClipByNorm), take(AddL2), take(DecayWeights)
    rule = take(Trace) or take(ScaleByAdam)
    return _Chain(clip, l2, decay, rule) if take(ScaleByLearningRate) and not rest else None


class Rule(NamedTuple):
    """A chain as `update` takes it. slots: their names, at most two. constants(step): what follows `keep`,
    which is 1 - rate * decay."""

    number: int
    slots: tuple[str, ...]
    l2: float
    decay: float
    constants: Constants


def rule_of(parts: Sequence[Part]) -> Rule | None:
    """The chain for `update`; None where it clips (which needs all gradients at once) or is not compiled."""
    found = _match(parts)
    if found is None or found.clip is not None:
        return None
    kernel, slots, constants = _kernel(found.rule)
    return Rule(
        (_sgd, _momentum, _nesterov, _adam).index(kernel),
        slots,
        float(found.l2.strength) if found.l2 else 0.0,
        float(found.decay.strength) if found.decay else 0.0,
        constants,
    )


def fuse(parts: Sequence[Part], piece: Piece) -> Apply | None:
    """The whole chain and p <- p - u as one function of a piece; None where the chain is not one of these."""
    found = _match(parts)
    if found is None:
        return None
    clip, l2, decay, rule = found
    l2_strength = float(l2.strength) if l2 else 0.0
    decay_strength = decay.strength if decay else 0.0
    kernel, names, constants = _kernel(rule)
    stretches = [
        (decays, piece.parameters[s], piece.gradient[s], *(piece.slots[name][s] for name in names))
        for s, decays in _cut(piece, splits=bool(l2 or decay))
    ]

    def apply(step: Step, factor: float) -> float:
        if clip is not None:
            factor = factor * clip.factor(step)
        keep = 1.0 - step.learning_rate * decay_strength
        after_keep = constants(step)
        for decays, *arrays in stretches:
            if decays:
                kernel(*arrays, factor, l2_strength, keep, *after_keep)
            else:
                kernel(*arrays, factor, 0.0, 1.0, *after_keep)
        return 0.0

    return apply


def _kernel(rule: Trace | ScaleByAdam | None) -> tuple[Any, tuple[str, ...], Constants]:
    """A kernel, the slots it takes, and what follows `keep` among its arguments, for one step.

    All of them floats: an int would make Numba compile the kernel again."""
    if rule is None:
        return _sgd, (), lambda step: (step.learning_rate,)
    if isinstance(rule, Trace):
        momentum = float(rule.momentum)
        kernel = _nesterov if rule.nesterov else _momentum
        return kernel, ("momentum",), lambda step: (step.learning_rate, momentum)
    beta1, beta2 = float(rule.beta1), float(rule.beta2)

    def adam(step: Step) -> tuple[float, ...]:
        correction, epsilon = rule.corrections(step)
        return step.learning_rate * correction, beta1, beta2, epsilon

    return _adam, ("first_moment", "second_moment"), adam


def _cut(piece: Piece, splits: bool) -> Iterable[tuple[slice, bool]]:
    """The piece as stretches (where, whether it decays); one stretch where nothing decays."""
    position = 0
    for s in piece.decayed if splits else ():
        if position < s.start:
            yield slice(position, s.start), False
        yield s, True
        position = s.stop
    if position < piece.parameters.size:
        yield slice(position, piece.parameters.size), False
