"""Values of a job that have several spellings, such as a number or a word."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag
from pydantic_core import PydanticCustomError

from distbp.core.arguments import MAX_MEMBERS
from distbp.job.faults import JobPart, Words, at_most, native, shown
from distbp.job.kinds import Number, Whole
from distbp.job.shards import MAX_SHARDS

MAX_WEIGHTS = 10_000  # of classes


def _label(value: Any) -> int | str:
    """A class as a job writes it: a whole number or text. JSON only has text as keys, so "3" is class 3."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return int(value) if re.fullmatch(r"0|-?[1-9][0-9]{0,17}", value) else value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if not hasattr(value, "__index__"):
        raise PydanticCustomError(
            "wrong_type", f"must be a class, a whole number or text, not {shown(value)}"
        )
    return int(value)


def _once(value: Any) -> Any:
    """A mapping with classes as keys. Refuses two spellings of a class, of which one weight would be lost."""
    weights: dict[Any, Any] = {}
    for key, weight in value.items():
        label = _label(native(key))
        if label in weights:
            text = f"names class {label} twice, as a number and as text; keep one of them"
            raise PydanticCustomError("fault", "{text}", {"text": text})
        weights[label] = weight
    return weights


def _spelling(value: Any) -> str | None:
    """The tag of the union member that a value can be, so that faults are only those of this member."""
    if isinstance(value, Mapping | JobPart):
        return "mapping"
    if isinstance(value, list | tuple):
        return "list"
    if isinstance(value, str):
        return "word"
    return "number" if isinstance(value, int | float) or hasattr(value, "__index__") else None


BY_SPELLING = Discriminator(_spelling)

Weight = Annotated[Number, Field(ge=0)]
BatchSize = Annotated[
    Annotated[Whole, Field(ge=1, le=1 << 24), Tag("number")] | Annotated[Literal["full"], Tag("word")],
    BY_SPELLING,
]
Shards = Annotated[
    Annotated[Whole, Field(ge=1, le=MAX_SHARDS), Tag("number")] | Annotated[Literal["auto"], Tag("word")],
    BY_SPELLING,
]
ClassWeight = Annotated[
    Annotated[
        dict[int | str, Weight],
        Field(min_length=1),
        BeforeValidator(_once),
        at_most(MAX_WEIGHTS, "mapping"),
        Words("a mapping from class to weight"),
        Tag("mapping"),
    ]
    | Annotated[
        tuple[Weight, ...], Field(min_length=1), at_most(MAX_WEIGHTS), Words("a list of weights"), Tag("list")
    ]
    | Annotated[Literal["balanced"], Tag("word")],
    BY_SPELLING,
]
Fold = Annotated[
    Annotated[Whole, Field(ge=0, lt=MAX_MEMBERS), Tag("number")] | Annotated[Literal["each"], Tag("word")],
    BY_SPELLING,
]
