"""A network: layers in a graph without cycles, over one flat vector.

The flat vector holds every trained tensor, layer after layer, and then the running statistics (batch
normalization). The flat gradient vector has the same places: the sums of the gradients, and what the
layers write for the statistics. So a push is one vector, an update is a few passes over one vector, and a
checkpoint is one array.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from distbp.core.streams import Purpose, generator
from distbp.nn.layers.base import Array, Backward, Layer, Lowering, ParameterSpec, Shape, Value
from distbp.nn.losses.base import Loss, lower_loss
from distbp.nn.sharing import join_parts, part_buffers, sharing_of, users_of
from distbp.nn.tape import BOUND_TOTAL, TOTALS, Ref, Row, Space, Tape, Watched, merged
from distbp.nn.wiring import DATA, Wiring, ids_below, wiring_of


@dataclass(frozen=True)
class Tensor:
    """Where a tensor stands in the flat vector: [start, stop), C order. `path` names it for people and
    files: `layers.0.dense.weight`. `layer`: which has it; others may use it, too."""

    path: str
    layer: int
    name: str
    shape: Shape
    start: int
    stop: int
    decays: bool = False
    rate: float = 0.0  # of a running statistic, else 0


def aligned_bytes(size: int) -> Array:
    """`size` bytes of new memory that begin at a multiple of 64, as wide vector instructions like it."""
    raw = np.empty(size + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size]


def aligned_vector(size: int, dtype: Any) -> Array:
    """A new flat vector of zeros that begins at a multiple of 64 bytes."""
    vector: Array = aligned_bytes(size * np.dtype(dtype).itemsize).view(dtype)
    vector[:] = 0
    return vector


@dataclass(frozen=True)
class Lowered:
    """A network on the tape. `outputs`: of its last layer; `activations`: of every layer; `gradients`: of the
    loss with respect to those, as each layer's backward pass begins with it, None where it has none;
    `parts`: of the gradient of a tensor that several layers use, by layer and name;
    `losses`: of each output, and `loss_gradient`, of the outputs: None where no loss was given; `watched`:
    where the live rows of units are counted."""

    rows: list[Row]
    work: int
    outputs: Ref
    activations: list[Ref]
    gradients: list[Ref | None]
    parts: dict[tuple[int, str], Ref]
    losses: Ref | None
    loss_gradient: Ref | None
    watched: list[Watched]

    @property
    def totals(self) -> int:
        """How many numbers the space of totals has."""
        return TOTALS + sum(one.units for one in self.watched)


class Network:
    """Shapes and places of layers, in order. Holds no arrays and no state.

    `wiring`: for each layer the numbers of those before it whose outputs it takes, -1 for the data; left out:
    as their `inputs` say, which is a chain where they are not given. The last layer gives the outputs. Raises
    ValueError where names or shapes do not fit; the message names the layer.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        input_shape: Shape,
        dtype: Any = np.float32,
        wiring: Wiring | None = None,
    ) -> None:
        self.layers = tuple(layers)
        self.wiring = wiring_of(self.layers) if wiring is None else wiring
        self.dtype = np.dtype(dtype)
        self.shapes: list[Shape] = [tuple(input_shape)]  # of the input, and of each layer's output
        self.tensors: list[Tensor] = []
        statistics: list[Tensor] = []
        specs: list[tuple[ParameterSpec, ...]] = []
        for index, layer in enumerate(self.layers):
            shapes = self.input_shapes(index)
            try:
                self.shapes.append(layer.output_shape(*shapes))
                specs.append(layer.parameters(*shapes))
            except ValueError as error:
                raise ValueError(f"layer {index} ({layer.type}): {error}") from None
        self.sharing = sharing_of(self.layers, [{spec.name: spec.shape for spec in own} for own in specs])
        self.users = users_of(self.sharing)
        offset = 0
        for index, layer in enumerate(self.layers):
            for spec in specs[index]:
                if (index, spec.name) in self.sharing:
                    continue
                size = math.prod(spec.shape)  # of any size: NumPy would overflow
                path = f"layers.{index}.{layer.type}.{spec.name}"
                self.tensors.append(
                    Tensor(path, index, spec.name, spec.shape, offset, offset + size, spec.decays)
                )
                offset += size
        self.parameter_count = offset
        for index, layer in enumerate(self.layers):
            for stat in layer.statistics(*self.input_shapes(index)):
                size = math.prod(stat.shape)
                path = f"layers.{index}.{layer.type}.{stat.name}"
                statistics.append(
                    Tensor(path, index, stat.name, stat.shape, offset, offset + size, False, stat.rate)
                )
                offset += size
        self.statistics = tuple(statistics)
        self.size = offset
        trained = {DATA: False}  # of each output: whether it depends on a parameter
        holding = {t.layer for t in self.tensors} | {index for index, _ in self.sharing}
        for index, sources in enumerate(self.wiring):
            trained[index] = index in holding or any(trained[source] for source in sources)
        self._trained = trained

    def input_shapes(self, layer: int) -> list[Shape]:
        return [self.shapes[source + 1] for source in self.wiring[layer]]

    @property
    def ids_below(self) -> int | None:
        """One more than the largest id that the data may hold; None where they are numbers."""
        return ids_below(self.layers, self.wiring)

    @property
    def input_dtype(self) -> np.dtype[Any]:
        """Of the data: int64 where they are ids, else the dtype of the network."""
        return self.dtype if self.ids_below is None else np.dtype(np.int64)

    @property
    def input_shape(self) -> Shape:
        return self.shapes[0]

    @property
    def output_shape(self) -> Shape:
        return self.shapes[-1]

    @property
    def shared(self) -> int:
        """How many numbers the gradients of tensors that several layers use have, user by user."""
        return sum(len(users) * place.columns * place.plus for _, users, place in self._shared_gradients())

    @property
    def decays(self) -> list[tuple[int, int]]:
        """The ranges of the flat vector to which decay applies by default."""
        return [(t.start, t.stop) for t in self.tensors if t.decays]

    @property
    def flops(self) -> float:
        """Floating-point operations of one sample in one step: forward, and twice as many backward."""
        return (
            float(sum(layer.flops(*self.input_shapes(index)) for index, layer in enumerate(self.layers)))
            or 1.0
        )

    def initialize(self, seed: int) -> Array:
        """A fresh flat vector (size,): every tensor drawn in float64 from a stream of its own, then cast."""
        vector = aligned_vector(self.size, self.dtype)
        for number, tensor in enumerate(self.tensors):
            spec = next(
                s
                for s in self.layers[tensor.layer].parameters(*self.input_shapes(tensor.layer))
                if s.name == tensor.name
            )
            draw = generator(seed, Purpose.INITIALIZE, number)
            values = spec.initializer.draw(spec.shape, spec.fan_in, spec.fan_out, draw)
            vector[tensor.start : tensor.stop] = np.asarray(values).ravel()
        for tensor in self.statistics:
            specs = self.layers[tensor.layer].statistics(*self.input_shapes(tensor.layer))
            vector[tensor.start : tensor.stop] = next(s.initial for s in specs if s.name == tensor.name)
        return vector

    def lower(
        self,
        most_rows: int,
        loss: Loss | None = None,
        *,
        training: bool = False,
        forward_only: bool = False,
    ) -> Lowered:
        """The network as a list of ops, for slices of at most `most_rows` rows; `training`: with the
        backward pass, which fills the gradient space, unless `forward_only`."""
        tape = Tape(most_rows, self.dtype, training)
        values = [Value(Ref(Space.INPUTS, 0, math.prod(self.shapes[0]), 1), self.shapes[0])]
        backwards: list[Backward] = []
        parts = part_buffers(tape, self._shared_gradients()) if training and not forward_only else {}
        for index, layer in enumerate(self.layers):
            tape.layer = index
            statistics = [t for t in self.statistics if t.layer == index]
            low = Lowering(
                tape=tape,
                index=index,
                wanted=tuple(self._trained[source] for source in self.wiring[index]),
                parameters=_places(Space.PARAMETERS, self.used_by(index)),
                gradients=_places(Space.GRADIENT, self.used_by(index))
                | {name: ref for (user, name), ref in parts.items() if user == index},
                statistics=_places(Space.PARAMETERS, statistics),
                statistic_sums=_places(Space.GRADIENT, statistics),
                bound=BOUND_TOTAL,
            )
            value, backward = layer.lower(low, *(values[source + 1] for source in self.wiring[index]))
            values.append(value)
            backwards.append(backward)
        tape.layer = -1
        losses = dy = None
        arrived: dict[int, Ref] = {}
        tape.keep(values[-1].ref)
        if loss is not None:
            dy, losses = lower_loss(tape, loss, values[-1].ref)
            tape.keep(losses)
            if forward_only:
                tape.keep(dy, *(value.ref for value in values))
            if training and not forward_only:
                arrived = self._backward(tape, backwards, dy, parts)
        plan = tape.planned()
        return Lowered(
            plan.rows,
            plan.work,
            plan.place(values[-1].ref),
            [plan.place(value.ref) for value in values[1:]],
            [plan.place(arrived[index]) if index in arrived else None for index in range(len(self.layers))],
            {key: plan.place(ref) for key, ref in parts.items()},
            None if losses is None else plan.place(losses),
            None if dy is None else plan.place(dy),
            plan.watched,
        )

    def _backward(
        self, tape: Tape, backwards: Sequence[Backward], dy: Ref, parts: Mapping[tuple[int, str], Ref]
    ) -> dict[int, Ref]:
        """Emits the backward pass. Returns the gradient of the output of each layer that has one."""
        gradients = {len(self.layers) - 1: dy}
        for index in reversed(range(len(self.layers))):
            if not self._trained[index]:
                continue
            tape.layer = index
            for source, d in zip(self.wiring[index], backwards[index](gradients[index]), strict=True):
                if d is None or not self._trained[source]:
                    continue
                d = d.reshaped(math.prod(self.shapes[source + 1]), 1)
                if source in gradients:
                    tape.emit("add", gradients[source], d, gradients[source])
                else:
                    gradients[source] = d
        tape.layer = -1
        join_parts(tape, self._shared_gradients(), parts)
        products = {
            row.refs[2].start
            for row in tape.rows
            if row.op.name == "product_tn" and row.refs[2].space == Space.GRADIENT
        }
        for start, stop in merged(
            (t.start, t.stop) for t in (*self.tensors, *self.statistics) if t.start not in products
        ):
            tape.emit("bound", Ref(Space.GRADIENT, start, stop - start, plus=1), BOUND_TOTAL)
        return gradients

    def used_by(self, layer: int) -> list[Tensor]:
        """The tensors of a layer: its own, then those of others that it uses."""
        theirs = {(owner, name) for (user, name), owner in self.sharing.items() if user == layer}
        own = [t for t in self.tensors if t.layer == layer]
        return own + [t for t in self.tensors if (t.layer, t.name) in theirs]

    def _shared_gradients(self) -> list[tuple[str, list[int], Ref]]:
        """Of each tensor that several layers use: its name, those layers, its place in the gradient."""
        return [
            (name, users, _places(Space.GRADIENT, self.used_by(owner))[name])
            for (owner, name), users in self.users.items()
        ]


def _places(space: Space, tensors: Iterable[Tensor]) -> dict[str, Ref]:
    """Name -> place."""
    return {t.name: Ref(space, t.start, t.shape[-1], plus=math.prod(t.shape[:-1])) for t in tensors}
