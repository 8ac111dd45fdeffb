"""The contract of a layer, before any layer.

A layer is a frozen dataclass. Its fields are its options. Its methods say which shapes it makes, which
parameters it needs, and which ops compute it. It holds no arrays. `lower` emits the ops of the forward pass
onto the tape, and returns the output and a function that emits the ops of the backward pass:

    lower(low, *inputs) -> (output, backward)
        inputs, output   `Value`: a matrix (rows, numbers of one sample) and the shape of a sample
        backward(dy)     emits the backward ops; returns the gradient of each input, None if not `wanted`

Every layer keeps these rules, so that the hot loop allocates nothing and gradients are exact:
- Forward ops never write to an input. The output is a new buffer, or the input itself in another shape.
- Backward ops may overwrite dy. They write (do not add) the SUM over the rows of each parameter's gradient
  to `low.gradients[name]`. The caller owns the returned buffers and may overwrite them.
- Loss gradients are sums over rows, never means: the server divides once.
- A layer with several inputs returns a separate buffer for each gradient that is wanted.
- A value of ids (`takes = "ids"`) lies in the space INPUTS as int64; ids of a named input are numbers of the
  network's dtype. Their gradient is never wanted.
- Nothing is random except the draws of an op at a position (step, shard, layer).
- If `low.training` is false, `backward` is never called.
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
    """One parameter tensor of a layer. `initializer`: an initializer dataclass (`distbp.nn.initializers`).

    `fan_in`, `fan_out`: the numbers of inputs and outputs of one unit, for the initializer. `decays`: whether
    L1, L2 and weight decay apply by default (to weights; not to biases, scales and shifts). `sparse`: the
    gradient is zero except in the tensor's rows whose numbers occur in the samples. Raises ValueError if
    `initializer` lists values and their number does not fit `shape`.
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
    """A running statistic, which is not trained. After each step the server sets it to
    `(1 - rate) * old + rate * (the sum of the values that the shards wrote) / (rows in the batch)`."""

    name: str
    shape: Shape
    initial: float
    rate: float


@dataclass(frozen=True)
class StateSpec:
    """A state that a recurrent layer carries from window to window of a series. `shape`: for one row."""

    name: str
    shape: Shape


class Value(NamedTuple):
    """An input or output of layers: a matrix (rows, numbers of one sample), C order, and the shape of a
    sample. lengths: (rows, 1), the number of steps before the padding; None: no padding. channels_last: for
    images, whose shape is (channels, height, width): the numbers of a sample lie as (height, width,
    channels)."""

    ref: Ref
    shape: Shape
    lengths: Ref | None = None
    channels_last: bool = False


Backward = Callable[[Ref], Sequence[Ref | None]]


def no_backward(dy: Ref) -> Sequence[Ref | None]:
    """The `backward` of a layer that was lowered for evaluation. Raises RuntimeError."""
    raise RuntimeError("lowered for evaluation: there is no backward pass")


Takes = Literal["row", "numbers", "ids"]
Lengths = Literal["drop", "keep", "use", "begin"]
Channels = Literal["first", "last", "either"]


@dataclass(frozen=True, kw_only=True)
class LayerFacts:
    """Facts about a layer that checks, data and cost read. The defaults are those of a layer without
    parameters.

    `takes`: "row" (numbers on one axis; an image of the data is flattened), "numbers" (any shape that
    `output_shape` takes), or "ids" (whole numbers). `joins`: it takes two or more inputs, else one. `random`:
    it draws numbers in training. `trains`: it has parameters. `keeps_values`: its outputs are numbers of its
    input. `rescales`: the scale of its inputs does not matter. `rows_needed`: the least rows of a slice.
    `activation_option`: the option with the name of its last activation. `channels`: the layout of
    images that it takes (see `Value`); "either": all inputs have the same one. `carries`: it can carry states
    from window to window of a series. `by_data`: the options whose initializers may look at the training
    rows, and the purpose of each."""

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
        """What happens to the lengths of its input. "keep": outputs have the same lengths, and no step
        depends on padding. "use": padding does not count, and outputs have no lengths. "drop": padding would
        count, which is a fault. "begin": outputs have new lengths."""
        return "drop"

    @property
    def enters(self) -> int:
        """The number of numbers in a row of the data that this input takes; 0: it is not a named input."""
        return 0

    @property
    def window_fault(self) -> str:
        """Why a series cannot be cut into windows for this layer. "": it can, because each step of the
        outputs depends only on that step and on states carried from window to window (`states`)."""
        if self.lengths == "keep":
            return ""
        return f"{self.type} gives no output for each step, which windows of a series need"

    @property
    def ends_in(self) -> str | None:
        """The name of the activation that makes the outputs; None: no activation does."""
        return str(getattr(self, self.activation_option)) if self.activation_option else None

    @property
    def channels(self) -> Channels:
        return "first"

    @property
    def own_shape(self) -> Shape | None:
        """The shape of the output if the options alone decide it, else None."""
        return None

    @property
    def ids_below(self) -> int | None:
        """The largest id that it takes, plus one; None for a layer that takes numbers."""
        return None

    @property
    def table_columns(self) -> tuple[str, ...]:
        """The names or patterns of the table's columns whose features it takes; (): its whole input."""
        return ()

    def of_features(self, features: Sequence[int]) -> Any:
        """The layer with the numbers of its features, which replace `table_columns` or place an input."""
        return self

    @property
    def as_written(self) -> Any:
        """The layer as the job has it, before `of_features`."""
        return self

    # Arguments are the shapes of the inputs, as in `Layer`; this signature lets a layer take just one.
    def parameters(self, *inputs: Any, **_: Any) -> tuple[ParameterSpec, ...]:
        return ()

    def statistics(self, *inputs: Any, **_: Any) -> tuple[StatisticSpec, ...]:
        return ()

    def states(self, *inputs: Any, **_: Any) -> tuple[StateSpec, ...]:
        return ()

    def flops(self, *inputs: Any, **_: Any) -> float:
        return 0.0


class Layer(Protocol):
    """The interface of all layers; see `LayerFacts`. `type`: the name in a job. `*inputs`: for each input,
    the shape of a sample, or its `Value`."""

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
        """The shape of an output sample. Raises ValueError, with a message for users, if a shape is wrong."""
        ...

    def parameters(self, *inputs: Shape) -> tuple[ParameterSpec, ...]: ...

    def statistics(self, *inputs: Shape) -> tuple[StatisticSpec, ...]: ...

    def states(self, *inputs: Shape) -> tuple[StateSpec, ...]: ...

    def flops(self, *inputs: Shape) -> float:
        """Floating-point operations of a sample in forward and backward pass that involve parameters."""
        ...

    def lower(self, low: Lowering, *inputs: Value) -> tuple[Value, Backward]: ...
