"""Rewrites pydantic's errors as faults that a person can mend: the value found, what is allowed, the nearest
name.

Every part of a job derives from `JobPart`. Its validator rewrites pydantic's errors while the fields of the
part are still known. So the path of a fault has only keys that the user wrote, and no union tags or names of
validators.
"""

from __future__ import annotations

import difflib
import os
import types
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import numpy as np
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    ValidationError,
    ValidatorFunctionWrapHandler,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import InitErrorDetails, PydanticCustomError

from distbp.core.errors import MOST_FAULTS, Fault, cut

Location = tuple[int | str, ...]
_BOUNDS = {"gt": "greater than", "ge": "at least", "lt": "less than", "le": "at most"}
_SHOWN = 60


def shown(value: Any) -> str:
    """A value as a fault quotes it: short, in the spelling of YAML."""
    if value is None:
        return "null"
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    if isinstance(value, str):
        return repr(cut(value, _SHOWN))
    if isinstance(value, int | float):
        if isinstance(value, float):
            return str(int(value)) if value.is_integer() and abs(value) < 1e15 else str(value)
        return str(value) if value.bit_length() < 200 else "a very large number"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, Sequence):
        return "a list"
    return f"a {type(value).__name__}"


def unknown(value: str, known: Iterable[str]) -> str:
    """A message such as: 'momentom' is not known; did you mean 'momentum'? known: adam, momentum, sgd"""
    names = sorted(known)
    near = nearest(value, names)
    hint = f"; did you mean {near!r}?" if near else ";"
    return f"{shown(value)} is not known{hint} known: {', '.join(names)}"


def nearest(value: str, known: Iterable[str]) -> str | None:
    """The known name that `value` was most likely meant to be: the shortest one that contains it, else the
    closest; None if none is close. Case, dashes and spaces do not count."""
    names = sorted(known)
    if len(value) > _SHOWN:
        return None
    plain = value.strip().lower().replace("-", "_").replace(" ", "_")
    if plain in names:
        return plain
    longer = [name for name in names if len(plain) >= 4 and plain in name]
    candidates = longer or difflib.get_close_matches(plain, names, n=1, cutoff=0.6)
    return min(candidates, key=len, default=None)


def line(location: Location, message: str, found: Any = None) -> InitErrorDetails:
    """A fault in the form in which pydantic passes it from inner parts to outer parts."""
    return {
        "type": PydanticCustomError("fault", "{text}", {"text": message}),
        "loc": location,
        "input": found,
    }


def raised(title: str, lines: Sequence[InitErrorDetails]) -> ValidationError:
    return ValidationError.from_exception_data(title, list(lines))


def located(lines: Iterable[Mapping[str, Any]]) -> tuple[Fault, ...]:
    """The faults in pydantic's error details, each once, in order; without faults that are only counted."""
    return tuple(
        dict.fromkeys(Fault(".".join(map(str, e["loc"])), e["msg"]) for e in lines if not _counted(e))
    )


def left_out(lines: Iterable[Mapping[str, Any]]) -> int:
    """The number of faults that are only counted."""
    return sum(map(_counted, lines))


def _counted(error: Mapping[str, Any]) -> int:
    return int((error.get("ctx") or {}).get("more", 0)) if error["type"] == "fault" else 0


def details(error: ValidationError) -> list[Any]:
    return error.errors(include_url=False)


class JobPart(BaseModel):
    """A part of a job. It is immutable, refuses unknown fields, and reports every fault with its path."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(
            f"{name} cannot be set: a job and its parts do not change. job.replace(...) gives another job"
        )

    @model_validator(mode="wrap")
    @classmethod
    def _explain(cls, value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        value, more = _without_most_strange(cls, value)
        try:
            return handler(native(value))
        except ValidationError as error:
            raise raised(cls.__name__, explain(cls, value, details(error), more)) from None


def native(value: Any) -> Any:
    """Converts values of other libraries to Python's own: NumPy's scalars, arrays and types, pandas series,
    paths; also within mappings and lists."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "to_dict") and hasattr(value, "index"):  # a series, whose index has the keys
        return native(value.to_dict())
    if isinstance(value, np.dtype) or (isinstance(value, type) and issubclass(value, np.generic)):
        return np.dtype(value).name
    if hasattr(value, "tolist") and not isinstance(value, type):
        return value.tolist()
    if isinstance(value, Mapping):
        return {native(key): native(inner) for key, inner in value.items()}
    return type(value)(map(native, value)) if type(value) in (list, tuple) else value


