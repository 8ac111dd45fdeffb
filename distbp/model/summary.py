"""The summary of a network as text."""

from __future__ import annotations

from distbp.core.arrays import Shape
from distbp.nn.network import Network
from distbp.nn.tape import ENTRY


def summary(network: Network, members: int = 1) -> str:
    """A table of the layers with their output shapes for one row and their parameters, and the totals of one
    network and of all members."""
    counts = network.parameters_by_layer
    rows = [("layer", "output", "parameters"), ("inputs", _text(network.input_shape), "")]
    if network.entry is not None:
        entered = f"{counts.get(ENTRY, 0):,}"
        rows.append((network.entry.type, _text(network.shapes[0]), entered))
    for number, layer in enumerate(network.layers):
        kind = getattr(layer, "activation", None)
        name = getattr(kind, "type", kind)
        words = f"{number} {layer.type}{'' if name in (None, 'linear') else f' ({name})'}"
        words += f" {layer.name!r}" if layer.enters else ""
        rows.append((words, _text(network.shapes[number + 1]), f"{counts.get(number, 0):,}"))
    rows.append(("in all", "", f"{network.parameter_count:,} {network.dtype}"))
    if members > 1:
        rows.append((f"{members} members", "", f"{members * network.parameter_count:,} {network.dtype}"))
    first, second, third = (max(map(len, column)) for column in zip(*rows, strict=True))
    lines = [f"{a:<{first}}  {b:<{second}}  {c:>{third}}".rstrip() for a, b, c in rows]
    return "\n".join([lines[0], "-" * (first + second + third + 4), *lines[1:]])


def _text(shape: Shape) -> str:
    return " x ".join(map(str, shape))
