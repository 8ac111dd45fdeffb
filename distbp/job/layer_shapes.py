"""The shapes of a job's layers and outputs. Names and inputs of the layers may be at fault."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from distbp.core.arrays import Shape
from distbp.nn.losses.several import Heads, heads_of, names_of
from distbp.nn.wiring import DATA, places_of, unknown_name, wire


def last_activation(layers: Iterable[Any], index: int | None = None) -> str | None:
    """The activation that makes the outputs of layer `index` (None: the last layer); None if not known."""
    layers = tuple(layers)
    wiring = wire(layers)[0]
    index = len(layers) - 1 if index is None else index
    while index is not None and index != DATA:
        if not layers[index].keeps_values:
            return layers[index].ends_in  # type: ignore[no-any-return]
        index = wiring[index][0]
    return None


def shapes(layers: Iterable[Any], input_shape: Shape | None) -> Iterator[tuple[int, Shape | None, str]]:
    """Yields for each layer its number, its output shape (None: not known), and its fault as text, or "".

    Without an input shape, shapes are known from the first layer on that states its own (`own_shape`).
    """
    layers = tuple(layers)
    known: dict[int | None, Shape | None] = {DATA: input_shape}
    for index, sources in enumerate(wire(layers)[0]):
        layer, shape, problem = layers[index], None, ""
        inputs = [known.get(source) for source in sources]
        if layer.joins == (len(inputs) > 1) and None not in inputs:
            try:
                shape = layer.output_shape(*inputs)
                layer.parameters(*inputs)
            except ValueError as error:
                problem = str(error)
        known[index] = layer.own_shape if shape is None else shape
        yield index, known[index], problem


def output_places(layers: Sequence[Any], loss: Any) -> tuple[int, ...] | None:
    """The numbers of the layers that give the outputs; None where one is not known."""
    places, strange = places_of(layers, names_of(loss), unknown_name)
    return None if strange else places


def output_shapes(layers: Sequence[Any], loss: Any, input_shape: Shape | None = None) -> list[Shape | None]:
    """Of each output; [] where one is not known."""
    found = list(shapes(layers, input_shape))
    return [found[place][1] for place in output_places(layers, loss) or ()]


def heads_known(layers: Sequence[Any], loss: Any, otherwise: int) -> Heads | None:
    """The outputs as far as they are known from a job alone: where their shape is not, `otherwise` numbers.
    None where the loss names what is not a layer."""
    found = output_shapes(layers, loss)
    if not found:
        return None
    return heads_of(loss, [(otherwise,) if shape is None else shape for shape in found])
