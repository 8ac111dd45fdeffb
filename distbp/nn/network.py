"""A network: a chain of layers over one flat vector.

The flat vector holds every trained tensor, layer after layer, and then the running statistics (batch
normalization). The flat gradient vector has the same places: the sums of the gradients, and what the
layers write for the statistics. So a push is one vector, an update is a few passes over one vector, and a
checkpoint is one array.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from distbp.nn.kernels import Kernels
from distbp.nn.layers.base import Array, Binding, Layer, Position, Shape
from distbp.streams import Purpose, Stream, generator


@dataclass(frozen=True)
class Tensor:
    """Where a tensor stands in the flat vector: [start, stop), C order. `path` names it for people and
    files: `layers.0.dense.weight`."""

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


@dataclass
class Arena:
    """Buffers that programs of one network share, since only one of them runs at a time.

    The n-th buffer asked for by any program is the same memory, as large as the largest wish so far.
    """

    _buffers: list[Array] = field(default_factory=list)
    _next: int = 0

    def restart(self) -> None:
        self._next = 0

    def empty(self, shape: Shape, dtype: Any) -> Array:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        if self._next == len(self._buffers):
            self._buffers.append(aligned_bytes(size))
        elif len(self._buffers[self._next]) < size:
            self._buffers[self._next] = aligned_bytes(size)
        buffer = self._buffers[self._next]
        self._next += 1
        return np.asarray(buffer[:size].view(dtype).reshape(shape))


# Layer number, and a function that gives each unit's live rows in the last forward, see `layers.base.Bound`.
Live = tuple[tuple[int, Callable[[], Array]], ...]


@dataclass(frozen=True)
class Program:
    """A network bound to a number of rows, to a parameter vector and (for training) to a gradient vector.

    forward(x) -> outputs; backward(d_outputs) writes the gradient vector. `live`: for each layer that
    can saturate, its number and a function that gives each unit's live rows in the last forward.
    """

    rows: int
    forwards: tuple[Callable[[Array], Array], ...]
    backwards: tuple[Callable[[Array], Array | None], ...]
    live: Live

    def forward(self, x: Array) -> Array:
        for forward in self.forwards:
            x = forward(x)
        return x

    def backward(self, d_outputs: Array) -> None:
        d: Array | None = d_outputs
        for backward in self.backwards:
            assert d is not None
            d = backward(d)


class Network:
    """Shapes and places of a chain of layers. Holds no arrays and no state.

    Raises ValueError where the shapes do not fit; the message names the layer.
    """

    def __init__(self, layers: Sequence[Layer], input_shape: Shape, dtype: Any = np.float32) -> None:
        self.layers = tuple(layers)
        self.dtype = np.dtype(dtype)
        self.shapes: list[Shape] = [tuple(input_shape)]  # of the input, and of each layer's output
        self.tensors: list[Tensor] = []
        statistics: list[Tensor] = []
        offset = 0
        for index, layer in enumerate(self.layers):
            shape = self.shapes[-1]
            try:
                self.shapes.append(layer.output_shape(shape))
            except ValueError as error:
                raise ValueError(f"layer {index} ({layer.type}): {error}") from None
            for spec in layer.parameters(shape):
                size = math.prod(spec.shape)  # of any size: NumPy would overflow
                path = f"layers.{index}.{layer.type}.{spec.name}"
                self.tensors.append(
                    Tensor(path, index, spec.name, spec.shape, offset, offset + size, spec.decays)
                )
                offset += size
        self.parameter_count = offset
        for index, layer in enumerate(self.layers):
            for stat in layer.statistics(self.shapes[index]):
                size = math.prod(stat.shape)
                path = f"layers.{index}.{layer.type}.{stat.name}"
                statistics.append(
                    Tensor(path, index, stat.name, stat.shape, offset, offset + size, False, stat.rate)
                )
                offset += size
        self.statistics = tuple(statistics)
        self.size = offset
        self._trained_from = min((t.layer for t in self.tensors), default=len(self.layers))

    @property
    def input_shape(self) -> Shape:
        return self.shapes[0]

    @property
    def output_shape(self) -> Shape:
        return self.shapes[-1]

    @property
    def decays(self) -> list[tuple[int, int]]:
        """The ranges of the flat vector to which decay applies by default."""
        return [(t.start, t.stop) for t in self.tensors if t.decays]

    def initialize(self, seed: int) -> Array:
        """A fresh flat vector (size,): every tensor drawn in float64 from a stream of its own, then cast."""
        vector = aligned_vector(self.size, self.dtype)
        for number, tensor in enumerate(self.tensors):
            spec = next(
                s
                for s in self.layers[tensor.layer].parameters(self.shapes[tensor.layer])
                if s.name == tensor.name
            )
            draw = generator(seed, Purpose.INITIALIZE, number)
            values = spec.initializer.draw(spec.shape, spec.fan_in, spec.fan_out, draw)
            vector[tensor.start : tensor.stop] = np.asarray(values).ravel()
        for tensor in self.statistics:
            specs = self.layers[tensor.layer].statistics(self.shapes[tensor.layer])
            vector[tensor.start : tensor.stop] = next(s.initial for s in specs if s.name == tensor.name)
        return vector

    def views(self, vector: Array, layer: int, tensors: Sequence[Tensor]) -> dict[str, Array]:
        """Name -> view of `vector` for the tensors of one layer."""
        return {t.name: vector[t.start : t.stop].reshape(t.shape) for t in tensors if t.layer == layer}

    def bind(
        self,
        rows: int,
        vector: Array,
        gradient: Array | None = None,
        *,
        kernels: Kernels,
        arena: Arena | None = None,
        position: Position | None = None,
        seed: int = 0,
    ) -> Program:
        """A program for slices of `rows` rows over `vector` (size,), which it never writes.

        With `gradient` (size,) it trains: `backward` fills it. Without, it evaluates. Programs that share an
        `arena` share buffers: run one at a time. `position` says at which step and shard dropout draws.
        """
        arena = arena or Arena()
        arena.restart()
        position = position or Position()
        stream = Stream(seed, Purpose.DROPOUT)
        bound = []
        for index, layer in enumerate(self.layers):
            empty = gradient if gradient is not None else vector
            binding = _SharedBinding(
                rows=rows,
                input_shape=self.shapes[index],
                dtype=self.dtype,
                training=gradient is not None,
                needs_input_gradient=index > self._trained_from,
                index=index,
                parameters=self.views(vector, index, self.tensors),
                gradients=self.views(empty, index, self.tensors),
                statistics=self.views(vector, index, self.statistics),
                statistic_sums=self.views(empty, index, self.statistics),
                kernels=kernels,
                position=position,
                stream=stream,
                arena=arena,
            )
            bound.append(layer.bind(binding))
        trained = list(enumerate(bound))[self._trained_from :]
        return Program(
            rows,
            tuple(b.forward for b in bound),
            tuple(b.backward for _, b in reversed(trained)) if gradient is not None else (),
            tuple((index, b.live) for index, b in enumerate(bound) if b.live),
        )


@dataclass
class _SharedBinding(Binding):
    arena: Arena = field(default_factory=Arena)

    def empty(self, *shape: int, dtype: Any = None) -> Array:
        return self.arena.empty(shape, dtype or self.dtype)
