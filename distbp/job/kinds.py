"""The adapter between the tables of kinds (layers, losses, optimizers, ...) and pydantic.

A kind is a frozen dataclass whose options are described by `distbp.core.options.option`. `kind(table)` gives
the annotation of a field that holds one of them. The field takes

    {type: he_normal}             a mapping; the other keys are the options
    he_normal                     a name alone, where every option has a default
    HeNormal()                    an instance, from Python; its options are checked as well

and always holds an instance of the dataclass. An option that holds another kind (a layer's initializer, a
warm-up's next schedule) names its table by `choices=`, and takes the same three spellings.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import types
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Discriminator,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    Tag,
    create_model,
)
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from distbp.core.errors import MOST_FAULTS
from distbp.core.options import REQUIRED, OptionError
from distbp.job.faults import JobPart, Words, line, nearest, raised, shown, unknown

Tables = Mapping[str, Mapping[str, Any]]
# A stand-in for the place of a table's kinds in a JSON Schema; `distbp.job.schema` puts in the real place.
PLACE = "https://distbp.invalid/kinds/"


def _whole(value: Any) -> Any:
    """10.0 is the whole number 10; true, text and 10.5 are not whole numbers."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        if isinstance(value, float) and value.is_integer():
            return int(value)
        raise _refused("a whole number", value)
    return value.__index__()


def _number(value: Any) -> Any:
    if (
        isinstance(value, bool | str | bytes)
        or not hasattr(value, "__float__")
        or getattr(value, "ndim", None)
    ):
        raise _refused("a number", value)
    try:
        return float(value)
    except OverflowError:
        raise _refused("a number", value) from None


def _refused(wanted: str, value: Any) -> PydanticCustomError:
    return PydanticCustomError("wrong_type", "{text}", {"text": f"must be {wanted}, not {shown(value)}"})


Whole = Annotated[int, BeforeValidator(_whole), Words("a whole number")]
Number = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False), Words("a number")]
Flag = Annotated[bool, Field(strict=True)]
Text = Annotated[str, Field(strict=True)]

_SCALARS: Mapping[Any, Any] = types.MappingProxyType({int: Whole, float: Number, bool: Flag, str: Text})


class Kind:
    """Metadata that makes a field hold an instance of one of the dataclasses of a table.

    `key` is the job's name for the field `type` (`format` for data). Models are made when they are first
    needed, because there are dozens, and because schedules hold schedules.
    """

    def __init__(self, name: str, what: str, tables: Tables, key: str = "type") -> None:
        self.name = name
        self.what = what
        self.key = key
        self.table: Mapping[str, type] = tables[name]
        self._tables = tables
        self._models: dict[str, type[BaseModel]] = {}

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        # Not a union of pydantic's, which would put its tags into the paths of errors.
        return core_schema.no_info_plain_validator_function(
            self.validate,
            serialization=core_schema.plain_serializer_function_ser_schema(
                lambda value: plain(value, self.key) if dataclasses.is_dataclass(value) else value
            ),
        )

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"$ref": PLACE + self.name}

    def model(self, name: str) -> type[BaseModel]:
        """The pydantic model of one row of the table: the same fields, with their bounds and help."""
        if name not in self._models:
            self._models[name] = _model(name, self.table[name], self.what, self._tables, self.key)
        return self._models[name]

    @property
    def short(self) -> list[str]:
        """The names that may stand alone, because every option has a default."""
        return sorted(name for name, cls in self.table.items() if not _required(cls))

    @property
    def allowed(self) -> str:
        return f"the name of {article(self.what)}, or a mapping with its {self.key} and options"

    def validate(self, value: Any) -> Any:
        """The instance that `value` describes. Raises pydantic's ValidationError with every fault."""
        name, options = self._read(value)
        checked = self.model(name).model_validate({**options, self.key: name})
        fields = {f: getattr(checked, f) for f in type(checked).model_fields if f != self.key}
        try:
            return self.table[name](**fields)
        except OptionError as error:
            raise raised(self.what, [line((error.field,), str(error), value)]) from None
        except ValueError as error:  # options that the dataclass refuses together
            raise raised(self.what, [line((), f"{name}: {error}", value)]) from None

    def _read(self, value: Any) -> tuple[str, dict[Any, Any]]:
        """The name and the options that `value` gives."""
        if dataclasses.is_dataclass(value) and type(value) in self.table.values():
            options = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
            return options.pop("type"), options
        if isinstance(value, str):
            if value not in self.table:
                raise raised(self.what, [line((), unknown(value, self.table), value)])
            return value, {}
        if not isinstance(value, Mapping):
            raise raised(self.what, [line((), f"must be {self.allowed}, not {shown(value)}", value)])
        options = dict(value)
        known = f"known: {', '.join(sorted(self.table))}"
        if self.key not in options:
            keys = [k for k in options if isinstance(k, str)][:MOST_FAULTS]
            near = next((k for k in keys if k == "type" or nearest(k, [self.key])), None)
            if near is None:
                raise raised(
                    self.what, [line((self.key,), f"is required (which {self.what}); {known}", value)]
                )
            text = f"{shown(near)} is not known; did you mean {self.key!r}?"
            raise raised(self.what, [line((near,), text, value)])
        name = options.pop(self.key)
        if not isinstance(name, str):
            text = f"must be the name of {article(self.what)}, not {shown(name)}; {known}"
            raise raised(self.what, [line((self.key,), text, value)])
        if name not in self.table:
            raise raised(self.what, [line((self.key,), unknown(name, self.table), name)])
        return name, options


