"""The contract of a layer, before any layer.

A layer is a frozen dataclass that says what it is (its options), which shapes it makes, which parameters it
needs, and which ops compute it. It holds no arrays. `lower` emits the ops of the forward pass onto the tape
and returns its output and what emits the ops of the backward pass:

    lower(low, *inputs) -> (output, backward)
        inputs, output   `Value`: a matrix of (rows, numbers of one sample) and the shape of a sample
        backward(dy)     emits the backward ops; returns the gradient of each input, None where it is not
        wanted

Rules that make the hot loop allocate nothing and the gradients exact:
- Forward ops never write to an input; the output is a buffer of the layer, or the input itself in another
  shape.
- Backward ops may overwrite dy. They write (do not add) the SUM over the rows of each parameter's gradient
  into `low.gradients[name]`. What is returned belongs to the caller, who may overwrite it.
- Loss gradients are sums over rows, never means: the server divides once.
- Where a layer has several inputs, it returns a buffer of its own for each gradient that is wanted.
- A value in ids (`takes = "ids"`) is of int64 and lies where the data lie; its gradient is never wanted.
- Nothing is random except what an op draws at a position (step, shard, layer).
- Where `low.training` is false, `backward` is never called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

from distbp.core.arrays import Array, Shape
from distbp.core.options import option
from distbp.nn.initializers import Values
from distbp.nn.tape import ABSENT, Ref, Space, Tape

__all__ = [
    "ABSENT",
    "Array",
    "Backward",
    "Channels",
    "Facts",
    "Layer",
    "Lengths",
    "Lowering",
    "ParameterSpec",
    "Shape",
    "StatisticSpec",
    "Takes",
    "Value",
    "no_backward",
]


# Into fewer columns than that, a vector register of float32, the product with a transposed matrix takes
# twice as long as the one with a copy of it the other way round.
NARROW = 16
# So does a product with a matrix of fewer elements than that, a little; for so many rows it is worth a copy.
FEW_WEIGHTS, MANY_ROWS = 1 << 17, 1024


# The gradient of weights is computed for so many units at a time that it stays in a near cache until it is
# used, in the nearest one where few rows make a product of a part as fast as one of the whole.
FEW_ROWS, MORE_ROWS = 32, 128
PART_BYTES, LARGER_PART_BYTES = 48 * 1024, 208 * 1024
LINE = 16  # float32 numbers in 64 bytes


def units_at_once(rows: int, units: int, features: int) -> int:
    """Into how large parts the product of a weights' gradient is cut. Part of the numerics, as the shape of
    a product may decide its last bits."""
    if rows <= FEW_ROWS:
        return min(units, max(8, PART_BYTES // (4 * features)))
    if rows <= MORE_ROWS:
        parts = -(-4 * units * features // LARGER_PART_BYTES)
        return min(units, -(-units // (parts * LINE)) * LINE)
    return units


@dataclass(frozen=True)
class ParameterSpec:
    """One parameter tensor of a layer. `initializer` is an initializer dataclass (`distbp.nn.initializers`).

    `fan_in` and `fan_out` are the numbers of inputs and outputs of one unit, for the initializer. `decays`:
    L1, L2 and weight decay apply by default (weights yes; biases, scales and shifts no). Raises ValueError
    where an initializer gives another number of values.
    """

    name: str
    shape: Shape
    initializer: Any
    fan_in: int
    fan_out: int
    decays: bool = True

    def __post_init__(self) -> None:
        if isinstance(self.initializer, Values):
            self.initializer.check(self.name, self.shape)


@dataclass(frozen=True)
class StatisticSpec:
    """A running statistic (not trained). After each step the server sets it to
    `(1 - rate) * old + rate * (sum over the shards of what they wrote) / (rows in the batch)`."""

    name: str
    shape: Shape
    initial: float
    rate: float


class Value(NamedTuple):
    """What flows between layers: a matrix (rows, numbers of one sample), C order, and the shape of a sample.

    lengths: (rows, 1), how many steps of each row are its own, the others are padding; None: all.
    channels_last: of images, whose shape is (channels, height, width): the numbers of a sample lie as
    (height, width, channels)."""

    ref: Ref
    shape: Shape
    lengths: Ref | None = None
    channels_last: bool = False


Backward = Callable[[Ref], Sequence[Ref | None]]


@dataclass(frozen=True)
class Lowering:
    """What a layer is given to emit its ops.

    `parameters`, `gradients`, `statistics`, `statistic_sums`: name -> place. Of a tensor that several layers
    use, `gradients` has a buffer. A vector is a matrix of one
    row; a tensor of more than two axes has all but the last as its rows. `statistic_sums`: where training
    ops write the samples of the slice times the statistic of the slice. `wanted`: for each input, whether
    its gradient is. `index`: the layer's number.
    """

    tape: Tape
    index: int
    wanted: tuple[bool, ...]
    parameters: Mapping[str, Ref]
    gradients: Mapping[str, Ref]
    statistics: Mapping[str, Ref]
    statistic_sums: Mapping[str, Ref]
    bound: Ref  # what `bound` ops add to

    @property
    def training(self) -> bool:
        return self.tape.training

    def product(self, x: Ref, weight: Ref, out: Ref) -> None:
        """Emits out <- x W^T, for a weight matrix of (units, features)."""
        self.product_with(weight, x.shape(self.tape.most_rows)[0])(x, out)

    def product_with(self, weight: Ref, rows: int, times: int = 1) -> Callable[..., None]:
        """What emits out <- x W^T, or out += x W^T, given x, out, and whether to add; for many products with
        one weight matrix of (units, features). rows: of x; times: how many products, where that counts."""
        often = times * rows >= MANY_ROWS and weight.plus * weight.columns < FEW_WEIGHTS
        if weight.plus < NARROW <= rows or (times > 1 and often):
            turned = self.tape.work(weight.plus, 0, weight.columns)
            self.tape.emit("transpose", weight, turned)
            return lambda x, out, add=False: self.tape.emit("product_nn", x, turned, out, whole=(int(add),))
        return lambda x, out, add=False: self.tape.emit("product_nt", x, weight, out, whole=(int(add),))

    def weight_gradient(self, out: Ref, dz: Ref, x: Ref) -> None:
        """Emits out <- dz^T x, where `out` is one of `gradients`. In the gradient space it may be computed
        later, part by part, where dz and x are fewer numbers."""
        rows = self.tape.most_rows
        few = sum(m * n for m, n in (dz.shape(rows), x.shape(rows))) <= out.plus * out.columns
        few = few and out.space == Space.GRADIENT  # else it is a part of one, which is added to others
        if few:
            self.tape.keep(dz, x)
        many = units_at_once(dz.shape(rows)[0], dz.columns, x.columns)
        self.tape.emit("product_tn", dz, x, out, whole=(0, many), deferred=few)
        self.tape.emit(*(("bound_product", dz, x) if few else ("bound", out)), self.bound)


def no_backward(dy: Ref) -> Sequence[Ref | None]:
    """The backward of a layer that was lowered for evaluation."""
    raise RuntimeError("lowered for evaluation: there is no backward pass")


Takes = Literal["row", "numbers", "ids"]
Lengths = Literal["drop", "keep", "use"]
Channels = Literal["first", "last", "either"]


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What checks, the data and the cost read of every layer; the defaults are those of a layer without
    parameters.

    `takes`: "row" (of numbers: an image of the data is made one), "numbers" of any shape that `output_shape`
    takes, or "ids", whole numbers. `joins`: it takes two or more inputs, else one. `random`: it draws
    numbers while training. `trains`: it has parameters. `keeps_values`: it gives its input in another shape,
    or with some numbers left out. `rescales`: the size of its inputs does not matter. `rows_needed`: in every
    slice. `activation_option`: the option that names the activation that it ends in. `channels`: of images
    that it takes, how they must lie (see `Value`); where either will do, those of all inputs lie alike.
    """

    takes: ClassVar[Takes] = "numbers"
    joins: ClassVar[bool] = False
    random: ClassVar[bool] = False
    trains: ClassVar[bool] = False
    keeps_values: ClassVar[bool] = False
    rescales: ClassVar[bool] = False
    rows_needed: ClassVar[int] = 1
    activation_option: ClassVar[str] = ""

    name: str | None = option(
        None, help="by which later layers name its output in their `inputs`", min_length=1
    )
    inputs: tuple[str, ...] | None = option(
        None, help="names of earlier layers, or `input`, the data; left out: the layer above", min_length=1
    )
    shares: str | tuple[str, ...] | None = option(
        None,
        help="tensors of other layers that it uses for its own of the same name, as `out.weight`: one, or a"
        " list of them",
        min_length=1,
    )

    @property
    def lengths(self) -> Lengths:
        """What becomes of the lengths of its input (steps, ...). "keep": the outputs have them, too, as no
        step's output depends on padding. "use": padding does not count, and the outputs have none. "drop":
        padding would count, which is a fault."""
        return "drop"

    @property
    def ends_in(self) -> str | None:
        """The name of the activation that makes the outputs; None where there is none."""
        return str(getattr(self, self.activation_option)) if self.activation_option else None

    @property
    def channels(self) -> Channels:
        return "first"

    @property
    def own_shape(self) -> Shape | None:
        """The shape of the output where the options alone say it."""
        return None

    @property
    def ids_below(self) -> int | None:
        """One more than the largest id; None for a layer that takes numbers."""
        return None

    # Of the shapes of the inputs, as `Layer` says; so declared, a layer may take one shape only.
    def parameters(self, *inputs: Any, **_: Any) -> tuple[ParameterSpec, ...]:
        return ()

    def statistics(self, *inputs: Any, **_: Any) -> tuple[StatisticSpec, ...]:
        return ()

    def flops(self, *inputs: Any, **_: Any) -> float:
        return 0.0


