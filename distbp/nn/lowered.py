"""Lowers a network to a list of ops: the layers forward, the loss, the layers backward in reverse."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from distbp.core.arrays import Array
from distbp.nn.layers.base import Backward, Lowering, Value
from distbp.nn.layers.layouts import arranged, turned
from distbp.nn.layers.lowering import Carried
from distbp.nn.losses.base import Loss
from distbp.nn.losses.several import Heads, Losses, heads_of, lower_heads
from distbp.nn.network import Network, places
from distbp.nn.sharing import join_parts, part_buffers
from distbp.nn.tape import BOUND_TOTAL, ENTRY, LONGEST, LOSS, Ref, Row, Space, Tape, Watched, merged
from distbp.nn.wiring import DATA

Parts = Mapping[tuple[int, str], Ref]  # what each user adds to the gradient of a shared tensor


@dataclass(frozen=True)
class Lowered:
    """A network on the tape. All places are those of the planned tape.

    `outputs`: the output of the last layer, or of several layers side by side. `activations`: the output of
    every layer. `channels_last`: the layout of each, if it holds images; false with `forward_only`.
    `gradients`: the gradient of the loss with respect to each activation, as the layer's backward pass takes
    it; None for a layer without a backward pass. `entry_gradient`: the same for the output of the entry.
    `parts`: see `Parts`, by layer and name. `losses`, `loss_gradients`, `own_totals`: for each output the
    losses of its numbers, the gradient with respect to it, and the sum of the losses; () without a loss.
    `watched`: the places of the counts of live rows. `constants`: the space of constants. `labels`, `totals`,
    `states`: the number of elements of these spaces."""

    rows: list[Row]
    work: int
    outputs: Ref
    activations: list[Ref]
    channels_last: list[bool]
    gradients: list[Ref | None]
    entry_gradient: Ref | None
    parts: dict[tuple[int, str], Ref]
    losses: tuple[Ref, ...]
    loss_gradients: tuple[Ref, ...]
    own_totals: tuple[Ref, ...]
    watched: list[Watched]
    constants: Array
    labels: int
    totals: int
    states: int

    @property
    def live(self) -> int:
        """The number of watched units. The counts of their live rows follow the first TOTALS numbers."""
        return sum(one.units for one in self.watched)


@dataclass
class _Passes:
    """A network that is being lowered. values: the data, then the output of each layer. taken: the inputs of
    each layer."""

    network: Network
    tape: Tape
    parts: Parts
    values: list[Value]
    taken: list[list[Value]]
    backwards: list[Backward]
    enter: Backward | None = None
    begins: Ref | None = None  # whether a series begins in each row; None: rows are not windows of series


def lower(
    network: Network,
    most_rows: int,
    loss: Loss | Losses | Heads | None = None,
    *,
    training: bool = False,
    forward_only: bool = False,
) -> Lowered:
    """The network as a list of ops, for slices of at most `most_rows` rows. `training`: the forward pass is
    that of training. Unless `forward_only`, the backward pass follows and fills the gradient space. The
    outputs of a network without layers are the data."""
    tape, back = Tape(most_rows, network.dtype, training), training and not forward_only
    parts = part_buffers(tape, network.shared_gradients) if back else {}
    passes = _Passes(network, tape, parts, [], [], [])
    _forward(passes)
    values = passes.values
    tape.layer = LOSS
    arrived: dict[int, Ref] = {}
    given = [turned(tape, values[number + 1], last=False).ref for number in network.outputs]
    outputs = given[0] if len(given) == 1 else _joined(tape, given)
    tape.keep(outputs)
    seen = [turned(tape, value, last=False) for value in values[1:]] if forward_only else values[1:]
    lost: list[tuple[Ref, Ref, Ref]] = []
    if loss is not None:
        heads = loss if isinstance(loss, Heads) else heads_of(loss, network.answer_shapes)
        lost = lower_heads(tape, heads, _apart(tape, heads, _by_answer(network, given)))
        tape.keep(*(losses for _, losses, _ in lost))
        if forward_only:
            tape.keep(*(dy for dy, _, _ in lost), *(value.ref for value in seen))
        if back:
            arrived = _backward(passes, [dy for dy, _, _ in lost])
    plan = tape.planned()
    layers = range(len(network.layers))
    return Lowered(
        plan.rows,
        plan.work,
        plan.place(outputs),
        [plan.place(value.ref) for value in seen],
        [value.channels_last for value in seen],
        [plan.place(arrived[index]) if index in arrived else None for index in layers],
        plan.place(arrived[DATA]) if DATA in arrived else None,
        {key: plan.place(ref) for key, ref in parts.items()},
        tuple(plan.place(losses) for _, losses, _ in lost),
        tuple(plan.place(dy) for dy, _, _ in lost),
        tuple(total for _, _, total in lost),
        plan.watched,
        plan.constants,
        plan.labels,
        plan.totals,
        0 if training else most_rows * _state_columns(network),
    )


def _by_answer(network: Network, given: list[Ref]) -> list[Ref]:
    """The outputs with one matrix row for each target. A window of a series has a target for each step."""
    if network.carry is None:
        return given
    return [ref.reshaped(ref.columns // network.answers, network.answers) for ref in given]


def _state_columns(network: Network) -> int:
    """The number of elements that all layers carry for one row."""
    return sum(state.shape[-1] for state in network.states)


def _joined(tape: Tape, parts: Sequence[Ref]) -> Ref:
    """A new buffer with the outputs side by side."""
    out, first = tape.work(sum(part.columns for part in parts)), 0
    for part in parts:
        tape.emit("copy_columns", part, out, whole=(0, first, part.columns))
        first += part.columns
    return out


def _apart(tape: Tape, heads: Heads, given: Sequence[Ref]) -> list[Ref]:
    """The outputs, one for each head. In a network without layers they are columns of the data."""
    if len(given) == len(heads):
        return list(given)
    parts = []
    for head in heads:
        first, columns = head.outputs
        parts.append(tape.work(columns))
        tape.emit("copy_columns", given[0], parts[-1], whole=(first, 0, columns))
    return parts


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
        source = network.having_lengths[index]
        if source is not None and source != index:
            value = value._replace(lengths=values[source + 1].lengths)
        values.append(value)
        passes.backwards.append(backward)


def _data(passes: _Passes) -> tuple[Value, Backward | None]:
    """The value that the layers take as the data, and the backward pass of the entry (None: no entry)."""
    network, tape = passes.network, passes.tape
    size, shape = math.prod(network.input_shape), network.input_shape
    rows = Ref(Space.INPUTS, 0, math.prod(network.row_shape), 1)
    if network.entry is not None:
        return network.entry.lower(_lowering(passes, ENTRY, (False,)), Value(rows, shape))
    if not network.lengths:
        return Value(rows, shape), None
    tape.layer = ENTRY
    lengths, last = tape.work(1), int(network.carry is not None)
    if last:
        passes.begins = tape.work(1)
    if network.ids_below is not None:  # ids are not copied
        tape.emit("last_id", rows, lengths, whole=(last,))
        tape.emit("longest", lengths, LONGEST, whole=(shape[0], 0))
        if passes.begins is not None:
            tape.emit("last_id", rows, passes.begins, whole=(0,))
        return Value(rows, shape, lengths), None
    x = tape.work(size)
    tape.emit("copy_columns", rows, x, whole=(0, 0, size))
    tape.emit("copy_columns", rows, lengths, whole=(size, 0, 1))
    tape.emit("longest", lengths, LONGEST, whole=(shape[0], 0))
    if passes.begins is not None:
        tape.emit("copy_columns", rows, passes.begins, whole=(size + 1, 0, 1))
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
        carried=_carried(passes, index),
    )


def _carried(passes: _Passes, index: int) -> Carried | None:
    """The states of a layer; None if it has no states or rows are not windows of series. In training the
    states before a window stand in the flat vector, and those after it in the gradient. Otherwise they have
    a space of their own."""
    network, tape = passes.network, passes.tape
    own = [state for state in network.states if state.layer == index]
    if passes.begins is None or not own:
        return None
    if tape.training:
        assert network.carry is not None
        loads, stores = places(Space.PARAMETERS, own), places(Space.GRADIENT, own)
        return Carried(tape, passes.begins, network.carry.lanes, loads, stores)
    rows, start, held = tape.most_rows, 0, {}
    for state in network.states:
        if state.layer == index:
            held[state.name] = Ref(Space.STATE, start, state.shape[-1], plus=rows)
        start += rows * state.shape[-1]
    return Carried(tape, passes.begins, rows, held, held)


def _backward(passes: _Passes, losses: Sequence[Ref]) -> dict[int, Ref]:
    """Emits the backward pass. losses: the gradient of the loss with respect to each output. Returns the
    gradients with respect to the outputs of trained layers and of the entry, by number."""
    network, tape = passes.network, passes.tape
    gradients = {
        number: _like(passes, number, dy, False) for number, dy in zip(network.outputs, losses, strict=True)
    }
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
        passes.enter(gradients[DATA])
    tape.layer = LOSS
    join_parts(tape, network.shared_gradients, passes.parts)
    _bound_the_rest(network, tape)
    return gradients


def _like(passes: _Passes, source: int, d: Ref, channels_last: bool) -> Ref:
    """The gradient `d` in the layout of the output of `source`. channels_last: the layout of `d`."""
    shape = passes.network.shapes[source + 1]
    value = Value(d.reshaped(math.prod(shape), 1), shape, channels_last=channels_last)
    return turned(passes.tape, value, passes.values[source + 1].channels_last).ref


def _bound_the_rest(network: Network, tape: Tape) -> None:
    """Emits bounds of all parts of the gradient that no product has bounded."""
    products = {
        row.refs[2].start for row in tape.rows if row.op.form == "tn" and row.refs[2].space == Space.GRADIENT
    }
    every: Sequence[tuple[int, int]] = [
        (t.start, t.stop)
        for t in (*network.tensors, *network.statistics, *network.states)
        if t.start not in products
    ]
    for start, stop in merged(every):
        tape.emit("bound", Ref(Space.GRADIENT, start, stop - start, plus=1), BOUND_TOTAL)