def article(what: str) -> str:
    return f"an {what}" if what[0] in "aeiou" else f"a {what}"


def _required(cls: type) -> bool:
    return any(
        f.default is REQUIRED and f.default_factory is dataclasses.MISSING for f in dataclasses.fields(cls)
    )


def _model(name: str, cls: type, what: str, tables: Tables, key: str) -> type[BaseModel]:
    """The pydantic model of one dataclass: the same fields, bounds and defaults, with descriptions."""
    hints = get_type_hints(cls)
    fields: dict[str, Any] = {key: (Literal[name], Field(description=f"which {what}"))}
    for field in dataclasses.fields(cls):
        if field.name == "type":
            continue
        bounds = dict(field.metadata.get("bounds", {}))
        choices = bounds.pop("choices", None)
        hint = hints[field.name]
        optional = type(None) in get_args(hint)
        annotation: Any
        if choices is not None:
            annotation = _choice(choices, tables, key if cls in tables[choices].values() else "type")
            if get_origin(hint) in (tuple, list):
                annotation = tuple[annotation, ...]
            annotation = annotation | None if optional else annotation
        else:
            annotation = _annotation(hint)
        if (least := bounds.pop("each", None)) is not None:
            annotation = Annotated[annotation, AfterValidator(_each_at_least(least))]
        default: dict[str, Any] = {}
        if field.default_factory is not dataclasses.MISSING:
            default["default_factory"] = field.default_factory
        elif field.default is not REQUIRED:
            default["default"] = field.default
        fields[field.name] = (
            annotation,
            Field(**default, **bounds, description=field.metadata.get("help", "")),
        )
    title = "".join(part.capitalize() for part in f"{name}_{what}".replace(" ", "_").split("_"))
    return create_model(title, __base__=JobPart, __doc__=_first_paragraph(cls), **fields)


def _each_at_least(least: int) -> collections.abc.Callable[[Any], Any]:
    """A check of a whole number or a pair of whole numbers. Text and None pass."""

    def check(value: Any) -> Any:
        numbers = value if isinstance(value, tuple) else (value,)
        if any(isinstance(number, int) and number < least for number in numbers):
            text = f"must be a whole number or a pair of them, each at least {least}, not {plain(value)}"
            raise PydanticCustomError("fault", "{text}", {"text": text})
        return value

    return check


def _first_paragraph(cls: type) -> str:
    text = cls.__doc__ or ""
    if text.startswith(f"{cls.__name__}("):  # made by @dataclass, not written by a person
        return ""
    return " ".join(text.split("\n\n")[0].split())


def _choice(choices: str, tables: Tables, key: str) -> Any:
    table = tables[choices]
    if any(isinstance(entry, type) for entry in table.values()):
        return kind(choices, choices.removesuffix("s"), tables, key)
    return one_of(table)


def one_of(names: collections.abc.Iterable[str]) -> Any:
    """An annotation for text that must be one of `names`; the JSON Schema lists them."""
    known = sorted(names)

    def check(value: Any) -> Any:
        if isinstance(value, str) and value not in known:
            raise PydanticCustomError("fault", "{text}", {"text": unknown(value, known)})
        return value

    return Annotated[Literal[tuple(known)], BeforeValidator(check), Words(f"one of {', '.join(known)}")]


def kind(name: str, what: str, tables: Tables, key: str = "type") -> Any:
    """The annotation of a field that holds a row of `tables[name]`. `what`: the word for a row, in
    messages."""
    known = Kind(name, what, tables, key)
    return Annotated[Any, known, Words(known.allowed)]


def _annotation(hint: Any) -> Any:
    """A dataclass's type hint with strict scalars: text is not a number, and true is not 1. A hint is a
    scalar, a literal, a tuple, a mapping, or a union of these."""
    if hint in _SCALARS:
        return _SCALARS[hint]
    origin = get_origin(hint)
    if origin is None or origin is Literal:
        return hint
    arguments: Any = tuple(a if a is Ellipsis else _annotation(a) for a in get_args(hint))
    if origin in (Union, types.UnionType):
        if any(get_origin(a) is collections.abc.Mapping for a in get_args(hint)):
            return _by_spelling(arguments)
        return Union.__getitem__(arguments)
    generic: Any = dict if origin is collections.abc.Mapping else origin
    return generic[arguments]


def _by_spelling(members: tuple[Any, ...]) -> Any:
    """A union of text, a mapping, and perhaps None. Faults are only those of the member that was meant."""
    some = [member for member in members if member is not type(None)]
    if len(some) == 1:
        return Union.__getitem__(members)
    tagged = [Annotated[member, Tag("mapping" if get_origin(member) is dict else "text")] for member in some]
    union: Any = Annotated[Union.__getitem__(tuple(tagged)), Discriminator(_spelling)]
    return union | None if type(None) in members else union


def _spelling(value: Any) -> str | None:
    return "mapping" if isinstance(value, Mapping) else "text" if isinstance(value, str) else None


def plain(value: Any, key: str = "type") -> Any:
    """Converts dataclass instances to mappings and tuples to lists, for JSON and YAML. Options that are None
    by default and here are left out. `key`: see `Kind`. Options that are kinds are of the same table, or
    their key is `type`."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            key if f.name == "type" else f.name: plain(getattr(value, f.name), key)
            for f in dataclasses.fields(value)
            if getattr(value, f.name) is not None or f.default is not None
        }
    if isinstance(value, Mapping):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return value
