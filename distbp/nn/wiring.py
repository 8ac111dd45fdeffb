"""The wiring of a network: for each layer, the numbers of the layers whose outputs it takes.

A job names layers. A layer can name earlier layers only, so a cycle cannot be written.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

from distbp.nn.layers.base import Layer, Shape, Takes
from distbp.nn.layers.columns import Columns

DATA = -1  # stands for the data among the sources of a layer
INPUT = "input"  # the name of the data

Wiring = tuple[tuple[int, ...], ...]  # for each layer, the numbers of its sources


class Problem(NamedTuple):
    """A fault in what a layer says. `place`: a path from the list of layers, such as `3.inputs.0`."""

    place: str
    message: str


def unknown_name(name: str, known: Iterable[str]) -> str:
    """The message for a name that is not among the known names."""
    return f"{name!r} is not known; known: {', '.join(sorted(known))}"


def wire(
    layers: Sequence[Layer],
    unknown: Callable[[str, Iterable[str]], str] = unknown_name,
    outputs: Sequence[str] = (),
) -> tuple[tuple[tuple[int | None, ...], ...], list[Problem]]:
    """Returns the sources of each layer (None: the name is not known), and every fault in the names.

    `unknown`: makes the message for a name from the name and the known names. `outputs`: the names of the
    output layers; (): the last layer.
    """
    known, later = {INPUT: DATA}, {layer.name: index for index, layer in enumerate(layers)}
    wiring: list[tuple[int | None, ...]] = []
    problems: list[Problem] = []
    for index, layer in enumerate(layers):
        if layer.inputs is None:
            sources: tuple[int | None, ...] = (DATA if layer.enters else index - 1,)
        else:
            sources = tuple(known.get(name) for name in layer.inputs)
            for place, (name, source) in enumerate(zip(layer.inputs, sources, strict=True)):
                if source is None and name in later:
                    text = f"{name!r} is layer {later[name]}; a layer takes the outputs of layers before it"
                elif source is None:
                    text = unknown(name, known)
                else:
                    continue
                problems.append(Problem(f"{index}.inputs.{place}", text))
        wiring.append(sources)
        problems += _count(index, layer, len(sources))
        if layer.name is None:
            continue
        if layer.name == INPUT:
            problems.append(Problem(f"{index}.name", f"{INPUT!r} is the name of the data; choose another"))
        elif layer.name in known:
            text = (
                f"{layer.name!r} is the name of layer {known[layer.name]}; give each layer a name of its own"
            )
            problems.append(Problem(f"{index}.name", text))
        else:
            known[layer.name] = index
    used = {source for sources in wiring for source in sources}
    if None not in used and set(outputs) <= known.keys():  # else an unknown name may stand for the layer
        used |= {known[name] for name in outputs} if outputs else {len(layers) - 1}
        for index in sorted(set(range(len(layers))) - used):
            called = "" if layers[index].name is None else f" ({layers[index].name!r})"
            where = "in the inputs of a later layer"
            where = f", and it has no loss; name it in loss, or {where}" if outputs else f"; name it {where}"
            text = f"no layer takes the output of this one{called}{where}, or take it out"
            problems.append(Problem(f"{index}", text))
    return tuple(wiring), problems + _named_inputs(layers, wiring) + _kinds_of_data(layers, wiring)


def _named_inputs(layers: Sequence[Layer], wiring: Sequence[Sequence[int | None]]) -> list[Problem]:
    """Checks that named inputs have names and stand first, and that other layers take the data by name."""
    names = [layer.name for layer in layers if layer.enters]
    problems = []
    for index, (layer, sources) in enumerate(zip(layers, wiring, strict=True)):
        if layer.enters and layer.name is None:
            problems.append(Problem(f"{index}.name", "is required: by it the data and other layers name it"))
        if layer.enters and layer.inputs is not None:
            problems.append(Problem(f"{index}.inputs", "an input takes its part of the data; leave this out"))
        if layer.enters and index >= len(names):
            problems.append(Problem(f"{index}", "inputs stand before all other layers; put it above them"))
        elif names and not layer.enters and DATA in sources:
            text = f"the data are inputs with names ({', '.join(map(repr, names))}); name one of them"
            problems.append(Problem(f"{index}.inputs", text))
    return problems


def _kinds_of_data(layers: Sequence[Layer], wiring: Sequence[Sequence[int | None]]) -> list[Problem]:
    """Checks that only the data are ids, and are ids for every layer that takes them, and that only the data
    have columns with names."""
    problems = []
    takers = zip(layers, wiring, strict=True)
    ids = {source for layer, sources in takers if layer.takes == "ids" for source in sources} - {None}
    for index, (layer, sources) in enumerate(zip(layers, wiring, strict=True)):
        if layer.takes == "ids" and not all(_is_data(layers, source) for source in sources):
            names = [other.name or "" for other in layers if other.enters]
            how = f"{'' if names else 'put it first, or '}give it inputs: [{' or '.join(names or [INPUT])}]"
            text = f"{layer.type} takes ids, and only the data are ids; {how}"
            problems.append(Problem(f"{index}", text))
        elif layer.takes != "ids" and not layer.enters and any(source in ids for source in sources):
            text = f"{layer.type} takes numbers, but the data are ids, as another layer takes them so"
            problems.append(Problem(f"{index}", text))
        if layer.table_columns and any(source != DATA for source in sources):
            problems.append(Problem(f"{index}.columns", f"are those of the data: give it inputs: [{INPUT}]"))
    return problems


def _is_data(layers: Sequence[Layer], source: int | None) -> bool:
    return source is None or source == DATA or layers[source].enters > 0


def _count(index: int, layer: Layer, given: int) -> list[Problem]:
    if layer.joins == (given > 1):
        return []
    if layer.joins:
        text = f"{layer.type} takes two or more inputs, not 1; name them, as inputs: [a, b]"
    else:
        text = f"{layer.type} takes 1 input, not {given};"
        text += " join them in a layer first (add, multiply, concatenate)"
    return [Problem(f"{index}.inputs", text)]


def of_columns(
    layers: Iterable[Layer],
    entry: Columns | None,
    unknown: Callable[[str, Iterable[str]], str] = unknown_name,
) -> tuple[tuple[Layer, ...], list[Problem]]:
    """Returns the layers as the network uses them: a layer that names columns gets the features that the
    entry makes of these columns, and an input gets its place in a row. Also returns a problem for each name
    or pattern that matches no column. entry: None if the data are not a table."""
    made = {} if entry is None else entry.made
    found, problems, entered = [], [], 0
    for index, layer in enumerate(layers):
        if layer.enters:
            found.append(layer.of_features(range(entered, entered + layer.enters)))
            entered += layer.enters
            continue
        features: dict[int, None] = {}  # an ordered set
        for place, wanted in enumerate(layer.table_columns if made else ()):
            names = _fitting(wanted, made)
            if not names:
                problems.append(Problem(f"{index}.columns.{place}", unknown(wanted, made)))
            features |= dict.fromkeys(feature for name in names for feature in made[name])
        found.append(layer.of_features(tuple(features)) if features else layer)
    return tuple(found), problems


def _fitting(wanted: str, names: Iterable[str]) -> list[str]:
    """The names that a name or a pattern matches."""
    return [wanted] if wanted in names else [name for name in names if fnmatchcase(name, wanted)]


def columns_left(layers: Sequence[Layer], wiring: Wiring, entry: Columns | None) -> list[str]:
    """The names of the table's columns that no layer takes; [] if the data are not a table."""
    takers = [layer for layer, sources in zip(layers, wiring, strict=True) if DATA in sources]
    if entry is None or not all(layer.table_columns for layer in takers):
        return []
    left = dict.fromkeys(entry.made)
    for wanted in (wanted for layer in takers for wanted in layer.table_columns):
        for name in _fitting(wanted, entry.made):
            left.pop(name, None)
    return list(left)


