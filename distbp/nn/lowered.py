"""How a network becomes a list of ops: forward layer by layer, the loss, backward in reverse."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from distbp.core.arrays import Array
from distbp.nn.layers.base import Backward, Lowering, Value
from distbp.nn.layers.layouts import arranged, turned
from distbp.nn.losses.base import Loss, lower_loss
from distbp.nn.network import Network, places
from distbp.nn.sharing import join_parts, part_buffers
from distbp.nn.tape import BOUND_TOTAL, ENTRY, LONGEST, LOSS, TOTALS, Ref, Row, Space, Tape, Watched, merged
from distbp.nn.wiring import DATA

Parts = Mapping[tuple[int, str], Ref]  # of the gradient of a shared tensor, by layer and name


@dataclass(frozen=True)
class Lowered:
    """A network on the tape. `outputs`: of its last layer; `activations`: of every layer, as they lie, images
    `channels_last` where it says so, and plain where `forward_only`; `gradients`: of the loss with respect to
    those, as each layer's backward pass begins with it, lying alike, None where it has none; `parts`: of the
    gradient of a tensor that several layers use, by layer and name; `losses`: of each output, and
    `loss_gradient`, of the outputs: None where no loss was given; `watched`: where the live rows of units are
    counted; `constants`: the space of constants."""

    rows: list[Row]
    work: int
    outputs: Ref
    activations: list[Ref]
    channels_last: list[bool]
    gradients: list[Ref | None]
    parts: dict[tuple[int, str], Ref]
    losses: Ref | None
    loss_gradient: Ref | None
    watched: list[Watched]
    constants: Array

    @property
    def totals(self) -> int:
        """How many numbers the space of totals has."""
        return TOTALS + sum(one.units for one in self.watched)


@dataclass
class _Passes:
    """A network that is being lowered. values: the data, then what each layer gives. taken: what each layer
    was given."""

    network: Network
    tape: Tape
    parts: Parts
    values: list[Value]
    taken: list[list[Value]]
    backwards: list[Backward]
    enter: Backward | None = None


def lower(
    network: Network,
    most_rows: int,
    loss: Loss | None = None,
    *,
    training: bool = False,
    forward_only: bool = False,
) -> Lowered:
    """The network as a list of ops, for slices of at most `most_rows` rows; `training`: with the backward
    pass, which fills the gradient space, unless `forward_only`."""
    tape, back = Tape(most_rows, network.dtype, training), training and not forward_only
    parts = part_buffers(tape, network.shared_gradients) if back else {}
    passes = _Passes(network, tape, parts, [], [], [])
    _forward(passes)
    values = passes.values
    tape.layer = LOSS
    losses = dy = None
    arrived: dict[int, Ref] = {}
    outputs = turned(tape, values[-1], last=False)
    tape.keep(outputs.ref)
    seen = [turned(tape, value, last=False) for value in values[1:]] if forward_only else values[1:]
    if loss is not None:
        dy, losses = lower_loss(tape, loss, outputs.ref)
        tape.keep(losses)
        if forward_only:
            tape.keep(dy, *(value.ref for value in seen))
        if back:
            arrived = _backward(passes, dy)
    plan = tape.planned()
    layers = range(len(network.layers))
    return Lowered(
        plan.rows,
        plan.work,
        plan.place(outputs.ref),
        [plan.place(value.ref) for value in seen],
        [value.channels_last for value in seen],
        [plan.place(arrived[index]) if index in arrived else None for index in layers],
        {key: plan.place(ref) for key, ref in parts.items()},
        None if losses is None else plan.place(losses),
        None if dy is None else plan.place(dy),
        plan.watched,
        plan.constants,
    )


def _forward(passes: _Passes) -> None:
    network, values = passes.network, passes.values
    data, passes.enter = _data(passes)
    values.append(data)
    for index, layer in enumerate(network.layers):
        wanted = tuple(network.trained[source] for source in network.wiring[index])
        low = _lowering(passes, index, wanted)
        given = [values[source + 1] for source in network.wiring[index]]
        passes.taken.append(arranged(passes.tape, layer, given))
        value, backward = layer.lower(low, *passes.taken[-1])
        if network.having_lengths.get(index):
            value = value._replace(lengths=data.lengths)
        values.append(value)
        passes.backwards.append(backward)


def _data(passes: _Passes) -> tuple[Value, Backward | None]:
    """What the layers take as the data, and the backward pass of the entry."""
    network, tape = passes.network, passes.tape
    size, shape = math.prod(network.input_shape), network.input_shape
    rows = Ref(Space.INPUTS, 0, math.prod(network.row_shape), 1)
    if network.entry is not None:
        return network.entry.lower(_lowering(passes, ENTRY, (False,)), Value(rows, shape))
    if not network.lengths:
        return Value(rows, shape), None
    lengths = tape.work(1)
    if network.ids_below is not None:  # they stay where they lie
        tape.emit("last_id", rows, lengths)
        tape.emit("longest", lengths, LONGEST, whole=(shape[0],))
        return Value(rows, shape, lengths), None
    x = tape.work(size)
    tape.emit("take_columns", rows, x, whole=(0,))
    tape.emit("take_columns", rows, lengths, whole=(size,))
    tape.emit("longest", lengths, LONGEST, whole=(shape[0],))
    return Value(x, shape, lengths), None


def _lowering(passes: _Passes, index: int, wanted: tuple[bool, ...]) -> Lowering:
    network = passes.network
    passes.tape.layer = index
    tensors = network.used_by(index)
    statistics = [t for t in network.statistics if t.layer == index]
    own_parts = {name: ref for (user, name), ref in passes.parts.items() if user == index}
    return Lowering(
        tape=passes.tape,
        index=index,
        wanted=wanted,
        parameters=places(Space.PARAMETERS, tensors),
        gradients=places(Space.GRADIENT, tensors) | own_parts,
        statistics=places(Space.PARAMETERS, statistics),
        statistic_sums=places(Space.GRADIENT, statistics),
        bound=BOUND_TOTAL,
    )


def _backward(passes: _Passes, dy: Ref) -> dict[int, Ref]:
    """Emits the backward pass. Returns the gradient of the output of each layer that has one."""
    network, tape = passes.network, passes.tape
    top = len(network.layers) - 1
    gradients = {top: _like(passes, top, dy, False)}  # of the output of each layer
    for index in reversed(range(len(network.layers))):
        if not network.trained[index]:
            continue
        tape.layer = index
        found = passes.backwards[index](gradients[index])
        for source, value, d in zip(network.wiring[index], passes.taken[index], found, strict=True):
            if d is None or not network.trained[source]:
                continue
            d = _like(passes, source, d, value.channels_last)
            if source in gradients:
                tape.emit("add", gradients[source], d, gradients[source])
            else:
                gradients[source] = d
    if passes.enter is not None and network.trained[DATA]:
        tape.layer = ENTRY
        passes.enter(gradients.pop(DATA))
    tape.layer = LOSS
    join_parts(tape, network.shared_gradients, passes.parts)
    _bound_the_rest(network, tape)
    return gradients


def _like(passes: _Passes, source: int, d: Ref, channels_last: bool) -> Ref:
    """The gradient with respect to an output, as that lies. channels_last: whether `d` does."""
    shape = passes.network.shapes[source + 1]
    value = Value(d.reshaped(math.prod(shape), 1), shape, channels_last=channels_last)
    return turned(passes.tape, value, passes.values[source + 1].channels_last).ref


def _bound_the_rest(network: Network, tape: Tape) -> None:
    """Bounds what no product has bounded."""
    products = {
        row.refs[2].start
        for row in tape.rows
        if row.op.name == "product_tn" and row.refs[2].space == Space.GRADIENT
    }
    every: Sequence[tuple[int, int]] = [
        (t.start, t.stop) for t in (*network.tensors, *network.statistics) if t.start not in products
    ]
    for start, stop in merged(every):
        tape.emit("bound", Ref(Space.GRADIENT, start, stop - start, plus=1), BOUND_TOTAL)
