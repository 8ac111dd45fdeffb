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
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol

from distbp.core.arrays import Array, Shape
from distbp.core.options import option
from distbp.nn.initializers import Values
from distbp.nn.layers.lowering import Lowering
from distbp.nn.tape import ABSENT, Ref

__all__ = [
    "ABSENT",
    "Array",
    "Backward",
    "Channels",
    "Layer",
    "LayerFacts",
    "Lengths",
    "Lowering",
    "ParameterSpec",
    "Shape",
    "StateSpec",
    "StatisticSpec",
    "Takes",
    "Value",
    "no_backward",
]


@dataclass(frozen=True)
class ParameterSpec:
    """One parameter tensor of a layer. `initializer` is an initializer dataclass (`distbp.nn.initializers`).

    `fan_in` and `fan_out` are the numbers of inputs and outputs of one unit, for the initializer. `decays`:
    L1, L2 and weight decay apply by default (weights yes; biases, scales and shifts no). `sparse`: its
    gradient is zero but in the rows that the samples name. Raises ValueError where an initializer gives
    another number of values.
    """

    name: str
    shape: Shape
    initializer: Any
    fan_in: int
    fan_out: int
    decays: bool = True
    sparse: bool = False

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


@dataclass(frozen=True)
class StateSpec:
    """What a recurrent layer carries from one window of a series to the next, for each row of a slice:
    numbers of this shape."""

    name: str
    shape: Shape


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


def no_backward(dy: Ref) -> Sequence[Ref | None]:
    """The backward of a layer that was lowered for evaluation."""
    raise RuntimeError("lowered for evaluation: there is no backward pass")


Takes = Literal["row", "numbers", "ids"]
Lengths = Literal["drop", "keep", "use", "begin"]
Channels = Literal["first", "last", "either"]


@dataclass(frozen=True, kw_only=True)
class LayerFacts:
    """What checks, the data and the cost read of every layer; the defaults are those of a layer without
    parameters.

    `takes`: "row" (of numbers: an image of the data is made one), "numbers" of any shape that `output_shape`
    takes, or "ids", whole numbers. `joins`: it takes two or more inputs, else one. `random`: it draws
    numbers while training. `trains`: it has parameters. `keeps_values`: it gives its input in another shape,
    or with some numbers left out. `rescales`: the size of its inputs does not matter. `rows_needed`: in every
    slice. `activation_option`: the option that names the activation that it ends in. `channels`: of images
    that it takes, how they must lie (see `Value`); where either will do, those of all inputs lie alike.
    `carries`: it has states, which it can take from one window of a series to the next. `by_data`: the
    options whose initializers may look at the training rows, and what each is for."""

    takes: ClassVar[Takes] = "numbers"
    joins: ClassVar[bool] = False
    random: ClassVar[bool] = False
    trains: ClassVar[bool] = False
    keeps_values: ClassVar[bool] = False
    rescales: ClassVar[bool] = False
    rows_needed: ClassVar[int] = 1
    activation_option: ClassVar[str] = ""
    carries: ClassVar[bool] = False
    by_data: ClassVar[Mapping[str, str]] = MappingProxyType({})
    if TYPE_CHECKING:  # each layer gives it with its own default

        @property
        def type(self) -> str: ...

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
        """What becomes of its input's lengths. "keep": the outputs have them, as no step depends on padding.
        "use": padding does not count, and the outputs have none. "drop": padding would count, a fault.
        "begin": they have lengths of their own."""
        return "drop"

    @property
    def enters(self) -> int:
        """How many numbers of a row of the data are its own input; 0: it takes outputs, or all the data."""
        return 0

    @property
    def window_fault(self) -> str:
        """Why a series cannot be cut into windows for this layer; "" if each step of its outputs depends on
        that step alone, and on states that it carries from window to window (`states`)."""
        if self.lengths == "keep":
            return ""
        return f"{self.type} gives no output for each step, which windows of a series need"

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

    @property
    def table_columns(self) -> tuple[str, ...]:
        """The names or patterns of the table's columns whose features it takes; () for all of its input."""
        return ()

    def of_features(self, features: Sequence[int]) -> Any:
        """The layer that takes these features: in place of `table_columns`, or as an input's place."""
        return self

    @property
    def as_written(self) -> Any:
        """The layer as the job says it, before `of_features`."""
        return self

    # Of the shapes of the inputs, as `Layer` says; so declared, a layer may take one shape only.
    def parameters(self, *inputs: Any, **_: Any) -> tuple[ParameterSpec, ...]:
        return ()

    def statistics(self, *inputs: Any, **_: Any) -> tuple[StatisticSpec, ...]:
        return ()

    def states(self, *inputs: Any, **_: Any) -> tuple[StateSpec, ...]:
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
    carries: ClassVar[bool]
    by_data: ClassVar[Mapping[str, str]]

    @property
    def lengths(self) -> Lengths: ...
    @property
    def window_fault(self) -> str: ...
    @property
    def enters(self) -> int: ...
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

    @property
    def table_columns(self) -> tuple[str, ...]: ...

    @property
    def as_written(self) -> Layer: ...

    def of_features(self, features: Sequence[int]) -> Layer: ...

    def output_shape(self, *inputs: Shape) -> Shape:
        """Raises ValueError, with a message for the user, where a shape does not fit."""
        ...

    def parameters(self, *inputs: Shape) -> tuple[ParameterSpec, ...]: ...

    def statistics(self, *inputs: Shape) -> tuple[StatisticSpec, ...]: ...

    def states(self, *inputs: Shape) -> tuple[StateSpec, ...]: ...

    def flops(self, *inputs: Shape) -> float:
        """Floating-point operations of a sample in a step, both ways, where parameters take part."""
        ...

    def lower(self, low: Lowering, *inputs: Value) -> tuple[Value, Backward]: ...
