"""How a layer, loss, optimizer, schedule or data format describes its options.

Each of them is a frozen dataclass. `option()` puts the bounds and the help text of a field beside its
default, so that validation, JSON Schema, and the reference in the docs all come from one place:

    @dataclass(frozen=True)
    class Momentum:
        type: Literal["momentum"] = "momentum"
        learning_rate: float = option(0.1, gt=0, help="step size")

`registry()` makes the read-only table of such dataclasses, with the values of `type` as keys.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

REQUIRED: Any = dataclasses.MISSING


class OptionError(ValueError):
    """Options contradict each other. Raised in the `__post_init__` of a dataclass. `field`: the option at
    fault."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


def option(default: Any = REQUIRED, *, help: str, path: bool = False, **bounds: Any) -> Any:
    """A dataclass field with a default, a one-line help and bounds (`gt`, `ge`, `lt`, `le`, `min_length`;
    `each`: the least value of a whole number, or of each of a pair).

    A field without a default is required. `path`: whether the option names a file. `distbp.job` checks the
    bounds, not this function.
    """
    metadata = {"help": help, "path": path, "bounds": bounds}
    if isinstance(default, list | dict):
        return dataclasses.field(default_factory=lambda: type(default)(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def paths(kind: Any) -> tuple[str, ...]:
    """The names of the options that name files. kind: a dataclass or an instance."""
    return tuple(field.name for field in dataclasses.fields(kind) if field.metadata.get("path"))


def choosing(kind: Any, choices: str) -> tuple[str, ...]:
    """The names of the options that take a row of the table `choices`. kind: a dataclass or an instance."""
    found = dataclasses.fields(kind)
    return tuple(field.name for field in found if field.metadata.get("bounds", {}).get("choices") == choices)


def registry(*kinds: type) -> Mapping[str, type]:
    """A read-only table: the default of each dataclass's `type` field -> the dataclass. Raises ValueError if
    two dataclasses have the same one."""
    table: dict[str, type] = {}
    for kind in kinds:
        name = str(next(f.default for f in dataclasses.fields(kind) if f.name == "type"))
        if name in table:
            raise ValueError(f"two kinds are named {name!r}")
        table[name] = kind
    return MappingProxyType(table)
