"""Tensors that several layers use. One layer owns such a tensor; the others name it (`shares: out.weight`).

Its gradient is the sum of the parts that its users compute.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from distbp.nn.layers.base import Layer, Shape
from distbp.nn.tape import Ref, Tape
from distbp.nn.wiring import Problem, unknown_name

Shapes = Mapping[str, Shape]  # the shapes of a layer's parameters, by name
Sharing = Mapping[tuple[int, str], int]  # (layer, parameter) -> the layer that owns the tensor


def parameter_shapes(layer: Layer, inputs: Sequence[Shape | None]) -> dict[str, Shape] | None:
    """The shapes of a layer's parameters, by name; None if an input's shape is not known or does not fit."""
    known = [shape for shape in inputs if shape is not None]
    if len(known) < len(inputs) or layer.joins != (len(inputs) > 1):
        return None
    try:
        layer.output_shape(*known)  # raises ValueError if a shape does not fit
        return {spec.name: spec.shape for spec in layer.parameters(*known)}
    except ValueError:
        return None


def share(
    layers: Sequence[Layer],
    shapes: Sequence[Shapes | None],
    unknown: Callable[[str, Iterable[str]], str] = unknown_name,
) -> tuple[dict[tuple[int, str], int], list[Problem]]:
    """Returns the owner of each tensor that a layer shares (see `Sharing`), and every fault in the layers'
    `shares`.

    `shapes`: for each layer, the shapes of its parameters; None: not known. `unknown`: as in `wiring.wire`.
    """
    numbers = {layer.name: number for number, layer in enumerate(layers) if layer.name is not None}
    taken = {
        (number, text.rpartition(".")[2]) for number, layer in enumerate(layers) for text, _ in _said(layer)
    }
    found: dict[tuple[int, str], int] = {}
    problems: list[Problem] = []
    for number, layer in enumerate(layers):
        for text, place in _said(layer):
            name, _, tensor = text.rpartition(".")
            path = f"{number}.{place}"
            if not name or not tensor:
                words = f"{text!r} must be the name of a layer and of its tensor, such as out.weight"
                problems.append(Problem(path, words))
            elif not numbers:
                words = f"{name!r} is not known: no layer has a name; give that one a name"
                problems.append(Problem(path, words))
            elif name not in numbers:
                problems.append(Problem(path, unknown(name, numbers)))
            elif problem := _problem(layers, shapes, taken, number, numbers[name], tensor, unknown):
                problems.append(Problem(path, problem))
            elif (number, tensor) in found:
                problems.append(Problem(path, f"{tensor!r} is shared twice; name it once"))
            else:
                found[number, tensor] = numbers[name]
    return found, problems


def _said(layer: Layer) -> Iterator[tuple[str, str]]:
    """Yields each name that a layer shares, and its path in the layer, such as `shares.0`."""
    if isinstance(layer.shares, str):
        yield layer.shares, "shares"
    else:
        for place, text in enumerate(layer.shares or ()):
            yield text, f"shares.{place}"


def _problem(
    layers: Sequence[Layer],
    shapes: Sequence[Shapes | None],
    taken: set[tuple[int, str]],
    number: int,
    owner: int,
    tensor: str,
    unknown: Callable[[str, Iterable[str]], str],
) -> str:
    if owner == number:
        return "names the layer itself; name another one"
    if (owner, tensor) in taken:
        return f"layer {owner} shares its {tensor!r} too; name the layer that has it"
    own, theirs = shapes[number], shapes[owner]
    for of, there in ((number, own), (owner, theirs)):
        if there is not None and tensor not in there:
            called = f"layer {of} ({layers[of].type})"
            return f"of {called}, {unknown(tensor, there)}" if there else f"{called} has no parameters"
    if own is not None and theirs is not None and own[tensor] != theirs[tensor]:
        mine, yours = (list(there[tensor]) for there in (own, theirs))
        return f"layer {owner} has {tensor!r} of shape {yours}, but here it is of shape {mine}"
    return ""


def sharing_of(layers: Sequence[Layer], shapes: Sequence[Shapes | None]) -> Sharing:
    """The owners that `share` returns. Raises ValueError, whose message lists every fault."""
    found, problems = share(layers, shapes)
    if problems:
        raise ValueError("; ".join(f"layer {problem.place}: {problem.message}" for problem in problems))
    return found


def users_of(sharing: Sharing) -> dict[tuple[int, str], list[int]]:
    """For each tensor that several layers use, by (owner, parameter): the owner, then the others in order."""
    users: dict[tuple[int, str], list[int]] = {}
    for (user, name), owner in sorted(sharing.items()):
        users.setdefault((owner, name), [owner]).append(user)
    return dict(sorted(users.items()))


Uses = Sequence[tuple[str, Sequence[int], Ref]]  # a tensor's name, its users, the place of its gradient


def part_buffers(tape: Tape, shared: Uses) -> dict[tuple[int, str], Ref]:
    """A buffer for each user's part of a shared tensor's gradient, by layer and name. Buffers are kept."""
    parts = {
        (user, name): tape.work(place.columns, 0, place.plus)
        for name, users, place in shared
        for user in users
    }
    tape.keep(*parts.values())
    return parts


def join_parts(tape: Tape, shared: Uses, parts: Mapping[tuple[int, str], Ref]) -> None:
    """Emits the ops that add up the parts of each shared tensor's gradient, user after user."""
    for name, users, place in shared:
        first, *others = (parts[user, name] for user in users)
        for other in others:
            tape.emit("add", first, other, place)
            first = place
