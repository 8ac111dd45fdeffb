"""The activation functions by name, and the facts about each. `distbp.nn.ops.activations` has their formulas."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from distbp.nn.arrays import Array
from distbp.nn.tape import ABSENT, Ref, Tape


@dataclass(frozen=True)
class Activation:
    """`keeps`: its derivative cannot be had from its output, so the forward pass keeps it. `saturated(y, kept)`: counts outputs
    where the function is flat (its derivative stays below 4 % of its maximum), for the health report; None where it is nowhere.
    `trainable` false: the derivative is zero almost everywhere, so it can predict but not train."""

    name: str
    keeps: bool = False
    saturated: Callable[[Array, Array], int] | None = None
    trainable: bool = True


def lower_activation(
    tape: Tape, name: str, x: Ref, bias: Ref, y: Ref | None = None
) -> tuple[Ref, Callable[[Ref, Ref], None]]:
    """Emits y <- f(x + bias). Returns y, and what emits dy <- dy * f'(z) and db <- the sum of dy over the rows, given dy and
    db. `y`: where to write it, may be `x`; None: a new buffer. `bias` and `db` may be ABSENT."""
    activation = ACTIVATIONS[name]
    if y is None:
        y = tape.like(x)
    kept = tape.like(x) if activation.keeps else ABSENT
    tape.emit(name, x, bias, y, kept)
    tape.watch(name, y, kept)

    def backward(dy: Ref, db: Ref) -> None:
        tape.emit(f"{name}_backward", kept, y, dy, db)

    return y, backward


def _count(mask: Any) -> int:
    return int(np.count_nonzero(mask))


ACTIVATIONS: Mapping[str, Activation] = MappingProxyType(
    {
        a.name: a
        for a in (
            Activation("linear"),
            Activation("step", trainable=False),
            Activation("relu", saturated=lambda y, kept: _count(y == 0)),
            Activation("leaky_relu"),
            Activation("sigmoid", saturated=lambda y, kept: _count((y < 0.01) | (y > 0.99))),
            Activation("tanh", saturated=lambda y, kept: _count(np.abs(y) > 0.98)),
            Activation("elu", saturated=lambda y, kept: _count(y < -0.96)),
            Activation("softplus", saturated=lambda y, kept: _count(y < -math.log1p(-0.04))),
            Activation("silu", True, lambda y, kept: _count((y <= 0) & (y > -0.0335) & (kept < 0.1))),
            Activation("gelu", True, lambda y, kept: _count((y <= 0) & (y > -0.0094) & (kept < 0.1))),
            Activation("softmax"),
        )
    }
)
