"""The argument of `Layer.lower`: the tape, and the places of a layer's tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from distbp.machine.blas import SMALL, STRIP
from distbp.nn.tape import SHARD, Ref, Space, Tape

# A product with a transposed right operand is slow if it has fewer columns than a vector register has float32
# numbers. It takes twice as long as a product with a transposed copy.
NARROW = 16
# Below this number of weights it is a little slower, too. From this number of rows on, the copy pays off.
FEW_WEIGHTS, MANY_ROWS = 1 << 17, 1024
# With at most this number of weights, the copy pays off from fewer rows on: a library's functions for small
# products are fast if the right operand is not transposed, and larger products are cut for them
# (`distbp.machine.gemm.strips_of`).
SMALL_MATRIX, SOME_ROWS = SMALL // STRIP, STRIP


# A weight gradient is computed in parts that stay in a near cache until they are used. With few rows, a
# product of a part is as fast as one of the whole, so parts are small enough for the nearest cache.
FEW_ROWS, MORE_ROWS = 32, 128
PART_BYTES, LARGER_PART_BYTES = 48 * 1024, 208 * 1024
LINE = 16  # float32 numbers in 64 bytes


def units_at_once(rows: int, units: int, features: int) -> int:
    """The number of units for which one product computes the gradient of the weights. Part of the numerics:
    the shape of a product may decide its last bits."""
    if rows <= FEW_ROWS:
        return min(units, max(8, PART_BYTES // (4 * features)))
    if rows <= MORE_ROWS:
        parts = -(-4 * units * features // LARGER_PART_BYTES)
        return min(units, -(-units // (parts * LINE)) * LINE)
    return units


@dataclass(frozen=True)
class Carried:
    """The states that a layer carries from one window of a series to the next. begins: (rows, 1), not 0 if a
    series begins in the row. lanes: the number of rows for which each shard has states. loads, stores: by
    name, the places of the states before and after the window."""

    tape: Tape
    begins: Ref
    lanes: int
    loads: Mapping[str, Ref]
    stores: Mapping[str, Ref]

    def load(self, name: str, out: Ref) -> None:
        """Emits out (rows, columns) <- the states after the last window; 0 in rows that begin a series."""
        self.tape.emit("load_states", self.loads[name], SHARD, self.begins, out, whole=(self.lanes,))

    def store(self, name: str, a: Ref) -> None:
        """Emits the op that stores a (rows, columns) as the states for the next window."""
        self.tape.emit("store_states", a, SHARD, self.stores[name], whole=(self.lanes,))


@dataclass(frozen=True)
class Lowering:
    """The argument of `Layer.lower`.

    `parameters`, `gradients`, `statistics`, `statistic_sums`: the places of tensors, by name. A vector is a
    matrix of one row; in a tensor of more than two axes, all axes except the last become rows. For a tensor
    that several layers use, `gradients` has a buffer. `statistic_sums`: training ops write there the
    statistic of the slice times the samples of the slice. `wanted`: for each input, whether its gradient is
    needed. `index`: the layer's number. `carried`: its states, if rows are windows of series.
    """

    tape: Tape
    index: int
    wanted: tuple[bool, ...]
    parameters: Mapping[str, Ref]
    gradients: Mapping[str, Ref]
    statistics: Mapping[str, Ref]
    statistic_sums: Mapping[str, Ref]
    bound: Ref  # the total to which `bound` ops add
    carried: Carried | None = None

    @property
    def training(self) -> bool:
        return self.tape.training

    def product(self, x: Ref, weight: Ref, out: Ref) -> None:
        """Emits out <- x W^T. x: (n, features), weight: (units, features), out: (n, units)."""
        self.product_with(weight, x.shape(self.tape.most_rows)[0])(x, out)

    def product_with(self, weight: Ref, rows: int, times: int = 1) -> Callable[..., None]:
        """Prepares `times` products with one weight matrix (units, features). Returns a function of x, out
        and whether to add, which emits out <- x W^T or out += x W^T. rows: the most rows of x."""
        often = times * rows >= MANY_ROWS and weight.plus * weight.columns < FEW_WEIGHTS
        small = rows >= SOME_ROWS and weight.plus * weight.columns <= SMALL_MATRIX
        if weight.plus < NARROW <= rows or (times > 1 and often) or small:
            turned = self.tape.work(weight.plus, 0, weight.columns)
            self.tape.emit("transpose", weight, turned)
            return lambda x, out, add=False: self.tape.emit("product_nn", x, turned, out, whole=(int(add),))
        return lambda x, out, add=False: self.tape.emit("product_nt", x, weight, out, whole=(int(add),))

    def weight_gradient(self, out: Ref, dz: Ref, x: Ref) -> None:
        """Emits out <- dz^T x. out: (units, features), one of `gradients`; dz: (n, units), x: (n, features).
        The product may be deferred if `out` lies in the gradient space and is at least as large as dz and x
        together."""
        rows = self.tape.most_rows
        few = sum(m * n for m, n in (dz.shape(rows), x.shape(rows))) <= out.plus * out.columns
        few = few and out.space == Space.GRADIENT  # else `out` is a buffer that is added to others
        if few:
            self.tape.keep(dz, x)
        many = units_at_once(dz.shape(rows)[0], dz.columns, x.columns)
        self.tape.emit("product_tn", dz, x, out, whole=(0, many), deferred=few)
        self.tape.emit(*(("bound_product", dz, x) if few else ("bound", out)), self.bound)
