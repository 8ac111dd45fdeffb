"""Checks the lists of names and numbers in a model.json, which is not trusted."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from distbp.data.several_targets import AllClasses
from distbp.nn.losses.several import Head, Heads

_EACH = MappingProxyType({"classes": "class", "class_weights": "output", "columns": "input"})


def classes_in(given: Any, heads: Heads) -> AllClasses:
    """The names of the classes; with several outputs, by the outputs' names. Raises ValueError."""
    if heads.several:
        if not isinstance(given, dict) or set(given) != {head.name for head in heads}:
            raise ValueError("classes is not a mapping from the outputs")
        return {head.name: _own_classes(given[head.name], head) for head in heads}
    return _own_classes(given, heads.all[0])


def _own_classes(given: Any, head: Head) -> tuple[Any, ...] | None:
    outputs = head.outputs[1]
    named = 2 if head.loss.task == "binary" and outputs == 1 else outputs
    check_list("classes", given, (str, int, float, bool), named)
    if given is not None and len({isinstance(name, str) for name in given}) > 1:
        raise ValueError("classes holds text and numbers")
    return None if given is None else tuple(given)


def check_list(name: str, listed: Any, kinds: tuple[type, ...], count: int) -> None:
    """Raises ValueError if `listed` is neither None nor a list of `count` values of these kinds, or if it has
    a name twice."""
    if listed is not None and (not is_list(listed, kinds) or len(listed) != count):
        raise ValueError(f"{name} is not a list of {count}, one for each {_EACH[name]}")
    if listed is not None and name != "class_weights" and len(set(listed)) < count:
        raise ValueError(f"{name} has a name twice")


def is_list(value: Any, kinds: tuple[type, ...]) -> bool:
    return isinstance(value, list) and all(
        isinstance(v, kinds) and (bool in kinds or not isinstance(v, bool)) and v == v for v in value
    )