class Layer(Protocol):
    """What every layer dataclass offers. `type` is its name in a job; `inputs` are the shapes of one sample
    each."""

    takes: ClassVar[Takes]
    joins: ClassVar[bool]
    random: ClassVar[bool]
    trains: ClassVar[bool]
    keeps_values: ClassVar[bool]
    rescales: ClassVar[bool]
    rows_needed: ClassVar[int]
    activation_option: ClassVar[str]

    @property
    def lengths(self) -> Lengths: ...
    @property
    def ends_in(self) -> str | None: ...
    @property
    def type(self) -> str: ...

    @property
    def name(self) -> str | None: ...

    @property
    def inputs(self) -> tuple[str, ...] | None: ...

    @property
    def channels(self) -> Channels: ...

    @property
    def shares(self) -> str | tuple[str, ...] | None: ...

    @property
    def own_shape(self) -> Shape | None: ...

    @property
    def ids_below(self) -> int | None: ...

    def output_shape(self, *inputs: Shape) -> Shape:
        """Raises ValueError, with a message for the user, where a shape does not fit."""
        ...

    def parameters(self, *inputs: Shape) -> tuple[ParameterSpec, ...]: ...

    def statistics(self, *inputs: Shape) -> tuple[StatisticSpec, ...]: ...

    def flops(self, *inputs: Shape) -> float:
        """Floating-point operations of one sample in one step, forward and backward, where parameters take
        part."""
        ...

    def lower(self, low: Lowering, *inputs: Value) -> tuple[Value, Backward]: ...
