"""Layers that join several values into one: their sum, their product, or all side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from distbp.core.options import option
from distbp.nn.layers.base import Backward, Channels, LayerFacts, Lengths, Lowering, Shape, Value
from distbp.nn.tape import Ref


@dataclass(frozen=True, kw_only=True)
class _SameShapes(LayerFacts):
    joins: ClassVar[bool] = True

    @property
    def lengths(self) -> Lengths:
        return "keep"

    @property
    def channels(self) -> Channels:
        return "either"

    def output_shape(self, *inputs: Shape) -> Shape:
        if len(set(inputs)) > 1:
            shapes = " and ".join(str(list(shape)) for shape in inputs)
            raise ValueError(f"the inputs must have one shape, but have {shapes}")
        return inputs[0]


def _row(value: Value) -> Ref:
    """The value as a matrix (rows, numbers of a sample)."""
    return value.ref.reshaped(math.prod(value.shape), 1)


@dataclass(frozen=True, kw_only=True)
class Add(_SameShapes):
    """The sum of the inputs, number by number: y = a + b + ..."""

    type: Literal["add"] = "add"

    def lower(self, low: Lowering, *inputs: Value) -> tuple[Value, Backward]:
        first, *others = map(_row, inputs)
        y = low.tape.like(first)
        for other in others:
            low.tape.emit("add", first, other, y)
            first = y

        def backward(dy: Ref) -> Sequence[Ref | None]:
            found: list[Ref | None] = []
            for wanted in low.wanted:
                d = None
                if wanted:
                    d = low.tape.like(y) if any(found) else dy
                    if d is not dy:
                        low.tape.emit("copy", dy, d)
                found.append(d)
            return found

        return inputs[0]._replace(ref=y), backward


@dataclass(frozen=True, kw_only=True)
class Multiply(_SameShapes):
    """The product of the inputs, number by number: y = a * b * ...; a gate where one input is a sigmoid."""

    type: Literal["multiply"] = "multiply"

    def lower(self, low: Lowering, *inputs: Value) -> tuple[Value, Backward]:
        factors = list(map(_row, inputs))
        y = low.tape.like(factors[0])

        def product(of: Sequence[Ref], out: Ref) -> None:
            first = of[0]
            for factor in of[1:]:
                low.tape.emit("multiply", first, factor, out)
                first = out

        product(factors, y)

        def backward(dy: Ref) -> Sequence[Ref | None]:
            found: list[Ref | None] = []
            for number, wanted in enumerate(low.wanted):
                d = low.tape.like(y) if wanted else None
                if d is not None:  # dy times all the other factors
                    product([dy, *factors[:number], *factors[number + 1 :]], d)
                found.append(d)
            return found

        return inputs[0]._replace(ref=y), backward


@dataclass(frozen=True, kw_only=True)
class Concatenate(LayerFacts):
    """The inputs one beside the other along one axis; the other sizes must be equal."""

    joins: ClassVar[bool] = True

    type: Literal["concatenate"] = "concatenate"
    axis: int = option(-1, help="of one sample, from 0; -1: the last one (channels of an image: 0)")

    @property
    def lengths(self) -> Lengths:
        return "keep" if self.axis == -1 or self.axis > 0 else "drop"  # axis 0 are the steps

    @property
    def channels(self) -> Channels:
        return "either"

    def output_shape(self, *inputs: Shape) -> Shape:
        axes = len(inputs[0])
        shapes = " and ".join(str(list(shape)) for shape in inputs)
        if not -axes <= self.axis < axes:
            raise ValueError(
                f"axis is {self.axis}, but the inputs have {axes} axes: their shapes are {shapes}"
            )
        at = self.axis % axes
        if len({(*shape[:at], *shape[at + 1 :]) for shape in inputs}) > 1 or any(
            len(shape) != axes for shape in inputs
        ):
            raise ValueError(f"the inputs must have one shape but for axis {self.axis}, but have {shapes}")
        return (*inputs[0][:at], sum(shape[at] for shape in inputs), *inputs[0][at + 1 :])

    def lower(self, low: Lowering, *inputs: Value) -> tuple[Value, Backward]:
        shape = self.output_shape(*(value.shape for value in inputs))
        at = self.axis % len(shape)
        shapes = [value.shape for value in inputs]
        if inputs[0].channels_last:
            at, shapes = (at - 1) % 3, [(*sizes[1:], sizes[0]) for sizes in shapes]
        times = math.prod(shapes[0][:at])
        parts = [
            value.ref.reshaped(math.prod(sizes[at:]), times)
            for value, sizes in zip(inputs, shapes, strict=True)
        ]
        columns = sum(part.columns for part in parts)
        firsts = [sum(part.columns for part in parts[:number]) for number in range(len(parts))]
        y = low.tape.work(columns, times)
        for part, first in zip(parts, firsts, strict=True):
            low.tape.emit("copy_columns", part, y, whole=(0, first, part.columns))

        def backward(dy: Ref) -> Sequence[Ref | None]:
            found: list[Ref | None] = []
            for part, first, wanted in zip(parts, firsts, low.wanted, strict=True):
                d = low.tape.work(part.columns, times) if wanted else None
                if d is not None:
                    part_of = (first, 0, part.columns)
                    low.tape.emit("copy_columns", dy.reshaped(columns, times), d, whole=part_of)
                found.append(d)
            return found

        return Value(y.reshaped(columns * times, 1), shape, channels_last=inputs[0].channels_last), backward
