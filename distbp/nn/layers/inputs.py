"""The layer by which a named input enters a network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import ClassVar, Literal

from distbp.core.options import OptionError, option
from distbp.nn.layers.base import Backward, LayerFacts, Lengths, Lowering, Shape, Takes, Value
from distbp.nn.layers.shapes import Slice
from distbp.nn.tape import LONGEST


@dataclass(frozen=True, kw_only=True)
class Input(LayerFacts):
    """One of several inputs, by its name: (rows, numbers of all inputs) -> (rows, *shape).

    A row of the data holds the inputs side by side, in the order of their layers, each in C order. The length
    of a ragged input follows its numbers.
    """

    takes: ClassVar[Takes] = "row"
    keeps_values: ClassVar[bool] = True

    type: Literal["input"] = "input"
    shape: tuple[int, ...] = option(help="shape of one sample, without the rows", min_length=1)
    ragged: bool = option(
        False, help="its rows have different lengths: up to the first number of shape, the steps"
    )
    scale: float = option(1.0, help="divides its numbers (255 for bytes)", gt=0)

    def __post_init__(self) -> None:
        if any(size < 1 for size in self.shape):
            raise OptionError("shape", f"needs sizes of 1 or more, and is {list(self.shape)}")

    @property
    def own_shape(self) -> Shape:
        return tuple(self.shape)

    @property
    def lengths(self) -> Lengths:
        return "begin" if self.ragged else "drop"

    @property
    def window_fault(self) -> str:
        return "a network with several inputs takes no windows of series"

    @property
    def enters(self) -> int:
        return math.prod(self.shape) + self.ragged

    def of_features(self, features: Sequence[int]) -> Input:
        said = {field.name: getattr(self, field.name) for field in fields(self)}
        return _PlacedInput(**said, first=features[0])

    def output_shape(self, input_shape: Shape) -> Shape:
        if len(input_shape) != 1:
            raise ValueError(
                f"takes a part of a row of numbers, not of the shape {list(input_shape)}; flatten it"
            )
        return tuple(self.shape)

    @property
    def _begin(self) -> int:
        """The place in a row of the data at which its numbers begin."""
        return 0

    def lower(self, low: Lowering, x: Value) -> tuple[Value, Backward]:
        stop = self._begin + math.prod(self.shape)
        y, backward = Slice(start=self._begin, stop=stop).lower(low, x)
        if not self.ragged:
            return y._replace(shape=self.own_shape), backward
        lengths = low.tape.work(1)
        low.tape.emit("copy_columns", x.ref, lengths, whole=(stop, 0, 1))
        later = any(LONGEST in row.refs for row in low.tape.rows)  # the longest row of all inputs counts
        low.tape.emit("longest", lengths, LONGEST, whole=(self.shape[0], int(later)))
        return y._replace(shape=self.own_shape, lengths=lengths), backward


@dataclass(frozen=True, kw_only=True)
class _PlacedInput(Input):
    """An input with its place in a row of the data, `first`."""

    first: int

    @property
    def as_written(self) -> Input:
        return Input(**{field.name: getattr(self, field.name) for field in fields(Input)})

    @property
    def _begin(self) -> int:
        return self.first
