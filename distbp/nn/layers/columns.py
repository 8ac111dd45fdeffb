"""The layer by which the cells of a table enter a network: each cell, one number, becomes several columns.

The plan of a table makes this layer (`distbp.data.columns.plan`); jobs do not contain it. It is the entry of
a network (see `distbp.nn.network`). So the rows of the data stay as narrow as the table, and the wide code of
a row exists only while its slice is computed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np

from distbp.core.arrays import Array
from distbp.nn.layers.base import Backward, LayerFacts, Lowering, ParameterSpec, Shape, Takes, Value
from distbp.nn.layers.periodic import Periodic
from distbp.nn.tape import ABSENT, Ref

Back = Callable[[Ref], Any]  # emits the backward pass of a cell, given the gradient of all columns


@dataclass(frozen=True)
class NumberCell:
    """A number becomes: the number, or `fill` if it is missing (`distbp.nn.ops.columns.MISSING`); its
    piecewise-linear code between `edges`, which ascend; with `indicator`, 1 if it is missing, else 0; its
    periodic embedding, if `periodic` is not None. `name`: of the table's column, or "". `bin_height`: the
    code of a bin rises from -bin_height to bin_height; 0: from 0 to 1."""

    edges: tuple[float, ...] = ()
    fill: float = 0.0
    indicator: bool = False
    name: str = ""
    periodic: Periodic | None = None
    bin_height: float = 0.0

    @property
    def width(self) -> int:
        return self._before + (0 if self.periodic is None else self.periodic.made)

    @property
    def _before(self) -> int:
        """The number of columns before those of the embedding."""
        return 1 + max(0, len(self.edges) - 1) + self.indicator

    @property
    def tensors(self) -> str:
        """The beginning of the names of its tensors."""
        return f"periodic_embedding.{self.name}."

    def parameters(self) -> tuple[ParameterSpec, ...]:
        return () if self.periodic is None else self.periodic.parameters(1, self.tensors)

    @property
    def flops(self) -> float:
        return 0.0 if self.periodic is None else self.periodic.flops(1)

    def emit(self, low: Lowering, cells: Ref, y: Ref, column: int, first: int) -> Back | None:
        # Two edges may be equal in the network's dtype. A bin without width would divide by 0.
        edges = np.unique(np.array(self.edges, low.tape.dtype)) if self.edges else np.empty(0)
        bins = np.ones((2, max(0, len(self.edges) - 1)))
        bins[0] = np.inf  # bins that were dropped: every number is below the edge, so the code is the least
        if len(edges) > 1:
            bins[:, : len(edges) - 1] = edges[:-1], np.diff(edges)
        ends = (0.0, 1.0)
        if self.bin_height:
            ends = (-self.bin_height, self.bin_height)
            bins[0] += bins[1] / 2  # from the low edge to the middle, where the code is 0
            bins[1] /= 2 * self.bin_height
        whole = (column, first, int(self.indicator))
        low.tape.emit("enter_number", cells, low.tape.constant(bins), y, whole=whole, real=(self.fill, *ends))
        how, at = self.periodic, first + self._before
        if how is None:
            return None
        kept = how.emit(low, y, first, y, at, 1, self.tensors)
        return lambda dy: how.emit_backward(low, y, first, kept, dy, at, ABSENT, self.tensors)


@dataclass(frozen=True)
class TableCell:
    """A whole number becomes the row of a fixed table with this number."""

    rows: tuple[tuple[float, ...], ...]

    flops: ClassVar[float] = 0.0

    @property
    def width(self) -> int:
        return len(self.rows[0])

    def parameters(self) -> tuple[ParameterSpec, ...]:
        return ()

    def emit(self, low: Lowering, cells: Ref, y: Ref, column: int, first: int) -> Back | None:
        low.tape.emit("enter_row", cells, low.tape.constant(np.array(self.rows)), y, whole=(column, first))
        return None


@dataclass(frozen=True)
class OneHotCell:
    """A whole number from 0 to `levels` becomes `levels` columns: 1 in column number - 1, else 0. With
    `other`, one more column is 1 for number 0."""

    flops: ClassVar[float] = 0.0

    levels: int
    other: bool

    @property
    def width(self) -> int:
        return self.levels + self.other

    def parameters(self) -> tuple[ParameterSpec, ...]:
        return ()

    def emit(self, low: Lowering, cells: Ref, y: Ref, column: int, first: int) -> Back | None:
        low.tape.emit("enter_one_hot", cells, y, whole=(column, first, self.levels, int(self.other)))
        return None


@dataclass(frozen=True)
class EmbeddingCell:
    """A whole number below `entries` becomes a trained vector of `width` numbers. `name`: of the table's
    column. `std`: the standard deviation of the initial vectors."""

    name: str
    entries: int
    width: int
    std: float = 0.3

    @property
    def flops(self) -> float:
        return float(self.width)  # each gradient is added once

    def parameters(self) -> tuple[ParameterSpec, ...]:
        shape = (self.entries, self.width)
        spread = _Table(self.std)
        return (ParameterSpec(self.tensor, shape, spread, self.entries, self.width, sparse=True),)

    @property
    def tensor(self) -> str:
        return f"embedding.{self.name}.weight"  # the kind comes first, so names of two kinds never collide

    def emit(self, low: Lowering, cells: Ref, y: Ref, column: int, first: int) -> Back | None:
        low.tape.emit("enter_row", cells, low.parameters[self.tensor], y, whole=(column, first))
        return lambda dy: low.tape.emit(
            "scatter_add_cells", cells, dy, low.gradients[self.tensor], whole=(column, first)
        )


Cell = NumberCell | TableCell | OneHotCell | EmbeddingCell


class _Table(NamedTuple):
    """The initializer of an embedding (see `distbp.nn.initializers`): 0 for code 0, which the training data
    may not contain, else normal with standard deviation `std`."""

    std: float

    def draw(self, shape: Shape, fan_in: int, fan_out: int, generator: np.random.Generator) -> Array:
        values = generator.normal(0.0, self.std, shape)
        values[0] = 0
        return values


@dataclass(frozen=True, kw_only=True)
class Columns(LayerFacts):
    """Turns the cells of a row into columns, in the order of `cells`: (cells,) -> (columns,). For windows,
    does so for each row: (rows, cells) -> (rows, columns), or both as one row of numbers. `names`: for each
    cell, the name of the table's column."""

    takes: ClassVar[Takes] = "row"
    rescales: ClassVar[bool] = True  # the plan has scaled the cells

    type: Literal["columns"] = "columns"
    cells: tuple[Cell, ...]
    names: tuple[str, ...]

    @property
    def made(self) -> dict[str, list[int]]:
        """The numbers of the output columns that are made of each column of the table, by its name."""
        found: dict[str, list[int]] = {}
        first = 0
        for name, cell in zip(self.names, self.cells, strict=True):
            found.setdefault(name, []).extend(range(first, first + cell.width))
            first += cell.width
        return found

    def output_shape(self, *inputs: Shape) -> Shape:
        (shape,), count = inputs, len(self.cells)
        if not shape or shape[-1] % count:
            raise ValueError(f"takes rows of {count} cells, not of the shape {list(shape)}")
        return (*shape[:-1], shape[-1] // count * self._columns)

    @property
    def _columns(self) -> int:
        return sum(cell.width for cell in self.cells)

    def parameters(self, *inputs: Shape) -> tuple[ParameterSpec, ...]:
        return tuple(spec for cell in self.cells for spec in cell.parameters())

    def flops(self, *inputs: Shape) -> float:
        rows = math.prod(inputs[0]) // len(self.cells)
        return float(rows * sum(cell.flops for cell in self.cells))

    def lower(self, low: Lowering, *inputs: Value) -> tuple[Value, Backward]:
        (x,) = inputs
        rows = math.prod(x.shape) // len(self.cells)
        cells = x.ref.reshaped(len(self.cells), rows)
        y, first = low.tape.work(self._columns, rows), 0
        back: list[Back | None] = []
        for column, cell in enumerate(self.cells):
            back.append(cell.emit(low, cells, y, column, first))
            first += cell.width

        def backward(dy: Ref) -> tuple[Ref | None]:
            for emit in filter(None, back):
                emit(dy.reshaped(y.columns, rows))
            return (None,)

        return Value(y.reshaped(y.columns * rows, 1), self.output_shape(x.shape)), backward