def at_most(count: int, what: str = "list") -> BeforeValidator:
    """A validator that refuses more than `count` items before time is spent on each."""

    def check(value: Any) -> Any:
        if isinstance(value, Mapping | list | tuple) and len(value) > count:
            text = f"must be a {what} of at most {count}, not of {len(value)}"
            raise PydanticCustomError("fault", "{text}", {"text": text})
        return value

    return BeforeValidator(check)


def _without_most_strange(part: type[BaseModel], value: Any) -> tuple[Any, int]:
    """Returns `value` with at most `MOST_FAULTS` unknown keys, and the number of unknown keys removed."""
    if not isinstance(value, Mapping) or len(value) <= len(part.model_fields) + MOST_FAULTS:
        return value, 0
    strange = [key for key in value if key not in part.model_fields][MOST_FAULTS:]
    surplus = set(strange)
    return {key: inner for key, inner in value.items() if key not in surplus}, len(strange)


def explain(
    part: type[BaseModel], value: Any, errors: Sequence[Any], more: int = 0
) -> list[InitErrorDetails]:
    """Rewrites pydantic's errors about `value`, a candidate for `part`. The last line returned may only count
    further faults. more: how many further faults are known already."""
    above = {error["loc"][:n] for error in errors for n in range(len(error["loc"]))}
    named = [
        error
        for error in errors
        if not _counted(error)
        # A tuple counts as too short if its items are at fault, and these have their own faults.
        and not (error["type"] == "too_short" and error["loc"] in above)
    ]
    more += left_out(errors) + max(0, len(named) - MOST_FAULTS)
    # Finding the nearest name takes time, so only errors that will be shown are rewritten.
    lines = _rewritten(part, value, named[:MOST_FAULTS])
    if more:
        lines.append({**line((), ""), "type": PydanticCustomError("fault", "", {"more": more})})
    return lines


def _rewritten(part: type[BaseModel], value: Any, errors: Sequence[Any]) -> list[InitErrorDetails]:
    fields = part.model_fields
    if not isinstance(value, Mapping):
        return [e if e["type"] == "fault" else _wrong_kind(part, value) for e in map(_kept, errors)]
    strange = [error["loc"][0] for error in errors if error["type"] == "extra_forbidden"]
    missing = set(fields) - set(value)
    meant = {nearest(key, missing) for key in strange if isinstance(key, str)}
    lines: list[InitErrorDetails] = []
    unions: set[str] = set()
    for error in errors:
        location: Location = error["loc"]
        name = str(location[0]) if location else ""
        absent = error["type"] == "missing" and len(location) == 1
        if absent and name in meant:
            continue  # the fault of the misspelt key names this field
        if name in fields and _is_union(fields[name]) and not absent:
            if name not in unions:
                unions.add(name)
                lines += _explain_union(name, fields[name], value.get(name), errors)
            continue
        lines.append(_explained(fields, error))
    return lines


def _explain_union(name: str, field: FieldInfo, whole: Any, errors: Sequence[Any]) -> list[InitErrorDetails]:
    """Rewrites the errors of a union. Its members are tagged (see `distbp.job.parts`), so a path is (field,
    tag, place inside)."""
    exact, general = [], []
    for error in errors:
        if error["loc"][:1] != (name,):
            continue
        inside = tuple(part for part in error["loc"][2:] if part != "[key]")
        if error["type"] == "missing" and isinstance(whole, list | tuple):  # too few items
            text = f"must be {allowed_field(field)}, not a list of {len(whole)}"
            exact.append(line((name,), text, whole))
        elif inside or error["type"] in ("fault", *_LENGTHS):
            exact.append(line((name, *inside), _plain_message(error), error.get("input")))
        else:
            general.append(line((name,), f"must be {allowed_field(field)}, not {shown(whole)}", whole))
    # If items of a list are at fault, it need not be said that a list is not a number.
    return exact if exact and isinstance(whole, list | tuple) else general + exact


def _kept(error: Any) -> Any:
    return line(error["loc"], error["msg"], error.get("input")) if error["type"] == "fault" else error


def _wrong_kind(part: type[BaseModel], value: Any) -> InitErrorDetails:
    keys = ", ".join(name for name in part.model_fields)
    return line((), f"must be a mapping with keys of {keys}, not {shown(value)}", value)