def wiring_of(layers: Sequence[Layer], outputs: Sequence[str] = ()) -> Wiring:
    """The sources of each layer. outputs: as in `wire`. Raises ValueError with every fault."""
    wiring, problems = wire(layers, outputs=outputs)
    if problems:
        raise ValueError("; ".join(f"layer {problem.place}: {problem.message}" for problem in problems))
    return tuple(tuple(source for source in sources if source is not None) for sources in wiring)


def places_of(
    layers: Sequence[Layer], outputs: Sequence[str], unknown: Callable[[str, Iterable[str]], str]
) -> tuple[tuple[int, ...], list[Problem]]:
    """Returns the numbers of the output layers, and a problem for each name that no layer has; its place is
    the name. outputs, unknown: as in `wire`."""
    if not outputs:
        return (len(layers) - 1,), []
    named = {layer.name: index for index, layer in enumerate(layers) if layer.name is not None}
    problems = [Problem(name, unknown(name, named)) for name in outputs if name not in named]
    return tuple(named[name] for name in outputs if name in named), problems


def with_lengths(
    layers: Sequence[Layer], wiring: Sequence[Sequence[int | None]], data: bool
) -> dict[int | None, int | None]:
    """For the data and the output of each layer, by number: the number of the layer at which the lengths of
    its steps begin, or DATA for the lengths of the data; None: its steps have no lengths. data: whether the
    data have lengths."""
    having: dict[int | None, int | None] = {DATA: DATA if data else None}
    for index, (layer, sources) in enumerate(zip(layers, wiring, strict=True)):
        kept = _lengths_of(having, sources) if layer.lengths == "keep" else []
        having[index] = index if layer.lengths == "begin" else kept[0] if kept else None
    return having


