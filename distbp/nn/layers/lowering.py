"""What a layer is given to emit its ops."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from distbp.machine.blas import SMALL, STRIP
from distbp.nn.tape import SHARD, Ref, Space, Tape

# A product with fewer columns than a vector register has float32 numbers takes twice as long with a
# transposed matrix as with a copy of it the other way round.
NARROW = 16
# With a transposed matrix of fewer elements it takes a little longer, too; for so many rows a copy pays.
FEW_WEIGHTS, MANY_ROWS = 1 << 17, 1024
# A product with so small a matrix is worth a copy from this many rows on. A library's functions for small
# products are fast with a right operand that is not transposed, and larger products are cut for them
# (`distbp.machine.gemm.strips_of`).
SMALL_MATRIX, SOME_ROWS = SMALL // STRIP, STRIP


# The gradient of weights is computed for so many units at a time that it stays in a near cache until it is
# used, in the nearest one where few rows make a product of a part as fast as one of the whole.
FEW_ROWS, MORE_ROWS = 32, 128
PART_BYTES, LARGER_PART_BYTES = 48 * 1024, 208 * 1024
LINE = 16  # float32 numbers in 64 bytes


def units_at_once(rows: int, units: int, features: int) -> int:
    """For how many units at a time the product of a weights' gradient is computed. Part of the numerics, as
    the shape of a product may decide its last bits."""
    if rows <= FEW_ROWS:
        return min(units, max(8, PART_BYTES // (4 * features)))
    if rows <= MORE_ROWS:
        parts = -(-4 * units * features // LARGER_PART_BYTES)
        return min(units, -(-units // (parts * LINE)) * LINE)
    return units


@dataclass(frozen=True)
class Carried:
    """The states that a layer carries from one window of a series to the next. begins: of each row, not 0
    where a series begins. lanes: rows for which each shard has states. loads, stores: by name, where the
    states before and after the window stand."""

    tape: Tape
    begins: Ref
    lanes: int
    loads: Mapping[str, Ref]
    stores: Mapping[str, Ref]

    def load(self, name: str, out: Ref) -> None:
        """Emits out <- the states that the window before has left; 0 where a series begins."""
        self.tape.emit("load_states", self.loads[name], SHARD, self.begins, out, whole=(self.lanes,))

    def store(self, name: str, a: Ref) -> None:
        """Emits what leaves states for the next window."""
        self.tape.emit("store_states", a, SHARD, self.stores[name], whole=(self.lanes,))


@dataclass(frozen=True)
class Lowering:
    """What a layer is given to emit its ops.

    `parameters`, `gradients`, `statistics`, `statistic_sums`: name -> place. Of a tensor that several layers
    use, `gradients` has a buffer. A vector is a matrix of one
    row; a tensor of more than two axes has all but the last as its rows. `statistic_sums`: where training
    ops write the samples of the slice times the statistic of the slice. `wanted`: for each input, whether
    its gradient is. `index`: the layer's number. `carried`: its states, where rows are windows of series.
    """

    tape: Tape
    index: int
    wanted: tuple[bool, ...]
    parameters: Mapping[str, Ref]
    gradients: Mapping[str, Ref]
    statistics: Mapping[str, Ref]
    statistic_sums: Mapping[str, Ref]
    bound: Ref  # what `bound` ops add to
    carried: Carried | None = None

    @property
    def training(self) -> bool:
        return self.tape.training

    def product(self, x: Ref, weight: Ref, out: Ref) -> None:
        """Emits out <- x W^T, for a weight matrix of (units, features)."""
        self.product_with(weight, x.shape(self.tape.most_rows)[0])(x, out)

    def product_with(self, weight: Ref, rows: int, times: int = 1) -> Callable[..., None]:
        """Returns a function of x, out, and whether to add, which emits out <- x W^T or out += x W^T; for
        many products with one weight matrix of (units, features). rows: of x. times: how many products there
        are."""
        often = times * rows >= MANY_ROWS and weight.plus * weight.columns < FEW_WEIGHTS
        small = rows >= SOME_ROWS and weight.plus * weight.columns <= SMALL_MATRIX
        if weight.plus < NARROW <= rows or (times > 1 and often) or small:
            turned = self.tape.work(weight.plus, 0, weight.columns)
            self.tape.emit("transpose", weight, turned)
            return lambda x, out, add=False: self.tape.emit("product_nn", x, turned, out, whole=(int(add),))
        return lambda x, out, add=False: self.tape.emit("product_nt", x, weight, out, whole=(int(add),))

    def weight_gradient(self, out: Ref, dz: Ref, x: Ref) -> None:
        """Emits out <- dz^T x, where `out` is one of `gradients`. If `out` lies in the gradient space, and dz
        and x have fewer numbers than it, the product may be computed later, part by part."""
        rows = self.tape.most_rows
        few = sum(m * n for m, n in (dz.shape(rows), x.shape(rows))) <= out.plus * out.columns
        few = few and out.space == Space.GRADIENT  # else it is a part of one, which is added to others
        if few:
            self.tape.keep(dz, x)
        many = units_at_once(dz.shape(rows)[0], dz.columns, x.columns)
        self.tape.emit("product_tn", dz, x, out, whole=(0, many), deferred=few)
        self.tape.emit(*(("bound_product", dz, x) if few else ("bound", out)), self.bound)
