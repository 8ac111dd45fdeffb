"""Draws the layers of a job as a graph in text, with their inputs, shapes, parameters and faults."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields
from typing import Any

from distbp.core.arrays import Shape
from distbp.core.errors import Fault
from distbp.job.kinds import plain
from distbp.job.layer_shapes import shapes
from distbp.nn.initializers import initializers_of
from distbp.nn.layers.base import Layer
from distbp.nn.losses.several import Losses
from distbp.nn.sharing import Sharing, parameter_shapes, share
from distbp.nn.wiring import DATA, INPUT, wire

WIDTH = 80
MOST_DRAWN = 100  # layers of a graph that is drawn below faults
# Fields of a layer that a drawing leaves out; initializers are left out, too.
_UNSHOWN = ("type", "name", "inputs", "shares", "features")


@dataclass(frozen=True)
class GraphNode:
    """A layer. `sources`: the layers that it takes, by number; -1: the data; None: its name in `names` is not
    known. `shape`: of its output, or None if it is not known. `tensors`: its parameters, name -> shape.
    `shared`: the parameters of other layers that it uses, as text. `wrong`: whether it is at fault. `loss`:
    of an output its loss as text, "" if it is not known; None: the layer is not an output."""

    number: int
    type: str
    name: str | None
    options: str
    sources: tuple[int | None, ...]
    names: tuple[str, ...]
    shape: Shape | None
    tensors: Mapping[str, Shape]
    shared: str
    wrong: bool
    loss: str | None = None

    @property
    def title(self) -> str:
        return f"{self.number}: {self.type}" + ("" if self.name is None else f" {self.name!r}")

    @property
    def parameters(self) -> int:
        return sum(math.prod(shape) for shape in self.tensors.values())


def size(shape: Shape | None) -> str:
    return "?" if shape is None else " x ".join(map(str, shape)) or "one number"


def graph_of(
    layers: Sequence[Layer], input_shape: Shape | None, faults: Sequence[Fault] = (), loss: Any = None
) -> tuple[GraphNode, ...]:
    """The nodes of layers whose names and shapes may be at fault. input_shape: of one row, or None if it is
    not known. loss: of the job; None: the last layer is the only output."""
    words = _losses(layers, loss)
    wiring, outcomes = wire(layers)[0], list(shapes(layers, input_shape))
    given = {DATA: input_shape, **{number: shape for number, shape, _ in outcomes}}
    places = [fault.path.split(".") for fault in faults if fault.path.startswith("model.layers.")]
    wrong = {place[2] for place in places} | {str(number) for number, _, problem in outcomes if problem}
    tensors = [
        parameter_shapes(layer, [None if source is None else given[source] for source in sources])
        for layer, sources in zip(layers, wiring, strict=True)
    ]
    sharing, nodes = share(layers, tensors)[0], []
    for number, (layer, sources) in enumerate(zip(layers, wiring, strict=True)):
        own = {
            name: shape for name, shape in (tensors[number] or {}).items() if (number, name) not in sharing
        }
        nodes.append(
            GraphNode(
                number, layer.type, layer.name, _options(layer), sources,
                tuple(_called(layers, source, at, layer) for at, source in enumerate(sources)),
                given[number], own, _shared(layers, sharing, number), str(number) in wrong, words.get(number),
            )
        )  # fmt: skip
    return tuple(nodes)


def _losses(layers: Sequence[Layer], loss: Any) -> dict[int, str]:
    """The loss of each output as text, by the number of its layer."""
    if not isinstance(loss, Losses):
        return {len(layers) - 1: "" if loss is None else loss.type}
    words = {
        output.name: output.loss.type if output.factor == 1 else f"{output.factor:g} x {output.loss.type}"
        for output in loss.outputs
    }
    return {n: words[layer.name] for n, layer in enumerate(layers) if layer.name in words}


def is_graph(nodes: Sequence[GraphNode]) -> bool:
    """Whether some layer takes anything but the layer above it."""
    return any(node.sources != (node.number - 1,) for node in nodes)


def _called(layers: Sequence[Layer], source: int | None, at: int, layer: Layer) -> str:
    if source is None:
        return (layer.inputs or ("?",))[at]
    return INPUT if source == DATA else layers[source].name or str(source)


def _shared(layers: Sequence[Layer], sharing: Sharing, number: int) -> str:
    shared = [(name, layers[owner].name) for (user, name), owner in sharing.items() if user == number]
    return ", ".join(f"{name} of {owner!r}" for name, owner in shared)


def _options(layer: Any) -> str:
    """The options of a layer that differ from their defaults, as text: `units 8, tanh`."""
    said, unshown = [], {*_UNSHOWN, *initializers_of(layer)}
    for field in fields(layer.as_written):
        value = getattr(layer, field.name)
        if field.name in unshown or value == _default(field):
            continue
        if isinstance(value, str):
            said.append(value)
        elif value is True:
            said.append(field.name)
        else:
            shown = f"{value:g}" if isinstance(value, float) else plain(value)
            said.append(f"{field.name} {_listed(shown) if isinstance(shown, list | tuple) else shown}")
    return ", ".join(said)


def _listed(values: Sequence[Any]) -> str:
    """Sizes (3 x 3) or names (a, b) as text."""
    return (", " if values and isinstance(values[0], str) else " x ").join(map(str, values))


def _default(field: Field[Any]) -> Any:
    return field.default_factory() if field.default_factory is not MISSING else field.default


def drawing_of(
    layers: Sequence[Layer], input_shape: Shape | None, faults: Sequence[Fault], loss: Any = None
) -> str:
    """The drawing to show below faults; "" if no fault is in a layer, or if the layers form a plain list."""
    if len(layers) > MOST_DRAWN or not any(fault.path.startswith("model.layers.") for fault in faults):
        return ""
    nodes = graph_of(layers, input_shape, faults, loss)
    return "\n".join(drawn(nodes, input_shape)) if is_graph(nodes) else ""


def lanes(wiring: Sequence[Sequence[int | None]], ranks: Mapping[int, int]) -> dict[int, int]:
    """Assigns a lane (column), from 0 on, to the data (-1) and to each layer. A layer stands in its lane, and
    its output runs down the lane to the last layer that takes it. Nothing else is in the lane meanwhile.

    `ranks`: the row of each layer; a layer is in a lower row (a larger number) than its sources.
    """
    last = {number: rank + 1 for number, rank in ranks.items()}
    for number, sources in enumerate(wiring):
        for source in sources:
            if source is not None:
                last[source] = max(last[source], ranks[number])
    placed: dict[int, int] = {}

    def ends_here(number: int) -> list[int]:
        sources = wiring[number] if number != DATA else ()
        return sorted(placed[s] for s in sources if s is not None and last[s] == ranks[number])

    # A layer continues the lane of a source that ends here, if there is one.
    for number in sorted(ranks, key=lambda n: (ranks[n], n)):
        rank = ranks[number]
        taken = {lane for other, lane in placed.items() if last[other] > rank}
        own = [lane for lane in ends_here(number) if lane not in taken]
        if not own:
            waiting = {lane for other, lane in placed.items() if last[other] == rank}
            own = [next(lane for lane in range(len(ranks) + 1) if lane not in taken | waiting)]
        placed[number] = own[0]
    return placed


def drawn(nodes: Sequence[GraphNode], input_shape: Shape | None) -> Iterator[str]:
    """The graph in lines of at most 80 columns. A `*` stands for each layer, and its output runs down from
    there. Above each layer are the shapes of its inputs."""
    outputs = [node.number for node in nodes if node.loss is not None]
    wiring = [node.sources for node in nodes] + [tuple(outputs)] * (len(outputs) > 1)
    where = lanes(wiring, {n: n for n in range(DATA, len(wiring))})
    last = {DATA: DATA, **{node.number: node.number for node in nodes}}
    for node in nodes:
        last |= {source: node.number for source in node.sources if source is not None}
    last |= dict.fromkeys(outputs, len(nodes))
    columns = max(where.values()) + 1
    given = {DATA: input_shape, **{node.number: node.shape for node in nodes}}

    def line(marks: Mapping[int, str], text: str) -> str:
        rails = "".join(marks.get(place, " ") for place in range(2 * columns - 1))
        return textwrap.shorten(text, WIDTH - 2 * columns - 3, placeholder=" ...").join((f"  {rails}  ", ""))

    def passing(before: int, at: int) -> dict[int, str]:
        """The marks of layers above layer `before` whose outputs layer `at` or a later layer takes."""
        return {2 * where[n]: "|" for n in where if n < before and last[n] >= at}

    yield line({2 * where[DATA]: "*"}, INPUT).rstrip()
    for node in nodes:
        marks, own = passing(node.number, node.number), 2 * where[node.number]
        known = {source for source in node.sources if source is not None}
        taken = {2 * where[source] for source in known}
        if taken != {own}:
            low, high = min(taken | {own}), max(taken | {own})
            marks = {**dict.fromkeys(range(low, high), "-"), **marks}
            for source in known:
                goes_on = last[source] > node.number
                marks[2 * where[source]] = "+" if goes_on or 2 * where[source] == own else "'"
            marks[own] = "+" if own in taken else "."
        shown = [size(given.get(source)) if source is not None else "?" for source in node.sources]
        if len(shown) > 1 or None in node.sources:
            shown = [f"{name}: {shape}" for name, shape in zip(node.names, shown, strict=True)]
        yield line(marks, ",  ".join(shown)).rstrip()
        marks = {**passing(node.number, node.number + 1), own: "*"}
        text = node.title + (f"  ({node.options})" if node.options else "")
        text += f"; {node.shared}" if node.shared else ""
        text += f"; loss {node.loss}" if node.loss and len(outputs) > 1 else ""
        yield line(marks, text + ("   <- at fault" if node.wrong else "")).rstrip()
    ends = {2 * where[number]: "|" for number in outputs}
    sizes = [size(nodes[number].shape) for number in outputs]
    if len(outputs) > 1:
        sizes = [f"{nodes[n].name}: {shape}" for n, shape in zip(outputs, sizes, strict=True)]
    yield line(ends, ",  ".join(sizes)).rstrip()
    yield line(dict.fromkeys(ends, "*"), "outputs").rstrip()
