"""A network: layers in a graph without cycles, over one flat vector.

The flat vector holds every trained tensor, layer after layer, then the running statistics (batch
normalization), then the states that recurrent layers carry from window to window. The flat gradient vector
has the same places. It holds the sums of the gradients, and the values that layers write for statistics and
states. So a push is one vector, an update is a few passes over one vector, and a checkpoint is one array.
`distbp.nn.lowered` turns a network into a list of ops.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from distbp.core.arrays import aligned_vector
from distbp.core.streams import Purpose, generator
from distbp.nn.layers.base import Array, Layer, ParameterSpec, Shape, StateSpec, StatisticSpec
from distbp.nn.layers.columns import Columns
from distbp.nn.named_inputs import NamedInput, named_inputs, numbers_misfit
from distbp.nn.sharing import sharing_of, users_of
from distbp.nn.tape import ENTRY, Ref, Space
from distbp.nn.wiring import (
    DATA,
    Wiring,
    dropping,
    ids_below,
    of_columns,
    places_of,
    tearing,
    unknown_name,
    wiring_of,
    with_lengths,
)


@dataclass(frozen=True)
class Tensor:
    """A tensor and its place in the flat vector: [start, stop), C order. `path`: its name for people and
    files, such as `layers.0.dense.weight`. `layer`: the number of its layer, or ENTRY; other layers may use
    the tensor, too. `decays`: see `ParameterSpec`."""

    path: str
    layer: int
    name: str
    shape: Shape
    start: int
    stop: int
    decays: bool = False
    rate: float = 0.0  # of a running statistic, else 0


@dataclass(frozen=True)
class Carry:
    """Says that rows are windows of series. Recurrent layers carry their states from window to window, and
    each step of a row has an output with its own target. lanes: the rows of a shard's slice; the flat vector
    holds states for each. 0 in prediction, when states have a space of their own."""

    shards: int = 1
    lanes: int = 0


class Network:
    """The layers in order, with the shapes of their outputs and the places of their tensors. Holds no arrays.

    `wiring`: for each layer, the numbers of the earlier layers whose outputs it takes, -1 for the data; None:
    as the layers' `inputs` say. `outputs`: the names of the output layers; (): the last layer. Several
    outputs lie side by side, as one row of numbers. `entry`: turns a row of the data, `input_shape`, into the
    data that layers take, `shapes[0]`; None: layers take the row. lengths: whether rows have lengths, the
    number of steps before the padding; a row then consists of its numbers and its length (`row_shape`).
    carry: given if rows are windows of series; a row then ends with its length, and 1 if a series begins in
    it, else 0. Raises ValueError if names, shapes or lengths do not fit; the message names the layer.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        input_shape: Shape,
        dtype: Any = np.float32,
        wiring: Wiring | None = None,
        entry: Columns | None = None,
        lengths: bool = False,
        outputs: Sequence[str] = (),
        carry: Carry | None = None,
    ) -> None:
        self.carry, lengths = carry, lengths or carry is not None
        self.layers, strange = of_columns(layers, entry)
        for problem in strange:
            raise ValueError(f"layer {problem.place}: {problem.message}")
        self.wiring = wiring_of(self.layers, outputs) if wiring is None else wiring
        self.outputs, nameless = places_of(self.layers, outputs, unknown_name)  # the output layers' numbers
        for problem in nameless:
            raise ValueError(problem.message)
        self.dtype = np.dtype(dtype)
        self.entry = entry
        self.lengths = lengths
        self.having_lengths = with_lengths(self.layers, self.wiring, lengths)
        self.input_shape: Shape = tuple(input_shape)  # of a row of the data
        self.shapes: list[Shape] = [self.input_shape]  # of the data that layers take, and of each output
        self.tensors: list[Tensor] = []
        self.size = 0
        if entry is not None:
            self.shapes = [entry.output_shape(self.input_shape)]
            self._hold(self.tensors, ENTRY, entry.parameters(self.input_shape))
        if misfit := numbers_misfit(self.layers, self.shapes[0]):
            raise ValueError(misfit)
        specs: list[tuple[ParameterSpec, ...]] = []
        for index, layer in enumerate(self.layers):
            try:
                self.shapes.append(layer.output_shape(*self.input_shapes(index)))
                specs.append(layer.parameters(*self.input_shapes(index)))
            except ValueError as error:
                raise ValueError(f"layer {index} ({layer.type}): {error}") from None
        misfits = dropping(self.layers, self.wiring, lengths, self.shapes[0])
        for problem in misfits if carry is None else (*tearing(self.layers), *misfits):
            raise ValueError(f"layer {problem.place}: {problem.message}")
        self.sharing = sharing_of(self.layers, [{spec.name: spec.shape for spec in own} for own in specs])
        self.users = users_of(self.sharing)
        for index, own in enumerate(specs):
            self._hold(self.tensors, index, [spec for spec in own if (index, spec.name) not in self.sharing])
        self.parameter_count = self.size
        statistics: list[Tensor] = []
        for index, layer in enumerate(self.layers):
            self._hold(statistics, index, layer.statistics(*self.input_shapes(index)))
        self.statistics = tuple(statistics)
        states: list[Tensor] = []
        for index, layer in enumerate(self.layers if carry is not None else ()):
            assert carry is not None
            each = (carry.shards, carry.lanes)
            own_states = layer.states(*self.input_shapes(index))
            self._hold(states, index, [replace(one, shape=(*each, *one.shape)) for one in own_states])
        self.states = tuple(states)
        holding = {*self.parameters_by_layer, *(index for index, _ in self.sharing)}
        self.trained = {DATA: ENTRY in holding}  # whether a layer's output depends on a parameter
        for index, sources in enumerate(self.wiring):
            self.trained[index] = index in holding or any(self.trained[source] for source in sources)

    def _hold(
        self, tensors: list[Tensor], index: int, specs: Iterable[ParameterSpec | StatisticSpec | StateSpec]
    ) -> None:
        """Gives the tensors of a layer their places at the end of the vector."""
        path = "input" if index == ENTRY else f"layers.{index}"
        for spec in specs:
            stop = self.size + math.prod(spec.shape)  # exact for any size; NumPy would overflow
            name = f"{path}.{self.layer(index).type}.{spec.name}"
            decays = isinstance(spec, ParameterSpec) and spec.decays
            rate = spec.rate if isinstance(spec, StatisticSpec) else 0.0
            tensors.append(Tensor(name, index, spec.name, spec.shape, self.size, stop, decays, rate))
            self.size = stop

    def layer(self, number: int) -> Layer:
        """The layer with a number, or the entry."""
        if number != ENTRY:
            return self.layers[number]
        assert self.entry is not None
        return self.entry

    def input_shapes(self, layer: int) -> list[Shape]:
        if layer == ENTRY:
            return [self.input_shape]
        return [self.shapes[source + 1] for source in self.wiring[layer]]

    @property
    def ids_below(self) -> int | None:
        """The largest id that the data may hold, plus one; None if the data are not ids."""
        return ids_below(self.layers, self.wiring)

    @property
    def named_inputs(self) -> tuple[NamedInput, ...]:
        """The inputs that a row of the data holds side by side; () if the data are one input."""
        return named_inputs(self.layers)

    @property
    def input_dtype(self) -> np.dtype[Any]:
        """The dtype of the data: int64 if they are ids, else the dtype of the network."""
        return self.dtype if self.ids_below is None else np.dtype(np.int64)

    @property
    def row_shape(self) -> Shape:
        """The shape of a row on the tape: its numbers, then its length and its begin, if it has them."""
        more = int(self.lengths) + int(self.carry is not None)
        return (math.prod(self.input_shape) + more,) if more else self.input_shape

    @property
    def output_shapes(self) -> list[Shape]:
        """The shape of each output."""
        return [self.shapes[number + 1] for number in self.outputs]

    @property
    def output_shape(self) -> Shape:
        """The shape of one row of the outputs. Several outputs are one row of all their numbers."""
        shapes = self.output_shapes
        return shapes[0] if len(shapes) == 1 else (sum(map(math.prod, shapes)),)

    @property
    def answer_shapes(self) -> list[Shape]:
        """For each output, the shape of the part with one target: a row, or a step of a series' window."""
        return [shape if self.carry is None else shape[1:] for shape in self.output_shapes]

    @property
    def answers(self) -> int:
        """The number of targets of a row, and of its weights, if it has weights."""
        return 1 if self.carry is None else self.output_shape[0]

    @property
    def states_of_a_row(self) -> int:
        """The number of elements that the layers can carry for a row from window to window."""
        layers = enumerate(self.layers)
        states = [one for index, layer in layers for one in layer.states(*self.input_shapes(index))]
        return sum(math.prod(one.shape) for one in states)

    @property
    def parameters_by_layer(self) -> dict[int, int]:
        """The number of parameters by layer, and of the entry (ENTRY). Leaves out layers without any."""
        counts: dict[int, int] = {}
        for tensor in self.tensors:
            counts[tensor.layer] = counts.get(tensor.layer, 0) + tensor.stop - tensor.start
        return counts

    @property
    def shared(self) -> int:
        """The number of elements that all layers together write for the gradients of shared tensors."""
        return sum(len(users) * place.columns * place.plus for _, users, place in self.shared_gradients)

    @property
    def sparse(self) -> list[Tensor]:
        """The tensors that are sparse (see `ParameterSpec`) in all layers that use them."""
        return [
            tensor
            for tensor in self.tensors
            if all(
                self._spec(user, tensor.name).sparse
                for user in self.users.get((tensor.layer, tensor.name), [tensor.layer])
            )
        ]

    def _spec(self, layer: int, name: str) -> ParameterSpec:
        specs = self.layer(layer).parameters(*self.input_shapes(layer))
        return next(spec for spec in specs if spec.name == name)

    @property
    def decays(self) -> list[tuple[int, int]]:
        """The ranges of the flat vector to which decay applies by default."""
        return [(t.start, t.stop) for t in self.tensors if t.decays]

    @property
    def flops(self) -> float:
        """Floating-point operations of a sample in a step, as if the gradients of all inputs were computed.
        `shards: auto` decides by this number."""
        numbers = [*[ENTRY][: self.entry is not None], *range(len(self.layers))]
        return float(sum(self.layer(n).flops(*self.input_shapes(n)) for n in numbers)) or 1.0

    @property
    def uses(self) -> float:
        """How often a sample uses a weight, on average: once in dense networks, more often if places or steps
        share weights. A shared tensor counts for each layer that uses it. Sparse tensors do not count."""
        flops, weights = 0.0, 0
        for index, layer in enumerate(self.layers):
            shapes = self.input_shapes(index)
            sizes = [math.prod(spec.shape) for spec in layer.parameters(*shapes) if not spec.sparse]
            flops += layer.flops(*shapes) if sizes else 0
            weights += sum(sizes)
        return flops / (6 * max(1, weights))

    def initialize(self, seed: int) -> Array:
        """A new flat vector (size,). Each tensor is drawn in float64 from its own stream, then cast.
        Statistics have their initial values; states are 0."""
        vector = aligned_vector(self.size, self.dtype)
        for number, tensor in enumerate(self.tensors):
            spec = self._spec(tensor.layer, tensor.name)
            draw = generator(seed, Purpose.INITIALIZE, number)
            values = spec.initializer.draw(spec.shape, spec.fan_in, spec.fan_out, draw)
            vector[tensor.start : tensor.stop] = np.asarray(values).ravel()
        for tensor in self.statistics:
            specs = self.layers[tensor.layer].statistics(*self.input_shapes(tensor.layer))
            vector[tensor.start : tensor.stop] = next(s.initial for s in specs if s.name == tensor.name)
        return vector

    def used_by(self, layer: int) -> list[Tensor]:
        """The tensors of a layer: its own, then those of other layers that it uses."""
        theirs = {(owner, name) for (user, name), owner in self.sharing.items() if user == layer}
        own = [t for t in self.tensors if t.layer == layer]
        return own + [t for t in self.tensors if (t.layer, t.name) in theirs]

    @property
    def shared_gradients(self) -> list[tuple[str, list[int], Ref]]:
        """For each tensor that several layers use: its name, the layers, and its place in the gradient."""
        return [
            (name, users, places(Space.GRADIENT, self.used_by(owner))[name])
            for (owner, name), users in self.users.items()
        ]


def places(space: Space, tensors: Iterable[Tensor]) -> dict[str, Ref]:
    """The places of tensors in a space, by name. All axes except the last become the rows of the matrix."""
    return {t.name: Ref(space, t.start, t.shape[-1], plus=math.prod(t.shape[:-1])) for t in tensors}
