"""How the cells of a table enter a network: one number a cell becomes the columns that the layers see.

The plan of a table makes this layer (`distbp.data.columns.plan`); no job writes it. It is the entry of a
network (see `distbp.nn.network`), so the rows of the data stay as narrow as the table, and the wide code of a
row exists only while its slice is computed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np

from distbp.core.arrays import Array
from distbp.nn.layers.base import Backward, Facts, Lowering, ParameterSpec, Shape, Takes, Value
from distbp.nn.tape import Ref


@dataclass(frozen=True)
class NumberCell:
    """A number; its piecewise-linear code between `edges`, which ascend; `indicator`: whether it was missing
    (`distbp.nn.ops.columns.MISSING`), then it counts as `fill`."""

    edges: tuple[float, ...] = ()
    fill: float = 0.0
    indicator: bool = False

    @property
    def width(self) -> int:
        return 1 + max(0, len(self.edges) - 1) + self.indicator

    def emit(self, low: Lowering, cells: Ref, y: Ref, column: int, first: int) -> None:
        # In the network's dtype: two edges may be one there, and a bin without width would divide by 0.
        edges = np.unique(np.array(self.edges, low.tape.dtype)) if self.edges else np.empty(0)
        bins = np.ones((2, max(0, len(self.edges) - 1)))
        bins[0] = np.inf  # of a bin that there is not, every number is below the edge
        if len(edges) > 1:
            bins[:, : len(edges) - 1] = edges[:-1], np.diff(edges)
        whole = (column, first, int(self.indicator))
        low.tape.emit("enter_number", cells, low.tape.constant(bins), y, whole=whole, real=(self.fill,))


@dataclass(frozen=True)
class TableCell:
    """A whole number becomes the row of a fixed table that it numbers."""

    rows: tuple[tuple[float, ...], ...]

    @property
    def width(self) -> int:
        return len(self.rows[0])

    def emit(self, low: Lowering, cells: Ref, y: Ref, column: int, first: int) -> None:
        low.tape.emit("enter_row", cells, low.tape.constant(np.array(self.rows)), y, whole=(column, first))


@dataclass(frozen=True)
class OneHotCell:
    """Numbers from 1 to `levels` have a column each; 0 is 1 in one more where there is an `other`."""

    levels: int
    other: bool

    @property
    def width(self) -> int:
        return self.levels + self.other

    def emit(self, low: Lowering, cells: Ref, y: Ref, column: int, first: int) -> None:
        low.tape.emit("enter_one_hot", cells, y, whole=(column, first, self.levels, int(self.other)))


@dataclass(frozen=True)
class EmbeddingCell:
    """Whole numbers below `entries` become a trained vector of `width` numbers each. `name`: of the table's
    column."""

    name: str
    entries: int
    width: int

    @property
    def tensor(self) -> str:
        return f"{self.name}.weight"

    def emit(self, low: Lowering, cells: Ref, y: Ref, column: int, first: int) -> None:
        low.tape.emit("enter_row", cells, low.parameters[self.tensor], y, whole=(column, first))


Cell = NumberCell | TableCell | OneHotCell | EmbeddingCell


class _Table(NamedTuple):
    """First vectors of an embedding: 0 for code 0, which training may never meet, else normal with deviation
    `std`. An initializer (see `distbp.nn.initializers`)."""

    std: float

    def draw(self, shape: Shape, fan_in: int, fan_out: int, generator: np.random.Generator) -> Array:
        values = generator.normal(0.0, self.std, shape)
        values[0] = 0
        return values


@dataclass(frozen=True, kw_only=True)
class Columns(Facts):
    """One column of the output after the other, for `cells` in the order of the inputs: (cells,) ->
    (columns,). Of windows each row: (rows, cells) -> (rows, columns), or as one row of numbers."""

    takes: ClassVar[Takes] = "row"
    rescales: ClassVar[bool] = True  # the plan has scaled the cells

    type: Literal["columns"] = "columns"
    cells: tuple[Cell, ...]

    @property
    def embeddings(self) -> list[EmbeddingCell]:
        return [cell for cell in self.cells if isinstance(cell, EmbeddingCell)]

    def output_shape(self, *inputs: Shape) -> Shape:
        (shape,), count = inputs, len(self.cells)
        if not shape or shape[-1] % count:
            raise ValueError(f"takes rows of {count} cells, not of the shape {list(shape)}")
        return (*shape[:-1], shape[-1] // count * self._columns)

    @property
    def _columns(self) -> int:
        return sum(cell.width for cell in self.cells)

    def parameters(self, *inputs: Shape) -> tuple[ParameterSpec, ...]:
        return tuple(
            ParameterSpec(
                cell.tensor, (cell.entries, cell.width), _Table(0.3), cell.entries, cell.width, sparse=True
            )
            for cell in self.embeddings
        )

    def flops(self, *inputs: Shape) -> float:
        rows = math.prod(inputs[0]) // len(self.cells)
        return float(rows * sum(cell.width for cell in self.embeddings))  # each gradient is added once

    def lower(self, low: Lowering, *inputs: Value) -> tuple[Value, Backward]:
        (x,) = inputs
        rows = math.prod(x.shape) // len(self.cells)
        cells = x.ref.reshaped(len(self.cells), rows)
        y, first = low.tape.work(self._columns, rows), 0
        back: list[Callable[[Ref], Any]] = []
        for column, cell in enumerate(self.cells):
            cell.emit(low, cells, y, column, first)
            if isinstance(cell, EmbeddingCell):
                back.append(_scatter(low, cells, cell, column, first))
            first += cell.width

        def backward(dy: Ref) -> tuple[Ref | None]:
            for emit in back:
                emit(dy.reshaped(y.columns, rows))
            return (None,)

        return Value(y.reshaped(y.columns * rows, 1), self.output_shape(x.shape)), backward


def _scatter(
    low: Lowering, cells: Ref, cell: EmbeddingCell, column: int, first: int
) -> Callable[[Ref], None]:
    return lambda dy: low.tape.emit(
        "scatter_add_cells", cells, dy, low.gradients[cell.tensor], whole=(column, first)
    )
