"""Runs one sample through a network's tape and records the numbers that its ops read and write.

The ops run one by one by NumPy's definitions, in float64. Nothing else is computed here: every number is an
operand of an op.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, NamedTuple

import numpy as np

from distbp.core.arrays import Array, Shape, aligned_vector
from distbp.nn.initializers import initializers_of
from distbp.nn.kernels import NUMPY
from distbp.nn.layers.columns import Columns, EmbeddingCell, NumberCell, OneHotCell, TableCell
from distbp.nn.losses.base import Loss
from distbp.nn.losses.several import Losses
from distbp.nn.lowered import Lowered, lower
from distbp.nn.network import Network
from distbp.nn.program import Program
from distbp.nn.run_tape import matrix
from distbp.nn.tape import ANY_LENGTH, ENTRY, LOSS_TOTAL, Ref, Row, Space
from distbp.nn.wiring import DATA
from distbp.run.explain.kinds import KINDS
from distbp.run.explain.sample import ends_of

# Operands of these ops are not kept: they are weights, which repeat.
_PASSED_OVER = frozenset({"product_nt", "product_nn", "product_tn", "transpose", "bound", "bound_product"})
_CELLS = {NumberCell: "number", TableCell: "table", OneHotCell: "one_hot", EmbeddingCell: "embedding"}


@dataclass(frozen=True)
class Seen:
    """The numbers of one layer. `a`: its output. `d_a`: dE/da; None if nothing below is trained. `numbers`:
    all others, by the names of its kind (`distbp.run.explain.kinds`)."""

    inputs: tuple[Array, ...]
    a: Array
    d_a: Array | None
    numbers: Mapping[str, Array | None]


class Lost(NamedTuple):
    """The numbers of one output's loss. `losses`: (numbers,), with the sum `loss`. `d_a`: the gradient of
    `loss` times its factor, in the shape of the output."""

    losses: Array
    loss: float
    d_a: Array


@dataclass(frozen=True)
class Recording:
    """`layers`: by number; -1 is the entry, if there is one. `length`: the steps of the row; None if rows
    have no lengths. `totals`: as the tape leaves them (see `distbp.engine.totals`). `outputs`: in the order
    of the losses. `loss`: the sum of all. `parts`: each layer's part of the gradient of a shared tensor, by
    layer and name."""

    length: int | None
    layers: Mapping[int, Seen]
    outputs: tuple[Lost, ...]
    loss: float
    gradient: Array
    parts: Mapping[tuple[int, str], Array]
    totals: Array


@dataclass(frozen=True, eq=False)
class _Event:
    row: Row
    before: list[Array]
    after: list[Array]


class _Form(NamedTuple):
    """The shape and memory layout of a layer's output (see `distbp.nn.layers.base.Value`)."""

    shape: Shape
    channels_last: bool

    def plain(self, values: Array) -> Array:
        """Values in the order of the output, channel by channel. Values of another size are returned
        unchanged."""
        if not self.channels_last or values.size != math.prod(self.shape):
            return values
        return np.ascontiguousarray(values.reshape(-1, self.shape[0]).T).reshape(values.shape)


@dataclass(frozen=True)
class _Ops:
    """The ops of one layer (see `distbp.run.explain.numbers.Ops`)."""

    events: Sequence[_Event]
    form: _Form

    def before(self, name: str, operand: int) -> list[Array]:
        return [self.form.plain(e.before[operand]) for e in self.events if e.row.op.name == name]

    def after(self, name: str, operand: int) -> list[Array]:
        return [self.form.plain(e.after[operand]) for e in self.events if e.row.op.name == name]

    def slopes(self, name: str) -> list[Array]:
        return [self.form.plain(_slope(event)) for event in self.events if event.row.op.name == name]


