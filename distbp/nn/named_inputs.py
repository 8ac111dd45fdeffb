"""The named inputs of a network, and the place of each in a row of the data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from distbp.nn.layers.base import Layer, Shape
from distbp.nn.layers.inputs import Input
from distbp.nn.wiring import wire


class NamedInput(NamedTuple):
    """An input: the numbers `first` to `stop` - 1 of a row. `ragged`: the last of them is the row's length.
    `scale` divides the numbers. `ids_below`: the numbers are whole, at least 0 and below this bound; None:
    any numbers."""

    name: str
    shape: Shape
    ragged: bool = False
    first: int = 0
    scale: float = 1.0
    ids_below: int | None = None

    @property
    def end(self) -> int:
        """The end of the numbers, without the length."""
        return self.first + math.prod(self.shape)

    @property
    def stop(self) -> int:
        return self.end + self.ragged


def named_inputs(layers: Sequence[Layer]) -> tuple[NamedInput, ...]:
    """The named inputs of a network, in order; () if the data are one input. Passes over faults in names."""
    wiring = wire(layers)[0]
    found: list[NamedInput] = []
    for index, layer in enumerate(layers):
        if not isinstance(layer, Input):
            continue
        users = zip(layers, wiring, strict=True)
        bounds = [one.ids_below for one, sources in users if index in sources and one.ids_below is not None]
        first = found[-1].stop if found else 0
        entries = min(bounds, default=None)
        found.append(NamedInput(str(layer.name), layer.own_shape, layer.ragged, first, layer.scale, entries))
    return tuple(found)


def numbers_misfit(layers: Sequence[Layer], shape: Shape) -> str:
    """The fault if a row of the data does not have the number of numbers that the inputs take, else ""."""
    named, numbers = named_inputs(layers), math.prod(shape)
    if not named or named[-1].stop == numbers:
        return ""
    what = ", ".join(f"{one.name!r} {list(one.shape)}" for one in named)
    return f"a row of the data has {numbers} numbers, but the inputs {what} take {named[-1].stop}"
