"""Sets fields of a job by texts such as `optimizer.learning_rate=0.01`: a path as in faults and
`docs/job.md`, with layers by their numbers, and a value in YAML."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from distbp.core.errors import Fault, JobError
from distbp.job.faults import shown, unknown
from distbp.job.recipes import RECIPES
from distbp.job.text import read_yaml
from distbp.job.training_job import TrainingJob

_SHORT = {"train": "format", "validation": "format", "test": "format"}  # keys for names alone; else "type"


def overridden(fields: Any, settings: Iterable[str], source: str) -> Any:
    """The fields of a job, as they were read, with the `path=value` of each setting put in. The result is not
    checked. Raises JobError with every setting whose path does not exist."""
    faults = []
    for setting in settings:
        path, equals, text = setting.partition("=")
        keys = path.strip().split(".")
        if not equals or not all(keys):
            text = f"{shown(setting)} is not PATH=VALUE, for example optimizer.learning_rate=0.01"
            faults.append(Fault("", text))
            continue
        try:
            value = read_yaml(text, path)
        except JobError as error:
            faults += [Fault(path.strip(), fault.message) for fault in error.faults]
            continue
        try:
            fields = _with(fields if isinstance(fields, Mapping) else {}, keys, value, ())
        except _NoPlaceError as error:
            faults.append(Fault(path.strip(), str(error)))
    if faults:
        raise JobError(faults, source)
    return fields


class _NoPlaceError(Exception):
    """The message is for the user."""


def _with(value: Any, keys: list[str], new: Any, above: tuple[str, ...]) -> Any:
    """A copy of `value`, which is at the path `above`, with `new` at the path `keys` in it."""
    if not keys:
        return new
    key, *rest = keys
    if isinstance(value, list | tuple):
        if not key.isdecimal() or int(key) >= len(value):
            raise _NoPlaceError(
                f"{'.'.join(above)} is a list of {len(value)}, whose items are named 0 to {len(value) - 1}"
            )
        number = int(key)
        changed = _with(value[number], rest, new, (*above, key))
        return [*value[:number], changed, *value[number + 1 :]]
    if isinstance(value, str):  # the name of a kind, with default options
        kind = "kind" if "columns" in above else _SHORT.get(above[-1], "type")
        value = {kind: value}
    if not above:
        if key not in TrainingJob.model_fields:
            raise _NoPlaceError(unknown(key, TrainingJob.model_fields))
        if rest and value.get(key) is None:
            value = {**value, key: _default(key, value)}
    if not isinstance(value, Mapping):
        raise _NoPlaceError(f"{'.'.join(above)} is {shown(value)}, which has no fields")
    for count in range(len(keys), 1, -1):  # the name of a column may have dots
        if (name := ".".join(keys[:count])) in value:
            key, rest = name, keys[count:]
            break
    inner = value.get(key)
    return {**value, key: _with({} if inner is None else inner, rest, new, (*above, key))}


def _default(name: str, job: Mapping[str, Any]) -> dict[str, Any]:
    """The value of a field that the job leaves out: a mapping with its default type, if it has one."""
    model = job.get("model")
    if isinstance(model, Mapping) and model.get("recipe") in RECIPES:
        return {}  # the recipe chooses the type
    kind = getattr(TrainingJob.model_fields[name].default, "type", None)
    return {} if kind is None else {"type": kind}