def record(
    network: Network, loss: Loss | Losses, vector: Array, x: Array, target: Array, weights: Array, at: Array
) -> Recording:
    """Runs the forward and backward pass of one sample. vector: (size,). x: (1, *row_shape). target: (1,) or
    (1, targets), as the loss takes it, or as in `distbp.nn.losses.several`. weights: of its targets,
    (answers,), or (0,). at: the position (`distbp.nn.tape.position`), which decides the random draws."""
    lowered = lower(network, 1, loss, training=True)
    gradient, totals = aligned_vector(network.size, network.dtype), np.zeros(lowered.totals)
    spaces: dict[Space, Array] = {
        Space.PARAMETERS: vector,
        Space.GRADIENT: gradient,
        Space.WORK: aligned_vector(lowered.work, network.dtype),
        Space.INPUTS: np.ascontiguousarray(x).reshape(-1),
        Space.TARGETS: np.ascontiguousarray(target).reshape(-1),
        Space.WEIGHTS: weights,
        Space.TOTALS: totals,
        Space.POSITION: at,
        Space.CONSTANTS: lowered.constants,
        Space.LABELS: np.zeros(lowered.labels, np.int64),
    }
    ends = ends_of(network, x)
    length = ends.get(DATA)
    events, outputs, arrived = _run_all(network, lowered, spaces, ends)
    values = [_entered(network, vector, x)[:length], *outputs]
    seen = {}
    if network.entry is not None:
        cells = x.reshape(network.input_shape).copy()
        seen[DATA] = Seen((cells,), values[0], arrived.get(ENTRY), {})
    for index, layer in enumerate(network.layers):
        form = _Form(network.shapes[index + 1], lowered.channels_last[index])
        own = _Ops([event for event in events if event.row.layer == index], form)
        d_a = arrived.get(index)
        inputs = tuple(values[source + 1] for source in network.wiring[index])
        numbers = KINDS[layer.type].read(spec_of(network, index), own)
        for end in {ends[source] for source in network.wiring[index] if source in ends}:
            numbers = KINDS[layer.type].ended(numbers, end)
        seen[index] = Seen(inputs, outputs[index], d_a, numbers)
    parts = {key: matrix(spaces[Space(ref.space)], ref, 1).copy() for key, ref in lowered.parts.items()}
    lost = _lost(network, events, length)
    return Recording(length, seen, lost, float(totals[LOSS_TOTAL.start]), gradient, parts, totals)


def _lost(network: Network, events: Sequence[_Event], length: int | None) -> tuple[Lost, ...]:
    """The numbers of the losses. With several outputs, an op adds each loss to the sum after computing it."""
    steps = None if network.carry is None else length  # each step has a target
    added = [event for event in events if event.row.op.name == "add_losses"]
    joined = [event for event in events if event.row.op.name == "join_loss"] or added
    return tuple(
        Lost(
            _weighed(one)[:steps] if steps else _weighed(one)[0],
            float(one.after[3][0, 0]),
            last.after[2].reshape(shape)[:steps],
        )
        for one, last, shape in zip(added, joined, network.output_shapes, strict=True)
    )


def _weighed(added: _Event) -> Array:
    """The losses of the targets, (targets, numbers), times their weights."""
    losses, weights = added.before[0] * added.row.real[0], added.before[1]
    return losses * weights if len(weights) else losses


def _entered(network: Network, vector: Array, x: Array) -> Array:
    """The input of the first layer for the row x (1, *row_shape)."""
    if network.entry is None:
        return x.reshape(-1)[: math.prod(network.input_shape)].reshape(network.input_shape).copy()
    alone = Network((), network.input_shape, network.dtype, entry=network.entry)
    program = Program(alone, 1, vector, kernels=NUMPY)
    program.run(np.ascontiguousarray(x))
    return np.array(program.outputs(1)[0])


