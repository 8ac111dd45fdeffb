"""Layers that change the shape of a sample and nothing else: no arithmetic, no copy, C order."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from distbp.core.options import option
from distbp.nn.layers.base import Backward, Facts, Lowering, Shape, Value


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
