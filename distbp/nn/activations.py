"""The activation functions by name, and the facts about each. `distbp.nn.ops.activations` has their
formulas."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from distbp.nn.tape import ABSENT, Ref, Tape

_NOWHERE = (math.inf, -math.inf)


@dataclass(frozen=True)
class Activation:
    """`keeps`: its derivative cannot be had from its output, so the forward pass keeps it. `flat`: two
    ranges of the output, both ends included, in which the derivative is nearly zero (below 4 % of its
    maximum); None where there is none. `trainable` false: the derivative is zero almost everywhere, so it
    can predict but not train."""

    name: str
    keeps: bool = False
    flat: tuple[float, float, float, float] | None = None
    trainable: bool = True


def lower_activation(
    tape: Tape, name: str, x: Ref, bias: Ref, y: Ref | None = None
) -> tuple[Ref, Callable[[Ref, Ref], None]]:
    """Emits y <- f(x + bias). Returns y, and what emits dy <- dy * f'(z) and db <- the sum of dy over the
    rows, given dy and db. `y`: where to write it, may be `x`; None: a new buffer. `bias` and `db` may be
    ABSENT.

    Where training it also counts the rows in which each unit of a sample is not saturated."""
    activation = ACTIVATIONS[name]
    if y is None:
        y = tape.like(x)
    kept = tape.like(x) if activation.keeps else ABSENT
    tape.emit(name, x, bias, y, kept)
    if activation.flat is not None:
        units = y.columns * y.times
        total = tape.watch(units)
        if tape.training:
            sample = kept if kept is ABSENT else kept.reshaped(units, 1)
            tape.emit("live_rows", y.reshaped(units, 1), sample, total, real=activation.flat)

    def backward(dy: Ref, db: Ref) -> None:
        tape.emit(f"{name}_backward", kept, y, dy, db)

    return y, backward


ACTIVATIONS: Mapping[str, Activation] = MappingProxyType(
    {
        a.name: a
        for a in (
            Activation("linear"),
            Activation("step", trainable=False),
            Activation("relu", flat=(0.0, 0.0, *_NOWHERE)),
            Activation("leaky_relu"),
            Activation("sigmoid", flat=(-math.inf, 0.01, 0.99, math.inf)),
            Activation("tanh", flat=(-math.inf, -0.98, 0.98, math.inf)),
            Activation("elu", flat=(-math.inf, -0.96, *_NOWHERE)),
            Activation("softplus", flat=(-math.inf, -math.log1p(-0.04), *_NOWHERE)),
            Activation("silu", keeps=True, flat=(-0.0335, 0.0, *_NOWHERE)),  # of z below -5
            Activation("gelu", keeps=True, flat=(-0.0094, 0.0, *_NOWHERE)),  # of z below -2.7
            Activation("softmax"),
        )
    }
)
