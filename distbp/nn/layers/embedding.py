"""The embedding layer: a vector for each id, from a trained table."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from distbp.core.options import option
from distbp.nn.initializers import Initializer, Normal
from distbp.nn.layers.base import Backward, LayerFacts, Lengths, Lowering, ParameterSpec, Shape, Takes, Value
from distbp.nn.tape import Ref, Space


@dataclass(frozen=True, kw_only=True)
class Embedding(LayerFacts):
    """The row of a table for each id, as `torch.nn.Embedding`: (...) ids from 0 to entries - 1 -> (...,
    size).

    The data must be whole numbers. They are not scaled.
    """

    takes: ClassVar[Takes] = "ids"
    trains: ClassVar[bool] = True

    type: Literal["embedding"] = "embedding"
    entries: int = option(help="how many ids there are: each is at least 0 and less", gt=0)
    size: int = option(help="numbers in the vector of an id", gt=0)
    initializer: Initializer = option(Normal(std=1.0), help="of the table", choices="initializers")

    @property
    def lengths(self) -> Lengths:
        return "keep"

    @property
    def ids_below(self) -> int:
        return self.entries

    def output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape, self.size)

    def parameters(self, input_shape: Shape) -> tuple[ParameterSpec, ...]:
        shape = (self.entries, self.size)
        return (ParameterSpec("weight", shape, self.initializer, self.entries, self.size, sparse=True),)

    def flops(self, input_shape: Shape) -> float:
        return 1.0 * math.prod(input_shape) * self.size  # each number of the gradient is added once

    def lower(self, low: Lowering, x: Value) -> tuple[Value, Backward]:
        many, tape = math.prod(x.shape), low.tape
        y, weight = tape.work(self.size, many), low.parameters["weight"]
        stay = x.ref.space == Space.INPUTS  # ids are int64 in place; else they are numbers of a named input
        ids = x.ref if stay else x.ref.reshaped(1, many)
        if stay:
            tape.emit("gather_rows", ids, weight, y)
        else:
            tape.emit("enter_row", ids, weight, y, whole=(0, 0))

        def backward(dy: Ref) -> tuple[Ref | None]:
            d, gradient = dy.reshaped(self.size, many), low.gradients["weight"]
            if stay:
                tape.emit("scatter_add_rows", ids, d, gradient)
            else:
                tape.emit("scatter_add_cells", ids, d, gradient, whole=(0, 0))
            return (None,)

        return Value(y.reshaped(self.size * many, 1), self.output_shape(x.shape)), backward