def _explained(fields: Mapping[str, FieldInfo], error: Any) -> InitErrorDetails:
    location, kind, found = error["loc"], error["type"], error.get("input")
    name = str(location[0]) if location else ""
    field = fields.get(name)
    if kind == "extra_forbidden" and len(location) == 1:
        text = unknown(name, fields) if isinstance(location[0], str) else "keys must be text"
        return line(location, text, found)
    if kind == "fault" or field is None or len(location) > 1 or kind in _LENGTHS:
        return line(tuple(part for part in location if part != "[key]"), _plain_message(error), found)
    if kind == "missing":
        text = f" ({field.description})" if field.description else ""
        return line(location, f"is required{text}", found)
    return line(location, f"must be {allowed_field(field)}, not {shown(found)}", found)


_LENGTHS = ("too_short", "too_long")


def _plain_message(error: Any) -> str:
    """A message for an element of a list or mapping, whose bounds pydantic puts in `ctx`."""
    kind, found, context = error["type"], error.get("input"), error.get("ctx") or {}
    for bound, words in (
        ("greater_than_equal", "at least {ge}"),
        ("greater_than", "greater than {gt}"),
        ("less_than_equal", "at most {le}"),
        ("less_than", "less than {lt}"),
        ("too_short", "{what} of at least {min_length}, not of {actual_length}"),
        ("too_long", "{what} of at most {max_length}, not of {actual_length}"),
    ):
        if kind == bound:
            tail = "" if kind in _LENGTHS else f", not {shown(found)}"
            return f"must be {words.format(what=shown(found), **context)}{tail}"
    if kind == "invalid_key":
        return "keys must be text"
    if kind == "string_type":  # of a value in a mapping
        return f"must be text, not {shown(found)}"
    if kind in ("fault", "wrong_type"):
        return str(error["msg"])
    text = str(error["msg"]).removeprefix("Value error, ").removeprefix("Assertion failed, ")
    return f"{text[:1].lower()}{text[1:]} (found {shown(found)})"


def _members(annotation: Any) -> list[Any]:
    """The kinds of value that an annotation allows, besides None."""
    if get_origin(annotation) is Annotated:
        return _members(get_args(annotation)[0]) if _is_bare_union(get_args(annotation)[0]) else [annotation]
    if not _is_bare_union(annotation):
        return [annotation]
    return [m for a in get_args(annotation) if a is not type(None) for m in _members(a)]


def _is_bare_union(annotation: Any) -> bool:
    return get_origin(annotation) in (Union, types.UnionType)


def _is_union(field: FieldInfo) -> bool:
    """A union of several kinds of value; `X | None` is not one."""
    return len(_members(field.annotation)) > 1


def allowed_field(field: FieldInfo) -> str:
    """What a field allows, in words: "a whole number, at least 1"."""
    return allowed(field.annotation, field.metadata)


class Words:
    """Metadata of an annotation: what it allows, in words."""

    def __init__(self, text: str) -> None:
        self.text = text


_BASES: Mapping[Any, str] = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


def allowed(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    """What an annotation allows, in words."""
    for item in metadata:
        if isinstance(item, Words):
            return item.text + _bounds(metadata)
    origin = get_origin(annotation)
    if origin is Annotated:
        base, *inner = get_args(annotation)
        return allowed(base, [*inner, *metadata])
    if origin in (Union, types.UnionType):
        return ", or ".join(dict.fromkeys(allowed(a, metadata) for a in _members(annotation)))
    if origin is Literal:
        return " or ".join(repr(a) if isinstance(a, str) else shown(a) for a in get_args(annotation))
    if origin in (list, tuple):
        kinds = [a for a in get_args(annotation) if a is not Ellipsis]
        if origin is tuple and Ellipsis not in get_args(annotation):
            return f"a list of {len(kinds)}: " + ", ".join(allowed(a) for a in kinds) + _bounds(metadata)
        return f"a list, each item {allowed(kinds[0])}" if kinds else "a list"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return f"a mapping with keys of {', '.join(annotation.model_fields)}"
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        key, value = get_args(annotation)
        return f"a mapping from {allowed(key)} to {allowed(value)}"
    return _BASES.get(annotation, "another value") + _bounds(metadata, annotation)


def _bounds(metadata: Sequence[Any], annotation: Any = None) -> str:
    found = []
    flat = [
        inner for item in metadata for inner in (item.metadata if isinstance(item, FieldInfo) else [item])
    ]
    for item in flat:
        if annotation is str and getattr(item, "min_length", None):
            found.append("that is not empty")
        for name, words in _BOUNDS.items():
            limit = getattr(item, name, None)
            if limit is not None:
                found.append(f"{words} {limit:g}" if isinstance(limit, float) else f"{words} {limit}")
    return f" {' and '.join(found)}" if found else ""
