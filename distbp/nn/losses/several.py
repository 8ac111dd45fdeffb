"""The losses of a network with several outputs, and the places of each output and its targets.

A head is an output with its loss. A job with one loss has one head, for the output of the last layer. A job
whose `loss` is a mapping has a head for each name in it, in the order of the names. The outputs of all heads
lie side by side, (rows, numbers of all outputs), and so do their targets, in the dtype of the network. A
label takes one column: the number of its class, which is exact up to `MOST_CLASSES`.

The loss of a row is the sum of the losses of the heads, each times its factor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from distbp.core.arrays import Array, Shape
from distbp.nn.losses.base import LAST, Loss, lower_loss
from distbp.nn.tape import LOSS_TOTAL, WEIGHT_TOTAL, Ref, Space, Tape

MOST_CLASSES = 1 << 24  # float32 holds all whole numbers below this one


@dataclass(frozen=True)
class OutputLoss:
    """The loss of the layer called `name`. `factor`: multiplies the loss in the sum of all losses."""

    name: str
    loss: Loss
    factor: float = 1.0


@dataclass(frozen=True)
class Losses:
    """A loss for each output of a network, in the order of their names."""

    outputs: tuple[OutputLoss, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(one.name for one in self.outputs)


@dataclass(frozen=True)
class Head:
    """One output with its loss. `name`: the layer's name; "" for the only output. `shape`: of one row.
    `outputs`, `targets`: its first column, and its number of columns, among those of all heads."""

    name: str
    loss: Loss
    factor: float
    shape: Shape
    outputs: tuple[int, int]
    targets: tuple[int, int]

    @property
    def is_label(self) -> bool:
        return self.loss.targets == "labels"

    @property
    def layer(self) -> str:
        """The output layer, in words."""
        return f"layer {self.name!r}" if self.name else LAST

    def metric(self, name: str) -> str:
        """The name of a metric of this output: `digit.accuracy`."""
        return f"{self.name}.{name}" if self.name else name

    def outputs_of(self, y: Array) -> Array:
        """The columns of this head. y: (rows, outputs of all heads)."""
        first, count = self.outputs
        return y[:, first : first + count] if self.name else y

    def targets_of(self, targets: Array) -> Array:
        """The targets of this head, as its loss takes them: labels (rows,) intp, or values (rows, outputs).
        targets: (rows, target columns of all heads)."""
        if not self.name:
            return targets
        first, count = self.targets
        return targets[:, first].astype(np.intp) if self.is_label else targets[:, first : first + count]


@dataclass(frozen=True)
class Heads:
    """All outputs of a network, in order."""

    all: tuple[Head, ...]

    def __iter__(self) -> Iterator[Head]:
        return iter(self.all)

    def __len__(self) -> int:
        return len(self.all)

    @property
    def words(self) -> str:
        """The losses, for people: `mse`, or `digit: softmax_cross_entropy, size: mse`."""
        return ", ".join(f"{head.name}: {head.loss.type}".removeprefix(": ") for head in self.all)

    @property
    def several(self) -> bool:
        return bool(self.all[0].name)

    @property
    def target_columns(self) -> int:
        """The number of columns of the joined targets."""
        return sum(head.targets[1] for head in self.all)

    def predictions(self, outputs: Array) -> Array:
        """`Loss.predictions` of each head. outputs: (rows, outputs of all heads)."""
        return self._each(outputs, lambda head, part: head.loss.predictions(part))

    def outputs_for(self, predictions: Array) -> Array:
        """`Loss.outputs_for` of each head. predictions: (rows, outputs of all heads)."""
        return self._each(predictions, lambda head, part: head.loss.outputs_for(part))

    def _each(self, values: Array, of: Callable[[Head, Array], Array]) -> Array:
        parts = [of(head, head.outputs_of(values)) for head in self.all]
        return np.concatenate(parts, axis=1) if self.several else parts[0]

    def join(self, targets: Mapping[str, Array], dtype: np.dtype[np.generic]) -> Array:
        """The joined targets, (rows, target_columns) in `dtype`. targets: by output, as its loss takes it."""
        columns = [targets[head.name].reshape(len(targets[head.name]), -1) for head in self.all]
        return np.concatenate([column.astype(dtype) for column in columns], axis=1)


def parts_of(loss: Loss | Losses) -> tuple[OutputLoss, ...]:
    """The losses of all outputs. The loss of an only output has the name ""."""
    return loss.outputs if isinstance(loss, Losses) else (OutputLoss("", loss),)


def names_of(loss: Loss | Losses) -> tuple[str, ...]:
    """The names of the output layers; (): the last layer."""
    return loss.names if isinstance(loss, Losses) else ()


def heads_of(loss: Loss | Losses, shapes: Sequence[Shape]) -> Heads:
    """The heads of the losses. `shapes`: the shape of one row of each output, in the order of the losses."""
    found, y, t = [], 0, 0
    for part, shape in zip(parts_of(loss), shapes, strict=True):
        columns = math.prod(shape)
        targets = 1 if part.loss.targets == "labels" else columns
        found.append(Head(part.name, part.loss, part.factor, shape, (y, columns), (t, targets)))
        y, t = y + columns, t + targets
    return Heads(tuple(found))


def by_output(given: Any) -> dict[str, Any]:
    """The parts by the names of their outputs. given: such a mapping, or the part of the only output, which
    gets the name ""."""
    return dict(given) if isinstance(given, Mapping) else {"": given}


def without_names(parts: Mapping[str, Any]) -> Any:
    """The inverse of `by_output`: the part of the only output, or the mapping of several."""
    return parts[""] if "" in parts else dict(parts)


def lower_heads(tape: Tape, heads: Heads, outputs: Sequence[Ref]) -> list[tuple[Ref, Ref, Ref]]:
    """Emits the losses of all outputs, which add to TOTALS. Returns for each output the gradient with respect
    to it, the loss of each of its numbers (for labels: of each row), and the place of its own loss sum."""
    if not heads.several:
        d, losses = lower_loss(tape, heads.all[0].loss, outputs[0])
        return [(d, losses, LOSS_TOTAL)]
    every = Ref(Space.TARGETS, 0, heads.target_columns, 1)
    found, weight = [], WEIGHT_TOTAL
    for head, y in zip(heads, outputs, strict=True):
        first, columns = head.targets
        targets = tape.labels() if head.is_label else tape.work(columns)
        if head.is_label:
            tape.emit("take_labels", every, targets, whole=(first,))
        else:
            tape.emit("copy_columns", every, targets, whole=(first, 0, columns))
        own = tape.total()
        d, losses = lower_loss(tape, head.loss, y, targets, (own, weight))
        tape.emit("join_loss", own, LOSS_TOTAL, d, real=(head.factor,))
        weight = tape.total()  # not WEIGHT_TOTAL again: the rows count once, in the first head
        found.append((d, losses, own))
    return found
