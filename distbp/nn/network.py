"""A network: layers in a graph without cycles, over one flat vector.

The flat vector holds every trained tensor, layer after layer, and then the running statistics (batch
normalization). The flat gradient vector has the same places: the sums of the gradients, and what the
layers write for the statistics. So a push is one vector, an update is a few passes over one vector, and a
checkpoint is one array.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from distbp.core.streams import Purpose, generator
from distbp.nn.layers.base import Array, Backward, Layer, Lowering, Shape, Value
from distbp.nn.losses.base import Loss, lower_loss
from distbp.nn.tape import BOUND_TOTAL, ENTRY, LOSS, TOTALS, Ref, Row, Space, Tape, Watched
from distbp.nn.wiring import DATA, Wiring, ids_below, wiring_of


@dataclass(frozen=True)
class Tensor:
    """Where a tensor stands in the flat vector: [start, stop), C order. `path` names it for people and
    files: `layers.0.dense.weight`. `layer`: the number of its layer, ENTRY of the entry."""

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
    """A network on the tape. `outputs`: of its last layer; `activations`: of every layer; `losses`: of each
    output, and `loss_gradient`, of the outputs: None where no loss was given; `watched`: where the live
    rows of units are counted; `constants`: the space of constants."""

    rows: list[Row]
    work: int
    outputs: Ref
    activations: list[Ref]
    losses: Ref | None
    loss_gradient: Ref | None
    watched: list[Watched]
    constants: Array

    @property
    def totals(self) -> int:
        """How many numbers the space of totals has."""
        return TOTALS + sum(one.units for one in self.watched)


class Network:
    """Shapes and places of layers, in order. Holds no arrays and no state.

    `wiring`: for each layer the numbers of those before it whose outputs it takes, -1 for the data; left out:
    as their `inputs` say, which is a chain where they are not given. The last layer gives the outputs.
    `entry`: makes of a row of the data, (*input_shape), what the layers take as the data, (*shapes[0]); None:
    the row itself. Raises ValueError where names or shapes do not fit; the message names the layer.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        input_shape: Shape,
        dtype: Any = np.float32,
        wiring: Wiring | None = None,
        entry: Layer | None = None,
    ) -> None:
        self.layers = tuple(layers)
        self.wiring = wiring_of(self.layers) if wiring is None else wiring
        self.dtype = np.dtype(dtype)
        self.entry = entry
        self.input_shape: Shape = tuple(input_shape)  # of a row of the data
        self.shapes: list[Shape] = [self.input_shape]  # of what enters, and of each layer's output
        self.tensors: list[Tensor] = []
        statistics: list[Tensor] = []
        offset = 0
        if entry is not None:
            self.shapes = [entry.output_shape(self.input_shape)]
            offset = self._hold("input", ENTRY, entry, offset)
        for index, layer in enumerate(self.layers):
            try:
                self.shapes.append(layer.output_shape(*self.input_shapes(index)))
                offset = self._hold(f"layers.{index}", index, layer, offset)
            except ValueError as error:
                raise ValueError(f"layer {index} ({layer.type}): {error}") from None
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
        holding = self.parameters_by_layer
        trained = {DATA: ENTRY in holding}  # of each output: whether it depends on a parameter
        for index, sources in enumerate(self.wiring):
            trained[index] = index in holding or any(trained[source] for source in sources)
        self._trained = trained

    def _hold(self, path: str, index: int, layer: Layer, offset: int) -> int:
        """Gives the tensors of a layer their places from `offset` on; returns the next one."""
        for spec in layer.parameters(*self.input_shapes(index)):
            stop = offset + math.prod(spec.shape)  # of any size: NumPy would overflow
            name = f"{path}.{layer.type}.{spec.name}"
            self.tensors.append(Tensor(name, index, spec.name, spec.shape, offset, stop, spec.decays))
            offset = stop
        return offset

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
        """One more than the largest id that the data may hold; None where they are numbers."""
        return ids_below(self.layers, self.wiring)

    @property
    def input_dtype(self) -> np.dtype[Any]:
        """Of the data: int64 where they are ids, else the dtype of the network."""
        return self.dtype if self.ids_below is None else np.dtype(np.int64)

    @property
    def output_shape(self) -> Shape:
        return self.shapes[-1]

    @property
    def parameters_by_layer(self) -> dict[int, int]:
        """How many numbers each layer trains, and the entry; without those that train none."""
        counts: dict[int, int] = {}
        for tensor in self.tensors:
            counts[tensor.layer] = counts.get(tensor.layer, 0) + tensor.stop - tensor.start
        return counts

    @property
    def decays(self) -> list[tuple[int, int]]:
        """The ranges of the flat vector to which decay applies by default."""
        return [(t.start, t.stop) for t in self.tensors if t.decays]

    @property
    def flops(self) -> float:
        """Floating-point operations of one sample in one step: forward, and twice as many backward."""
        numbers = [*[ENTRY][: self.entry is not None], *range(len(self.layers))]
        return float(sum(self.layer(n).flops(*self.input_shapes(n)) for n in numbers)) or 1.0

    def initialize(self, seed: int) -> Array:
        """A fresh flat vector (size,): every tensor drawn in float64 from a stream of its own, then cast."""
        vector = aligned_vector(self.size, self.dtype)
        for number, tensor in enumerate(self.tensors):
            spec = next(
                s
                for s in self.layer(tensor.layer).parameters(*self.input_shapes(tensor.layer))
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
        data = Value(Ref(Space.INPUTS, 0, math.prod(self.input_shape), 1), self.input_shape)
        enter: Backward | None = None
        if self.entry is not None:
            data, enter = self.entry.lower(self._lowering(tape, ENTRY, (False,)), data)
        values = [data]
        backwards: list[Backward] = []
        for index, layer in enumerate(self.layers):
            wanted = tuple(self._trained[source] for source in self.wiring[index])
            inputs = (values[source + 1] for source in self.wiring[index])
            value, backward = layer.lower(self._lowering(tape, index, wanted), *inputs)
            values.append(value)
            backwards.append(backward)
        tape.layer = LOSS
        losses = dy = None
        tape.keep(values[-1].ref)
        if loss is not None:
            dy, losses = lower_loss(tape, loss, values[-1].ref)
            tape.keep(losses)
            if forward_only:
                tape.keep(dy, *(value.ref for value in values))
            if training and not forward_only:
                self._backward(tape, backwards, dy, enter)
        plan = tape.planned()
        return Lowered(
            plan.rows,
            plan.work,
            plan.place(values[-1].ref),
            [plan.place(value.ref) for value in values[1:]],
            None if losses is None else plan.place(losses),
            None if dy is None else plan.place(dy),
            plan.watched,
            plan.constants,
        )

    def _lowering(self, tape: Tape, index: int, wanted: tuple[bool, ...]) -> Lowering:
        tape.layer = index
        return Lowering(
            tape=tape,
            index=index,
            wanted=wanted,
            parameters=self._places(Space.PARAMETERS, index, self.tensors),
            gradients=self._places(Space.GRADIENT, index, self.tensors),
            statistics=self._places(Space.PARAMETERS, index, self.statistics),
            statistic_sums=self._places(Space.GRADIENT, index, self.statistics),
            bound=BOUND_TOTAL,
        )

    def _backward(self, tape: Tape, backwards: Sequence[Backward], dy: Ref, enter: Backward | None) -> None:
        gradients = {len(self.layers) - 1: dy}  # of the output of each layer
        for index in reversed(range(len(self.layers))):
            if not self._trained[index]:
                continue
            tape.layer = index
            for source, d in zip(self.wiring[index], backwards[index](gradients.pop(index)), strict=True):
                if d is None or not self._trained[source]:
                    continue
                d = d.reshaped(math.prod(self.shapes[source + 1]), 1)
                if source in gradients:
                    tape.emit("add", gradients[source], d, gradients[source])
                else:
                    gradients[source] = d
        if enter is not None and self._trained[DATA]:
            tape.layer = ENTRY
            enter(gradients.pop(DATA))
        tape.layer = LOSS
        products = {
            row.refs[2].start
            for row in tape.rows
            if row.op.name == "product_tn" and row.refs[2].space == Space.GRADIENT
        }
        for start, stop in _merged(
            (t.start, t.stop) for t in (*self.tensors, *self.statistics) if t.start not in products
        ):
            tape.emit("bound", Ref(Space.GRADIENT, start, stop - start, plus=1), BOUND_TOTAL)

    def _places(self, space: Space, layer: int, tensors: Sequence[Tensor]) -> dict[str, Ref]:
        """Name -> place for the tensors of one layer."""
        return {
            t.name: Ref(space, t.start, t.shape[-1], plus=math.prod(t.shape[:-1]))
            for t in tensors
            if t.layer == layer
        }


def _merged(stretches: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, stop in sorted(stretches):
        if merged and merged[-1][1] == start:
            merged[-1] = merged[-1][0], stop
        else:
            merged.append((start, stop))
    return merged
