"""Reads request bodies as strict JSON.

It refuses duplicate keys, NaN and Infinity, numbers that overflow, nesting deeper than `MAX_DEPTH`, and text
with NUL or unpaired surrogates (PostgreSQL and UTF-8 cannot store these).
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

from distbp_service.api.errors import BadJsonError
from distbp_service.errors import BadValueError

MAX_DEPTH = 32
_MAX_DIGITS = 400
# Cheap tests for bodies that need slower checks. Without a match Python's fast parsers are safe.
_LARGE = re.compile(rb"[eE]\+?[0-9]{3}|[0-9]{300}")
_ESCAPES = re.compile(rb"\\u(?:0000|[dD][89a-fA-F])")


def read_json(data: bytes) -> Any:
    """The value of a JSON body. Raises BadJsonError, and BadValueError for text with a refused character."""
    try:
        return _read(data)
    except ValueError as error:
        raise BadJsonError(f"the body {error}", "body") from None


def _read(data: bytes) -> Any:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"is not UTF-8 (byte {error.start})") from None
    hooks: dict[str, Any] = {"object_pairs_hook": _unique, "parse_constant": _no_constant}
    if _LARGE.search(data):
        hooks |= {"parse_int": _integer, "parse_float": _finite}
    try:
        value = json.loads(text, **hooks)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise ValueError(f"is not valid JSON: {error.msg.lower()} ({where})") from None
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    _check(value, 0, _ESCAPES.search(data) is not None)
    return value


_TOO_DEEP = f"is nested deeper than {MAX_DEPTH} levels"


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"has the key {twice[:100]!r} twice in one object; keep one of them")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"holds {name}, which is not JSON")


def _integer(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise ValueError(f"has a number of {len(text)} digits")
    return int(text)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"has a number that is too large ({text[:30]})")
    return value


def _check(value: Any, depth: int, texts: bool) -> None:
    if depth > MAX_DEPTH:
        raise ValueError(_TOO_DEEP)
    if isinstance(value, dict):
        for key, inner in value.items():
            if texts:
                _check_text(key)
            if isinstance(inner, dict | list | str):
                _check(inner, depth + 1, texts)
    elif isinstance(value, list):
        for inner in value:
            if isinstance(inner, dict | list | str):
                _check(inner, depth + 1, texts)
    elif texts and isinstance(value, str):
        _check_text(value)


def _check_text(text: str) -> None:
    if "\0" in text or any("\ud800" <= c <= "\udfff" for c in text):
        raise BadValueError("the body has text with a NUL character or half a surrogate pair", "body")