def _run_all(
    network: Network, lowered: Lowered, spaces: Mapping[Space, Array], ends: Mapping[int, int]
) -> tuple[list[_Event], list[Array], dict[int, Array]]:
    """Runs all ops. Returns the events, the output of each layer, and dE/da by layer. A buffer is read once
    it is complete: an output before an op of a later layer, dE/da before an op of its own layer or one below.
    ends: the steps of outputs with lengths; steps past them are left out."""
    events: list[_Event] = []
    outputs: list[Array] = []
    arrived: dict[int, Array] = {}

    def read(index: int, ref: Ref) -> Array:
        shape = network.shapes[index + 1]
        values = matrix(spaces[Space(ref.space)], ref, 1).reshape(-1).copy()
        found = _Form(shape, lowered.channels_last[index]).plain(values).reshape(shape)
        return found[: ends[index]] if index in ends else found

    def entry_gradient(ref: Ref) -> Array:
        return matrix(spaces[Space(ref.space)], ref, 1).reshape(network.shapes[0]).copy()

    longest = max(1, *ends.values()) if ends else ANY_LENGTH
    for row in lowered.rows:
        if not row.runs(longest):
            continue
        if row.layer == ENTRY:
            if lowered.entry_gradient is not None and len(outputs) == len(network.layers):
                arrived.setdefault(ENTRY, entry_gradient(lowered.entry_gradient))
            events.append(_run(row, spaces, longest))
            continue
        forward = len(outputs) < len(network.layers)
        while len(outputs) < len(network.layers) and not 0 <= row.layer <= len(outputs):
            index = len(outputs)
            outputs.append(read(index, lowered.activations[index]))
        if not forward and (row.layer >= 0 or events[-1].row.layer >= 0):  # not an op of the loss
            for index, ref in enumerate(lowered.gradients):
                if ref is not None and index not in arrived and row.layer <= index:
                    arrived[index] = read(index, ref)
        events.append(_run(row, spaces, longest))
    return events, outputs, arrived


def _run(row: Row, spaces: Mapping[Space, Array], longest: int) -> _Event:
    operands = [matrix(spaces[Space(ref.space)], ref, 1, longest) for ref in row.refs]
    kept = row.op.name not in _PASSED_OVER
    before = [operand.copy() for operand in operands] if kept else []
    row.op.define(*operands, row.whole, row.real)
    return _Event(row, before, [operand.copy() for operand in operands] if kept else [])


def _slope(event: _Event) -> Array:
    """f'(z): the result of an activation's backward op for ones."""
    kept, y, dy, _ = event.before
    ones = np.ones_like(dy)
    event.row.op.define(kept, y, ones, np.empty((0, dy.shape[-1])), event.row.whole, event.row.real)
    return ones


def spec_of(network: Network, index: int) -> dict[str, Any]:
    """The description of a layer for its kind (see `distbp.run.explain.numbers.Spec`)."""
    layer = network.layer(index)
    return {
        "number": index,
        "type": layer.type,
        "options": options_of(layer),
        "activation": layer.ends_in,
        "shape": network.shapes[index + 1],
    }


def _entry_options(entry: Columns) -> dict[str, Any]:
    """The options of each cell of an entry, as plain values."""
    cells = []
    for column, cell in zip(entry.names, entry.cells, strict=True):
        found = {"kind": _CELLS[type(cell)], "column": column, "width": cell.width, **asdict(cell)}
        periodic = found.pop("periodic", None)
        if isinstance(cell, NumberCell):
            found["frequencies"] = 0 if periodic is None else periodic.frequencies
        cells.append({name: value for name, value in found.items() if name not in ("name", "std")})
    return {"cells": cells}


def options_of(layer: Any) -> dict[str, Any]:
    """The options of a layer that decide its results, as plain values: all but its inputs, name and
    initializers."""
    if isinstance(layer, Columns):
        return _entry_options(layer)
    unsaid = {"type", "name", "inputs", *initializers_of(layer)}
    found = {field.name: getattr(layer, field.name) for field in fields(layer) if field.name not in unsaid}
    return {name: list(v) if isinstance(v, tuple) else v for name, v in found.items()}
