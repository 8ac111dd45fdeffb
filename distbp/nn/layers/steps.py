"""Layers over (steps, features) without a state: positions of steps, their average, the last step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from distbp.core.options import option
from distbp.nn.initializers import Initializer, Normal
from distbp.nn.layers.base import ABSENT, Backward, LayerFacts, Lengths, Lowering, ParameterSpec, Shape, Value
from distbp.nn.tape import Ref


def steps_of(kind: str, input_shape: Shape) -> tuple[int, int]:
    """The numbers of steps and features of a sample. kind: the layer's type, for messages. Raises ValueError,
    with a message for users, if the shape does not have two sizes."""
    if len(input_shape) != 2:
        raise ValueError(
            f"{kind} takes steps of features, a shape of two sizes, but is given shape"
            f" {list(input_shape)}; put a {{type: reshape, shape: [steps, features]}} layer before it"
        )
    return input_shape[0], input_shape[1]


def _add(low: Lowering, x: Value, places: Ref) -> Ref:
    """Emits y <- x + places for every sample. places: (steps, features). Returns y."""
    size = x.shape[0] * x.shape[1]
    y = low.tape.work(size)
    low.tape.emit("linear", x.ref.reshaped(size, 1), places._replace(columns=size, plus=1), y, ABSENT)
    return y


@dataclass(frozen=True, kw_only=True)
class _Places(LayerFacts):
    """The common part of layers that add the positions of steps."""

    @property
    def lengths(self) -> Lengths:
        return "keep"

    @property
    def window_fault(self) -> str:
        return f"{self.type} counts the steps of a window, not those of its series; leave it out"

    def output_shape(self, input_shape: Shape) -> Shape:
        return steps_of(self.type, input_shape)


@dataclass(frozen=True, kw_only=True)
class PositionalEncoding(_Places):
    """Adds to each step of (steps, features) waves that say which step it is, sin and cos of
    step / base^(2 i / features) in columns 2 i and 2 i + 1 (Vaswani et al., NeurIPS 2017, section 3.5).
    No parameters."""

    type: Literal["positional_encoding"] = "positional_encoding"
    base: float = option(10000.0, help="the longest wave has 2 pi times so many steps", gt=1)

    def lower(self, low: Lowering, x: Value) -> tuple[Value, Backward]:
        steps, features = x.shape
        waves = low.tape.work(features, 0, steps)
        low.tape.emit("waves", waves, real=(self.base,))
        return Value(_add(low, x, waves), x.shape), lambda dy: (dy,)


@dataclass(frozen=True, kw_only=True)
class PositionalEmbedding(_Places):
    """Adds to each step of (steps, features) a vector of its own, which is trained: y = x + W, with W of
    (steps, features)."""

    trains: ClassVar[bool] = True

    type: Literal["positional_embedding"] = "positional_embedding"
    initializer: Initializer = option(Normal(std=0.02), help="of the vectors", choices="initializers")

    def parameters(self, input_shape: Shape) -> tuple[ParameterSpec, ...]:
        steps, features = steps_of(self.type, input_shape)
        return (ParameterSpec("weight", (steps, features), self.initializer, steps, features, decays=False),)

    def flops(self, input_shape: Shape) -> float:
        return 2.0 * input_shape[0] * input_shape[1]  # added to the inputs, and to the gradient

    def lower(self, low: Lowering, x: Value) -> tuple[Value, Backward]:
        def backward(dy: Ref) -> tuple[Ref | None]:
            into = low.gradients["weight"]._replace(columns=y.columns, plus=1)
            low.tape.emit("sum_rows", dy.reshaped(y.columns, 1), into, whole=(0,))
            return (dy if low.wanted[0] else None,)

        y = _add(low, x, low.parameters["weight"])
        return Value(y, x.shape), backward


@dataclass(frozen=True, kw_only=True)
class _OneOfSteps(LayerFacts):
    """The common part of layers that make one row of all steps: (steps, features) -> (features)."""

    @property
    def lengths(self) -> Lengths:
        return "use"

    def output_shape(self, input_shape: Shape) -> Shape:
        return (steps_of(self.type, input_shape)[1],)


@dataclass(frozen=True, kw_only=True)
class AverageSteps(_OneOfSteps):
    """The average over the steps, feature by feature: (steps, features) -> (features). Of rows with lengths
    each over its own steps; 0 for length 0."""

    type: Literal["average_steps"] = "average_steps"

    def lower(self, low: Lowering, x: Value) -> tuple[Value, Backward]:
        tape, (steps, features) = low.tape, x.shape
        inputs, y = x.ref.reshaped(steps * features, 1), tape.work(features)
        ends = ABSENT if x.lengths is None else x.lengths
        tape.emit("mean_steps", inputs, ends, y)

        def backward(dy: Ref) -> tuple[Ref | None]:
            if not low.wanted[0]:
                return (None,)
            dx = tape.like(inputs)
            tape.emit("mean_steps_backward", dy, ends, dx)
            return (dx,)

        return Value(y, (features,)), backward


@dataclass(frozen=True, kw_only=True)
class LastStep(_OneOfSteps):
    """The last step, feature by feature: (steps, features) -> (features). Of rows with lengths the last of
    each row's own steps; 0 for length 0.

    After causal attention, only the last step depends on all steps, so it can forecast the next one."""

    keeps_values: ClassVar[bool] = True

    type: Literal["last_step"] = "last_step"

    def lower(self, low: Lowering, x: Value) -> tuple[Value, Backward]:
        tape, (steps, features) = low.tape, x.shape
        inputs, y = x.ref.reshaped(steps * features, 1), tape.work(features)
        last = features * (steps - 1)
        if x.lengths is None:
            tape.emit("copy_columns", inputs, y, whole=(last, 0, features))
        else:
            by_steps = tape.work(features, steps)
            tape.emit("steps_first", inputs, by_steps)
            tape.emit("take_last", x.lengths, by_steps, y)

        def backward(dy: Ref) -> tuple[Ref | None]:
            if not low.wanted[0]:
                return (None,)
            dx = tape.like(inputs)
            if x.lengths is None:
                tape.emit("fill", dx, real=(0.0,))
                tape.emit("copy_columns", dy, dx, whole=(0, last, features))
            else:
                d_steps = tape.like(by_steps)
                tape.emit("put_last", x.lengths, dy, d_steps)
                tape.emit("samples_first", d_steps, dx)
            return (dx,)

        return Value(y, (features,)), backward