def _lengths_of(having: dict[int | None, int | None], sources: Sequence[int | None]) -> list[int]:
    found = [having.get(source) for source in sources]
    return list(dict.fromkeys(one for one in found if one is not None))


def dropping(
    layers: Sequence[Layer],
    wiring: Sequence[Sequence[int | None]],
    data: bool = True,
    shape: Shape | None = None,
) -> list[Problem]:
    """A problem for each layer that would drop lengths, or mix the lengths of several inputs. data: whether
    the data have lengths. shape: the shape of a row of the data; None: not known."""
    having = with_lengths(layers, wiring, data)
    if data and shape is not None and len(shape) < 2 and ids_below(layers, wiring) is None:
        text = f"lengths are of rows (steps, features), but a row has the shape {shape}; reshape the data"
        return [Problem("0", text)]
    problems = _without_features(layers, wiring)
    if problems:  # the last axis would be that of the steps, so padding would count as features
        return problems
    for index, (layer, sources) in enumerate(zip(layers, wiring, strict=True)):
        found = _lengths_of(having, sources)
        if layer.lengths == "drop" and found:
            text = (
                f"{layer.type} drops the lengths of the rows, so padding would count; put a layer before"
                " it that uses them, as average_steps, last_step, or a recurrent one"
            )
            problems.append(Problem(f"{index}", text))
        elif layer.lengths == "keep" and len(found) > 1:
            names = " and ".join(repr(layers[one].name) for one in found)
            text = f"{layer.type} joins steps of {names}, which have lengths of their own each; use the steps"
            text += " before, as average_steps, last_step, or a recurrent layer does"
            problems.append(Problem(f"{index}", text))
    return problems


def _without_features(layers: Sequence[Layer], wiring: Sequence[Sequence[int | None]]) -> list[Problem]:
    """A problem for each input of numbers that has lengths but no axis of features. Ids need no such axis."""
    problems = []
    for index, layer in enumerate(layers):
        shape = list(layer.own_shape or ())
        takers = [other for other, sources in zip(layers, wiring, strict=True) if index in sources]
        if layer.lengths == "begin" and len(shape) < 2 and any(other.takes != "ids" for other in takers):
            text = f"lengths are of rows (steps, features), but a row has the shape {shape}; write"
            problems.append(Problem(f"{index}.shape", f"{text} {[*shape, 1]}, or give ids to an embedding"))
    return problems


def tearing(layers: Sequence[Layer]) -> list[Problem]:
    """A problem for each layer that does not allow series to be cut into windows."""
    return [Problem(f"{index}", fault) for index, layer in enumerate(layers) if (fault := layer.window_fault)]


def ids_below(layers: Sequence[Layer], wiring: Sequence[Sequence[int | None]]) -> int | None:
    """The largest id that the data may hold, plus one; None if the data are not ids."""
    bounds = [layer.ids_below for layer, sources in zip(layers, wiring, strict=True) if DATA in sources]
    return min((bound for bound in bounds if bound is not None), default=None)


class DataFacts(NamedTuple):
    """The demands of layers on the data: see `LayerFacts.takes` and `LayerFacts.ids_below`."""

    takes: set[Takes]
    ids_below: int | None


def data_facts(layers: Sequence[Layer]) -> DataFacts:
    """The demands of the layers on the data. Faults in the layers' names are passed over."""
    wiring, _ = wire(layers)
    takes = {layer.takes for layer, sources in zip(layers, wiring, strict=True) if DATA in sources}
    return DataFacts(takes, ids_below(layers, wiring))


def entering(layers: Sequence[Layer], shape: Shape) -> Shape:
    """The shape in which a network takes a sample of the data, which has the shape `shape`. If all layers
    that take the data take a row, an image is given as a row."""
    return (math.prod(shape),) if data_facts(layers).takes == {"row"} else shape
