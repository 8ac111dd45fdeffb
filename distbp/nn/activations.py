"""The activation functions by name, and the facts about each. `distbp.nn.ops.activations` has their
formulas."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from distbp.nn.tape import ABSENT, Ref, Tape

_NOWHERE = (math.inf, -math.inf)


@dataclass(frozen=True)
class Activation:
    """`keeps`: the forward pass keeps the derivative, because it does not follow from the output. `flat`:
    two ranges of the output, both ends included, in which the derivative is nearly zero (below 4 % of its
    maximum); None: the function does not saturate. `trainable` false: the derivative is zero almost
    everywhere, so the function can predict but not train. `positive`: no output is below 0. `each_alone`
    false: an output depends on other numbers of the row."""

    name: str
    keeps: bool = False
    flat: tuple[float, float, float, float] | None = None
    trainable: bool = True
    positive: bool = False
    each_alone: bool = True


def lower_activation(
    tape: Tape, name: str, x: Ref, bias: Ref, y: Ref | None = None, shared: bool = False
) -> tuple[Ref, Callable[[Ref, Ref], None]]:
    """Emits y <- f(x + bias). Returns y and a function (dy, db) that emits dy <- dy * f'(z) and db <- the
    sum of dy over the rows. `y`: the place of the output, which may be `x`; None: a new buffer. `bias` and
    `db` may be ABSENT.

    In training it also counts the rows in which each unit is not saturated. A unit is a number of a sample.
    If `shared`, a unit is a column, which all matrix rows of a sample share."""
    activation = ACTIVATIONS[name]
    if y is None:
        y = tape.like(x)
    kept = tape.like(x) if activation.keeps else ABSENT
    tape.emit(name, x, bias, y, kept)
    units, times = (y.columns, y.times) if shared else (y.columns * y.times, 1)
    count_live_rows(
        tape, name, [y.reshaped(units, times)], kept if kept is ABSENT else kept.reshaped(units, times)
    )

    def backward(dy: Ref, db: Ref) -> None:
        tape.emit(f"{name}_backward", kept, y, dy, db)

    return y, backward


def count_live_rows(tape: Tape, name: str, outputs: Sequence[Ref], kept: Ref) -> None:
    """Watches the columns of outputs of an activation function, as if the outputs lay side by side. In
    training it emits ops that count the rows in which a column is not saturated."""
    flat = ACTIVATIONS[name].flat
    if flat is not None:
        total = tape.watch(sum(y.columns for y in outputs))
        for number, y in enumerate(outputs if tape.training else ()):
            place = total._replace(start=total.start + number * y.columns, columns=y.columns)
            tape.emit("live_rows", y, kept, place, real=flat)


ACTIVATIONS: Mapping[str, Activation] = MappingProxyType(
    {
        a.name: a
        for a in (
            Activation("linear"),
            Activation("step", trainable=False, positive=True),
            Activation("relu", flat=(0.0, 0.0, *_NOWHERE), positive=True),
            Activation("leaky_relu"),
            Activation("sigmoid", flat=(-math.inf, 0.01, 0.99, math.inf), positive=True),
            Activation("tanh", flat=(-math.inf, -0.98, 0.98, math.inf)),
            Activation("elu", flat=(-math.inf, -0.96, *_NOWHERE)),
            Activation("selu", flat=(-math.inf, -1.68, *_NOWHERE)),
            Activation("smooth_clip", flat=(-math.inf, -2.82, 2.82, math.inf)),
            Activation("softplus", flat=(-math.inf, -math.log1p(-0.04), *_NOWHERE), positive=True),
            Activation("silu", keeps=True, flat=(-0.0335, 0.0, *_NOWHERE)),  # of z below -5
            Activation("gelu", keeps=True, flat=(-0.0094, 0.0, *_NOWHERE)),  # of z below -2.7
            Activation("mish", keeps=True, flat=(-0.0336, 0.0, *_NOWHERE)),  # of z below -5
            Activation("softmax", positive=True, each_alone=False),
        )
    }
)
