"""The contract of a layer, before any layer.

A layer is a frozen dataclass that says what it is (its options), which shapes it makes and which
parameters it needs. It holds no arrays. `bind` gives, for slices of a fixed number of rows, a pair of
functions over buffers that are allocated once:

    forward(x)   x: (rows, *input_shape)   -> y: (rows, *output_shape)
    backward(dy) dy: like y                -> dx: like x, or None where `needs_input_gradient` is false

Rules that make the hot loop allocate nothing and the gradients exact:
- `forward` never writes to `x`; `y` is a buffer of the layer (or a view of `x`), valid until its next
  `forward`.
- `backward` follows the `forward` of the same rows. It may overwrite `dy`. It writes (does not add) the SUM
  over the rows of each parameter's gradient into `gradients[name]`, which is a view of the flat vector.
- Loss gradients are sums over rows, never means: the server divides once.
- Nothing is random except through `binding.stream`, at a position (step, shard, layer).
- Bound for evaluation (`training` false), `backward` is never called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from distbp.nn.arrays import Array, Shape

if TYPE_CHECKING:
    from distbp.nn.kernels import Kernels
    from distbp.streams import Stream

__all__ = [
    "Array",
    "Binding",
    "Bound",
    "Layer",
    "ParameterSpec",
    "Position",
    "Shape",
    "StatisticSpec",
    "no_backward",
]


@dataclass(frozen=True)
class ParameterSpec:
    """One parameter tensor of a layer. `initializer` is an initializer dataclass (`distbp.nn.initializers`).

    `fan_in` and `fan_out` are the numbers of inputs and outputs of one unit, for the initializer. `decays`:
    L1, L2 and weight decay apply by default (weights yes; biases, scales and shifts no).
    """

    name: str
    shape: Shape
    initializer: Any
    fan_in: int
    fan_out: int
    decays: bool = True


@dataclass(frozen=True)
class StatisticSpec:
    """A running statistic (not trained). After each step the server sets it to
    `(1 - rate) * old + rate * (sum over the shards of what they wrote) / (rows in the batch)`."""

    name: str
    shape: Shape
    initial: float
    rate: float


@dataclass
class Position:
    """Where the slice being computed stands; the network sets it before each forward."""

    step: int = 0
    shard: int = 0


@dataclass
class Binding:
    """What a layer is given to bind itself to.

    `parameters`, `gradients`: name -> array of the spec's shape, views of the flat vectors. `statistics`:
    running values (read only here). `statistic_sums`: where a training `forward` writes
    `rows * (the statistic of this slice)`. `index`: the layer's number in the network.
    """

    rows: int
    input_shape: Shape
    dtype: np.dtype[Any]
    training: bool
    needs_input_gradient: bool
    index: int
    parameters: Mapping[str, Array]
    gradients: Mapping[str, Array]
    statistics: Mapping[str, Array]
    statistic_sums: Mapping[str, Array]
    kernels: Kernels
    position: Position
    stream: Stream

    def empty(self, *shape: int, dtype: Any = None) -> Array:
        """A new buffer, C-contiguous, of the network's dtype unless told. Called while binding only."""
        return np.empty(shape, dtype or self.dtype)


class Bound(NamedTuple):
    """`live()` gives, for each unit, in how many rows of the last forward it was not saturated, (units,), for
    the health report; None where the layer has no units that can saturate."""

    forward: Callable[[Array], Array]
    backward: Callable[[Array], Array | None]
    live: Callable[[], Array] | None = None


class Layer(Protocol):
    """What every layer dataclass offers. `type` is its name in a job."""

    @property
    def type(self) -> str: ...

    def output_shape(self, input_shape: Shape) -> Shape:
        """Raises ValueError, with a message for the user, where the shape does not fit."""
        ...

    def parameters(self, input_shape: Shape) -> tuple[ParameterSpec, ...]: ...

    def statistics(self, input_shape: Shape) -> tuple[StatisticSpec, ...]: ...

    def bind(self, binding: Binding) -> Bound: ...


def no_backward(dy: Array) -> Array | None:
    """The `backward` of a layer that was bound for evaluation."""
    raise RuntimeError("bound for evaluation: there is no backward pass")
