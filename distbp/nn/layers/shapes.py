"""Layers that give a sample another shape, in C order, or take a part of it. They compute nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import groupby
from typing import ClassVar, Literal

from distbp.core.options import OptionError, option
from distbp.nn.layers.base import Backward, LayerFacts, Lengths, Lowering, Shape, Value
from distbp.nn.tape import Ref


@dataclass(frozen=True, kw_only=True)
class Flatten(LayerFacts):
    """(rows, a, b, ...) -> (rows, a * b * ...), as `torch.nn.Flatten`."""

    keeps_values: ClassVar[bool] = True

    type: Literal["flatten"] = "flatten"

    def output_shape(self, input_shape: Shape) -> Shape:
        return (math.prod(input_shape),)

    def lower(self, low: Lowering, x: Value) -> tuple[Value, Backward]:
        return Value(x.ref, self.output_shape(x.shape)), lambda dy: (dy,)


@dataclass(frozen=True, kw_only=True)
class Reshape(LayerFacts):
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
class Slice(LayerFacts):
    """Features `start` to `stop` - 1 on the last axis, or those of `columns` in their order: (..., features)
    -> (..., features of the part). So parts of a row feed several branches, each with inputs: [input]."""

    keeps_values: ClassVar[bool] = True

    type: Literal["slice"] = "slice"
    start: int = option(0, help="the first feature, from 0", ge=0)
    stop: int | None = option(
        None, help="the first feature after the last one; left out: all that follow", gt=0
    )
    columns: tuple[str, ...] | None = option(
        None,
        help="names or patterns (`room_*`) of columns of a table, in place of start and stop: all features"
        " that are made of them",
        min_length=1,
    )

    def __post_init__(self) -> None:
        if self.columns is not None and (self.start, self.stop) != (0, None):
            raise OptionError("columns", "stands in place of start and stop; leave these out")

    @property
    def lengths(self) -> Lengths:
        return "keep"

    @property
    def table_columns(self) -> tuple[str, ...]:
        return self.columns or ()

    def of_features(self, features: Sequence[int]) -> Slice:
        said = {field.name: getattr(self, field.name) for field in fields(self)}
        return _SliceOfColumns(**said, features=tuple(features))

    def _places(self, features: int) -> Sequence[int]:
        """The places of the features to take, out of `features`. Raises ValueError if they do not fit."""
        if self.columns is not None:
            raise ValueError("columns are those of a table, and the data are none; write start and stop")
        stop = features if self.stop is None else self.stop
        if not self.start < stop <= features:
            raise ValueError(
                f"slice needs start below stop, and stop at most {features}, the features of the last axis;"
                f" start is {self.start}, stop is {stop}"
            )
        return range(self.start, stop)

    def output_shape(self, input_shape: Shape) -> Shape:
        if not input_shape:
            raise ValueError("slice needs features on the last axis, but a sample is a single number")
        return (*input_shape[:-1], len(self._places(input_shape[-1])))

    def lower(self, low: Lowering, x: Value) -> tuple[Value, Backward]:
        shape, features = self.output_shape(x.shape), x.shape[-1]
        each = x.ref.columns // features
        flat, y = x.ref.reshaped(features, each), low.tape.work(shape[-1], each)
        runs = [*_runs(self._places(features))]

        def move(source: Ref, target: Ref, runs: Sequence[tuple[int, int, int]]) -> None:
            """Emits copies. runs: (first column in the source, first column in the target, count)."""
            for run in runs:
                low.tape.emit("copy_columns", source, target, whole=run)

        move(flat, y, runs)

        def backward(dy: Ref) -> tuple[Ref | None]:
            if not low.wanted[0]:
                return (None,)
            dx = low.tape.like(flat)
            low.tape.emit("fill", dx, real=(0.0,))
            move(dy.reshaped(shape[-1], each), dx, [(here, there, count) for there, here, count in runs])
            return (dx.reshaped(x.ref.columns, 1),)

        return Value(y.reshaped(shape[-1] * each, 1), shape), backward


@dataclass(frozen=True, kw_only=True)
class _SliceOfColumns(Slice):
    """A slice with the places of its features: those that are made of `columns`."""

    features: tuple[int, ...]

    @property
    def as_written(self) -> Slice:
        return Slice(**{field.name: getattr(self, field.name) for field in fields(Slice)})

    def _places(self, features: int) -> Sequence[int]:
        return self.features


def _runs(places: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """Yields runs of adjacent places: the first place, its number in the list, the count."""
    for _, run in groupby(enumerate(places), lambda pair: pair[1] - pair[0]):
        (number, first), *others = run
        yield first, number, 1 + len(others)
