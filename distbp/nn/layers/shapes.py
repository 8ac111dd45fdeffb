"""Layers that change the shape of a sample and compute nothing, in C order: another shape, or a part."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from distbp.core.options import option
from distbp.nn.layers.base import Backward, Facts, Lengths, Lowering, Shape, Value
from distbp.nn.tape import Ref


@dataclass(frozen=True, kw_only=True)
class Flatten(Facts):
    """(rows, a, b, ...) -> (rows, a * b * ...), as `torch.nn.Flatten`."""

    keeps_values: ClassVar[bool] = True

    type: Literal["flatten"] = "flatten"

    def output_shape(self, input_shape: Shape) -> Shape:
        return (math.prod(input_shape),)

    def lower(self, low: Lowering, x: Value) -> tuple[Value, Backward]:
        return Value(x.ref, self.output_shape(x.shape)), lambda dy: (dy,)


@dataclass(frozen=True, kw_only=True)
class Reshape(Facts):
    """(rows, ...) -> (rows, *shape). The sizes are those of one sample, without the rows."""

    keeps_values: ClassVar[bool] = True

    type: Literal["reshape"] = "reshape"
    shape: tuple[int, ...] = option(help="shape of one sample, without the rows", min_length=1)

    @property
    def own_shape(self) -> Shape:
        return tuple(self.shape)

    def output_shape(self, input_shape: Shape) -> Shape:
        if any(size < 1 for size in self.shape):
            raise ValueError(f"reshape needs sizes of 1 or more, but shape is {list(self.shape)}")
        has, needs = math.prod(input_shape), math.prod(self.shape)
        if has != needs:
            raise ValueError(
                f"a sample has {has} numbers (shape {list(input_shape)}), but shape {list(self.shape)}"
                f" holds {needs}"
            )
        return tuple(self.shape)

    def lower(self, low: Lowering, x: Value) -> tuple[Value, Backward]:
        return Value(x.ref, self.output_shape(x.shape)), lambda dy: (dy,)


@dataclass(frozen=True, kw_only=True)
class Slice(Facts):
    """Features `start` to `stop` - 1 on the last axis: (..., features) -> (..., stop - start). So a row that
    holds several inputs side by side feeds several branches, each with inputs: [input]."""

    keeps_values: ClassVar[bool] = True

    type: Literal["slice"] = "slice"
    start: int = option(0, help="the first feature, from 0", ge=0)
    stop: int | None = option(
        None, help="the first feature after the last one; left out: all that follow", gt=0
    )

    @property
    def lengths(self) -> Lengths:
        return "keep"

    def output_shape(self, input_shape: Shape) -> Shape:
        if not input_shape:
            raise ValueError("slice needs features on the last axis, but a sample is a single number")
        features = input_shape[-1]
        stop = features if self.stop is None else self.stop
        if not self.start < stop <= features:
            raise ValueError(
                f"slice needs start below stop, and stop at most {features}, the features of the last axis;"
                f" start is {self.start}, stop is {stop}"
            )
        return (*input_shape[:-1], stop - self.start)

    def lower(self, low: Lowering, x: Value) -> tuple[Value, Backward]:
        shape, features = self.output_shape(x.shape), x.shape[-1]
        each = x.ref.columns // features
        flat, y = x.ref.reshaped(features, each), low.tape.work(shape[-1], each)
        low.tape.emit("take_columns", flat, y, whole=(self.start,))

        def backward(dy: Ref) -> tuple[Ref | None]:
            if not low.wanted[0]:
                return (None,)
            dx = low.tape.like(flat)
            low.tape.emit("fill", dx, real=(0.0,))
            low.tape.emit("put_columns", dy.reshaped(shape[-1], each), dx, whole=(self.start,))
            return (dx.reshaped(x.ref.columns, 1),)

        return Value(y.reshaped(shape[-1] * each, 1), shape), backward
