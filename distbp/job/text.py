"""Reads a job's text: JSON, and YAML without its dangerous parts.

An error with the line refuses anchors and aliases (a page of them can stand for terabytes), tags (they name
Python objects), keys written twice (one value would be lost silently), more than one document, nesting deeper
than `MAX_DEPTH`, more than `MAX_BYTES`.

Unquoted values follow YAML 1.2's core schema, not PyYAML's 1.1: `1e-3` is a number, `on` and `no` are text,
`010` is ten, `12:30` is text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from distbp.core.arguments import path_given
from distbp.core.errors import Fault, JobError, cut

MAX_BYTES = 1 << 20
MAX_DEPTH = 32
_MAX_DIGITS = 400
_SHOWN = 60  # characters of a key, a tag or an anchor that a message shows

_INTEGER = re.compile(r"[-+]?[0-9]+\Z")
_HEXADECIMAL = re.compile(r"0x[0-9a-fA-F]+\Z")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z")
_SPECIAL = re.compile(r"[-+]?\.(inf|Inf|INF)\Z|\.(nan|NaN|NAN)\Z")
_WORDS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}

# libyaml's parser is about ten times faster than PyYAML's own, and hostile text should cost little.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _RefusedError(Exception):
    """The text is refused; the message is for the user."""


def read_file(path: str | Path) -> Any:
    """The content of a file: mappings, lists, text, numbers, true, false, None. `.json` is JSON, any other
    name YAML. Raises JobError, naming the file.
    """
    path = path_given(path, "the job's file")
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise _fault(f"cannot be read: {(error.strerror or str(error)).lower()}", str(path)) from None
    if len(raw) > MAX_BYTES:
        raise _fault(f"is larger than {MAX_BYTES} bytes, the most that a job may have", str(path))
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _fault(f"is not UTF-8 text (byte {error.start})", str(path)) from None
    read = read_json if path.suffix.lower() == ".json" else read_yaml
    return read(text, str(path))


def read_json(text: str, source: str = "the job") -> Any:
    """The value of JSON text. Raises JobError for invalid JSON, NaN, Infinity, or keys written twice."""
    _check_size(text, source)
    try:
        value = json.loads(
            text,
            object_pairs_hook=_unique,
            parse_constant=_no_constant,
            parse_int=lambda text: _integer(text, ""),
        )
        _check_depth(value, 0)
        return value
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise _fault(f"is not valid JSON: {error.msg.lower()} ({where})", source) from None
    except RecursionError:
        raise _fault(f"is nested deeper than {MAX_DEPTH} levels", source) from None
    except (_RefusedError, ValueError) as error:
        raise _fault(str(error), source) from None


def read_yaml(text: str, source: str = "the job") -> Any:
    """The value of YAML text. Raises JobError for invalid YAML and for parts that are refused (see above)."""
    _check_size(text, source)
    try:
        return _document(yaml.parse(text, Loader=_Loader))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" ({_place(mark)})" if mark else ""
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
        raise _fault(f"is not valid YAML: {problem}{where}", source) from None
    except _RefusedError as error:
        raise _fault(str(error), source) from None


def _fault(message: str, source: str) -> JobError:
    return JobError([Fault("", message)], source)


def _check_size(text: str, source: str) -> None:
    if not isinstance(text, str):
        raise _fault(f"must be given as text, not as a value of type {type(text).__name__}", source)
    # A character has at most four bytes, so the bytes of short text need not be counted.
    if len(text) > MAX_BYTES // 4 and len(text.encode("utf-8", "replace")) > MAX_BYTES:
        raise _fault(f"is larger than {MAX_BYTES} bytes, the most that a job may have", source)


def _place(mark: Any) -> str:
    return f"line {mark.line + 1}, column {mark.column + 1}"


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _RefusedError(
                f"the key {cut(str(key), _SHOWN)!r} is written twice in one mapping; keep one of them"
            )
        found[key] = value
    return found


def _integer(text: str, where: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise _RefusedError(f"has a number of {len(text)} digits{where}")
    return int(text, 16) if text.startswith("0x") else int(text)


def _check_depth(value: Any, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise _RefusedError(f"is nested deeper than {MAX_DEPTH} levels")
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _check_depth(inner, depth + 1)


def _no_constant(name: str) -> Any:
    raise _RefusedError(f"{name} is not a number that a job can use")


def _document(events: Iterator[Any]) -> Any:
    value: Any = None
    documents = 0
    for event in events:
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise _RefusedError(f"holds more than one document ({_place(event.start_mark)}); keep one")
        elif isinstance(event, yaml.NodeEvent):
            value = _node(event, events, 0)
    return value


def _node(event: Any, events: Iterator[Any], depth: int) -> Any:
    where = _place(event.start_mark)
    if depth > MAX_DEPTH:
        raise _RefusedError(f"is nested deeper than {MAX_DEPTH} levels ({where})")
    if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
        raise _RefusedError(
            f"uses an anchor or alias ({cut(event.anchor, _SHOWN)!r}, {where}); write the value out"
        )
    if event.tag not in (None, "!"):
        raise _RefusedError(f"uses a tag ({cut(event.tag, _SHOWN)!r}, {where}); write plain values only")
    if isinstance(event, yaml.ScalarEvent):
        return _scalar(event, where)
    if isinstance(event, yaml.SequenceStartEvent):
        items = []
        while not isinstance(item := next(events), yaml.SequenceEndEvent):
            items.append(_node(item, events, depth + 1))
        return items
    found: dict[Any, Any] = {}
    while not isinstance(item := next(events), yaml.MappingEndEvent):
        key = _node(item, events, depth + 1)
        place = _place(item.start_mark)
        if not isinstance(key, str | int) or isinstance(key, bool):
            raise _RefusedError(f"has a key that is neither text nor a whole number ({place})")
        if isinstance(key, int) and abs(key) >> 53:  # multiples of 2^61 - 1 have one hash: minutes for a page
            raise _RefusedError(f"has a number of more than 53 bits for a key ({place})")
        if key in found:
            raise _RefusedError(
                f"has the key {cut(str(key), _SHOWN)!r} twice in one mapping ({place}); keep one of them"
            )
        found[key] = _node(next(events), events, depth + 1)
    return found


def _scalar(event: Any, where: str) -> Any:
    text: str = event.value
    if event.style not in (None, ""):  # quoted, or a block of text
        return text
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.match(text) or _HEXADECIMAL.match(text):
        return _integer(text, f" ({where})")
    if _FLOAT.match(text):
        return float(text)
    return float(text.replace(".", "", 1)) if _SPECIAL.match(text) else text


class _Dumper(yaml.SafeDumper):
    """Quotes text that `read_yaml` would take for a number; PyYAML knows only YAML 1.1's numbers."""


for _pattern in (_INTEGER, _HEXADECIMAL, _FLOAT, _SPECIAL):
    _Dumper.add_implicit_resolver("tag:yaml.org,2002:float", _pattern, list("-+.0123456789"))


def write_yaml(value: Any) -> str:
    """YAML text that `read_yaml` turns into an equal value."""
    return yaml.dump(
        value, Dumper=_Dumper, sort_keys=False, default_flow_style=None, width=100, allow_unicode=True
    )
