"""The layers of a job as a graph that is drawn: what each takes, its shape, its parameters, its faults."""

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
MOST_DRAWN = 100  # layers, below faults
# Fields of a layer that a picture leaves out, beside how its parameters begin.
_UNSHOWN = ("type", "name", "inputs", "shares", "features")


@dataclass(frozen=True)
class GraphNode:
    """A layer. `sources`: numbers of layers, -1 the data, None for `names` that are not known. `shape`: of
    its output, None where it is not known. `tensors`: the parameters that it has, name -> shape; `shared`:
    those of other layers that it uses, in words. `wrong`: it is at fault. `loss`: of an output, its loss in
    words, "" where it is not known; None: it is no output."""

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
    """The nodes of layers whose names and shapes may be at fault. input_shape: None where it is not known.
    loss: of the job; None: the last layer gives the outputs."""
    words = _losses(layers, loss)
    wiring, found = wire(layers)[0], list(shapes(layers, input_shape))
    given = {DATA: input_shape, **{number: shape for number, shape, _ in found}}
    places = [fault.path.split(".") for fault in faults if fault.path.startswith("model.layers.")]
    wrong = {place[2] for place in places} | {str(number) for number, _, problem in found if problem}
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
    """Of the layers that are outputs, their losses in words."""
    if not isinstance(loss, Losses):
        return {len(layers) - 1: "" if loss is None else loss.type}
    words = {
        one.name: one.loss.type if one.factor == 1 else f"{one.factor:g} x {one.loss.type}"
        for one in loss.outputs
    }
    return {n: words[layer.name] for n, layer in enumerate(layers) if layer.name in words}


def is_graph(nodes: Sequence[GraphNode]) -> bool:
    """Whether it is more than a list: a layer takes something else than what stands above it."""
    return any(node.sources != (node.number - 1,) for node in nodes)


def _called(layers: Sequence[Layer], source: int | None, at: int, layer: Layer) -> str:
    if source is None:
        return (layer.inputs or ("?",))[at]
    return INPUT if source == DATA else layers[source].name or str(source)


def _shared(layers: Sequence[Layer], sharing: Sharing, number: int) -> str:
    found = [(name, layers[owner].name) for (user, name), owner in sharing.items() if user == number]
    return ", ".join(f"{name} of {owner!r}" for name, owner in found)


def _options(layer: Any) -> str:
    """What is said of a layer, but for what is left out anyhow: `units 8, tanh`."""
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
    """Sizes, or names."""
    return (", " if values and isinstance(values[0], str) else " x ").join(map(str, values))


def _default(field: Field[Any]) -> Any:
    return field.default_factory() if field.default_factory is not MISSING else field.default


def drawing_of(
    layers: Sequence[Layer], input_shape: Shape | None, faults: Sequence[Fault], loss: Any = None
) -> str:
    """The drawing that stands below the faults of a graph, "" where none is in its layers or it is a list."""
    if len(layers) > MOST_DRAWN or not any(fault.path.startswith("model.layers.") for fault in faults):
        return ""
    nodes = graph_of(layers, input_shape, faults, loss)
    return "\n".join(drawn(nodes, input_shape)) if is_graph(nodes) else ""


def lanes(wiring: Sequence[Sequence[int | None]], ranks: Mapping[int, int]) -> dict[int, int]:
    """For the data (-1) and each layer a lane, from 0: there it stands, and what it gives runs down to the
    last layer that takes it. Nothing else is in that lane meanwhile.

    `ranks`: how far down each stands; what takes from another stands further down.
    """
    last = {one: rank + 1 for one, rank in ranks.items()}
    for number, sources in enumerate(wiring):
        for source in sources:
            if source is not None:
                last[source] = max(last[source], ranks[number])
    found: dict[int, int] = {}

    def ends_here(number: int) -> list[int]:
        sources = wiring[number] if number != DATA else ()
        return sorted(found[s] for s in sources if s is not None and last[s] == ranks[number])

    # Those that continue the lane of what they take come first.
    for number in sorted(ranks, key=lambda n: (ranks[n], n)):
        rank = ranks[number]
        taken = {lane for one, lane in found.items() if last[one] > rank}
        own = [lane for lane in ends_here(number) if lane not in taken]
        if not own:
            waiting = {found[one] for one in found if last[one] == rank}
            own = [next(lane for lane in range(len(ranks) + 1) if lane not in taken | waiting)]
        found[number] = own[0]
    return found


def drawn(nodes: Sequence[GraphNode], input_shape: Shape | None) -> Iterator[str]:
    """The graph in lines of at most 80 columns: a `*` for each layer, and what it gives runs down from there.
    Above each stand the shapes that it takes."""
    outputs = [node.number for node in nodes if node.loss is not None]
    wiring = [node.sources for node in nodes] + [tuple(outputs)] * (len(outputs) > 1)
    where = lanes(wiring, {n: n for n in range(DATA, len(wiring))})
    last = {DATA: DATA, **{node.number: node.number for node in nodes}}
    for node in nodes:
        last |= {source: node.number for source in node.sources if source is not None}
    last |= dict.fromkeys(outputs, len(nodes))
    many = max(where.values()) + 1
    given = {DATA: input_shape, **{node.number: node.shape for node in nodes}}

    def line(marks: Mapping[int, str], text: str) -> str:
        rails = "".join(marks.get(place, " ") for place in range(2 * many - 1))
        return textwrap.shorten(text, WIDTH - 2 * many - 3, placeholder=" ...").join((f"  {rails}  ", ""))

    def passing(after: int, at: int) -> dict[int, str]:
        """Of what was made before a layer and is taken by it or later ones."""
        return {2 * where[one]: "|" for one in where if one < after and last[one] >= at}

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
            shown = [f"{name}: {one}" for name, one in zip(node.names, shown, strict=True)]
        yield line(marks, ",  ".join(shown)).rstrip()
        marks = {**passing(node.number, node.number + 1), own: "*"}
        text = node.title + (f"  ({node.options})" if node.options else "")
        text += f"; {node.shared}" if node.shared else ""
        text += f"; loss {node.loss}" if node.loss and len(outputs) > 1 else ""
        yield line(marks, text + ("   <- at fault" if node.wrong else "")).rstrip()
    ends = {2 * where[number]: "|" for number in outputs}
    sizes = [size(nodes[number].shape) for number in outputs]
    if len(outputs) > 1:
        sizes = [f"{nodes[n].name}: {one}" for n, one in zip(outputs, sizes, strict=True)]
    yield line(ends, ",  ".join(sizes)).rstrip()
    yield line(dict.fromkeys(ends, "*"), "outputs").rstrip()
