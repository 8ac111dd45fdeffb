"""One sample through a network's tape, with the numbers that its ops read and wrote.

The ops run one by one, by NumPy's definitions, in float64. Nothing is computed here that the tape does not
compute: z, the deltas and the derivatives are the operands of its ops.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np

from distbp.core.arrays import Array, Shape
from distbp.nn.activations import ACTIVATIONS
from distbp.nn.initializers import INITIALIZERS
from distbp.nn.layers.base import Layer
from distbp.nn.losses.base import Loss
from distbp.nn.network import Network, aligned_vector
from distbp.nn.run_tape import matrix
from distbp.nn.tape import LOSS_TOTAL, Row, Space

_POOLS = ("max_pool", "average_pool")
_TAKES_D = ("copy", "steps_first")  # with which the backward pass of a recurrent layer begins


@dataclass(frozen=True)
class Seen:
    """What one layer computed; None where it does not compute it, or no parameter below needs it.

    `a`: the output, `d_a`: dE/da. `z`, `slope` (f'), `delta` (dE/dz): of the shape of the output. A recurrent
    layer has `states`, what its activation gave at each step, and `d_states`, dE/d(states); there all but `a`
    and `d_a` are (steps, units). `slope` is None for softmax, whose derivative is a matrix.
    """

    activation: str | None
    z: Array | None
    a: Array
    slope: Array | None
    d_a: Array | None
    delta: Array | None
    states: Array | None = None
    d_states: Array | None = None


@dataclass(frozen=True)
class Recording:
    """`totals`: as the tape leaves them (see `distbp.engine.totals`). `losses`: of each output, or of the
    label, (numbers,), with the factor of the loss."""

    layers: tuple[Seen, ...]
    loss: float
    losses: Array
    gradient: Array
    totals: Array


@dataclass(frozen=True, eq=False)
class _Event:
    row: Row
    before: list[Array]
    after: list[Array]


def record(network: Network, loss: Loss, vector: Array, x: Array, target: Array) -> Recording:
    """Runs the forward and backward pass of one sample. vector: (size,); x: (1, *input_shape); target: (1,)
    or (1, outputs), as the loss takes it."""
    lowered = network.lower(1, loss, training=True)
    gradient, totals = aligned_vector(network.size, network.dtype), np.zeros(lowered.totals)
    nothing = np.zeros(0)
    spaces: dict[Space, Array] = {
        Space.PARAMETERS: vector,
        Space.GRADIENT: gradient,
        Space.WORK: aligned_vector(lowered.work, network.dtype),
        Space.INPUTS: np.ascontiguousarray(x).reshape(-1),
        Space.TARGETS: np.ascontiguousarray(target).reshape(-1),
        Space.WEIGHTS: nothing,
        Space.TOTALS: totals,
        Space.POSITION: np.zeros(3, np.int64),
    }
    events = [_run(row, spaces) for row in lowered.rows]
    by_layer: list[list[_Event]] = [[] for _ in network.layers]
    for event in events:
        if event.row.layer >= 0:
            by_layer[event.row.layer].append(event)
    seen: list[Seen] = []
    below, d_below = x[0], None
    for index, layer in enumerate(network.layers):
        form = _Form(network.shapes[index + 1], lowered.channels_last[index])
        found = _seen(layer, form, by_layer[index], below, d_below)
        seen.append(found)
        below, d_below = found.a, found.d_a
    added = next(event for event in events if event.row.op.name == "add_losses")
    losses = added.before[0].reshape(-1) * added.row.real[0]
    return Recording(tuple(seen), float(totals[LOSS_TOTAL.start]), losses, gradient, totals)


def _run(row: Row, spaces: Mapping[Space, Array]) -> _Event:
    operands = [matrix(spaces[Space(ref.space)], ref, 1) for ref in row.refs]
    wanted = (*ACTIVATIONS, *_POOLS, *_TAKES_D, "add_losses")
    kept = row.op.name.removesuffix("_backward") in wanted
    before = [operand.copy() for operand in operands] if kept else []
    row.op.define(*operands, row.whole, row.real)
    return _Event(row, before, [operand.copy() for operand in operands] if kept else [])


class _Form(NamedTuple):
    """Of a value in the network (see `distbp.nn.layers.base.Value`)."""

    shape: Shape
    channels_last: bool

    def plain(self, values: Array) -> Array:
        """The values of one sample, in the shape of the sample."""
        if not self.channels_last:
            return values.reshape(self.shape)
        channels, *places = self.shape
        return np.ascontiguousarray(np.moveaxis(values.reshape(*places, channels), -1, 0))


def _seen(layer: Layer, form: _Form, events: Sequence[_Event], below: Array, d_below: Array | None) -> Seen:
    """Of one layer, from its own ops. below: what it takes, and the derivative with respect to it."""
    shape = form.shape
    forward = [e for e in events if e.row.op.name in ACTIVATIONS]
    backward = [e for e in events if e.row.op.name in {f"{name}_backward" for name in ACTIVATIONS}]
    if not forward:
        return _without_activation(form, events, below, d_below)
    name = forward[0].row.op.name
    recurrent = layer.type == "elman"
    states_shape = (len(forward), *forward[0].after[2].shape[1:]) if recurrent else shape

    def arranged(parts: Sequence[Array] | None) -> Array | None:
        if not parts:
            return None
        values = np.concatenate([part.reshape(-1, part.shape[-1]) for part in parts])
        return values.reshape(states_shape) if recurrent else form.plain(values)

    z = arranged([_sum(e.before[0], e.before[1]) for e in forward])
    values = arranged([e.after[2] for e in forward])
    backward.sort(key=lambda e: e.row.refs[1].per_row)  # a recurrent layer goes back from its last step
    slope = None if name == "softmax" else arranged([_slope(e, name) for e in backward])
    assert values is not None
    delta, d = arranged([e.after[2] for e in backward]), arranged([e.before[2] for e in backward])
    if not recurrent:
        return Seen(name, z, values, slope, d, delta)
    output = values if len(shape) == 2 else values[-1]
    later = events[events.index(forward[-1]) + 1 :]
    handed = next((e.before[0] for e in later if e.row.op.name in _TAKES_D), None)
    return Seen(name, z, output, slope, None if handed is None else handed.reshape(shape), delta, values, d)


def _without_activation(form: _Form, events: Sequence[_Event], below: Array, d_below: Array | None) -> Seen:
    """Of pooling, whose ops hold its numbers, and of layers that only change the shape."""
    forward = next((e for e in events if e.row.op.name in _POOLS), None)
    if forward is None:
        d_a = None if d_below is None else d_below.reshape(form.shape)
        return Seen(None, None, below.reshape(form.shape), None, d_a, None)
    backward = next((e for e in events if e.row.op.name == f"{forward.row.op.name}_backward"), None)
    place = {"max_pool": 1, "average_pool": 0}[forward.row.op.name]
    d_a = None if backward is None else form.plain(backward.before[place])
    return Seen(None, None, form.plain(forward.after[1]), None, d_a, None)


def _sum(x: Array, bias: Array) -> Array:
    return np.asarray(x + bias) if len(bias) else x


def _slope(event: _Event, name: str) -> Array:
    """f'(z), as the backward op has it: what it makes of ones."""
    kept, y, dy, _ = event.before
    ones = np.ones_like(dy)
    event.row.op.define(kept, y, ones, np.empty((0, dy.shape[-1])), event.row.whole, event.row.real)
    return ones


def options_of(layer: Any) -> dict[str, Any]:
    """The options of a layer that decide what it computes, as plain values: all but its place in the network
    and how its parameters were drawn."""
    names = [field.name for field in fields(layer) if field.name not in ("type", "name", "inputs")]
    found = {name: getattr(layer, name) for name in names}
    drawn = tuple(INITIALIZERS.values())
    kept = {name: value for name, value in found.items() if not isinstance(value, drawn)}
    return {name: list(v) if isinstance(v, tuple) else v for name, v in kept.items()}
