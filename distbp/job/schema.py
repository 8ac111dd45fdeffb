"""The JSON Schema of a job (draft 2020-12), which an editor can use for completion and checking.

The kinds (layers, losses, ...) are definitions of their own: a name alone if every option has a default, or a
mapping with the options. The schema has no checks between fields; `distbp validate` has.
"""

from __future__ import annotations

from typing import Any

from distbp.job.kinds import PLACE, Kind
from distbp.job.tables import TABLES
from distbp.job.training_job import TrainingJob

DRAFT = "https://json-schema.org/draft/2020-12/schema"
# Tables whose rows are options of their own; the name of one row in messages, and the key that names it.
KINDS = {
    "formats": Kind("formats", "data format", TABLES, "format"),
    "columns": Kind("columns", "column kind", TABLES, "kind"),
    **{
        name: Kind(name, name.removesuffix("s"), TABLES)
        for name in ("initializers", "layers", "optimizers", "schedules")
    },
    "losses": Kind("losses", "loss", TABLES),
}


def job_schema() -> dict[str, Any]:
    """The schema as plain values; every property has a description."""
    schema = TrainingJob.model_json_schema()
    definitions: dict[str, Any] = schema.pop("$defs", {})
    for name, kind in KINDS.items():
        members = []
        for row in sorted(kind.table):
            model = kind.model(row)
            definition = model.model_json_schema()
            definitions.update(definition.pop("$defs", {}))
            definitions[model.__name__] = definition
            members.append({"$ref": f"#/$defs/{model.__name__}"})
        words = {"enum": kind.short, "description": f"{kind.what}s whose options all have defaults"}
        definitions[name] = {"anyOf": [words, *members]}
    whole: dict[str, Any] = _placed({"$schema": DRAFT, **schema, "$defs": dict(sorted(definitions.items()))})
    return whole


# The names of bounds that pydantic writes behind a validator function -> their names in JSON Schema.
_BOUNDS = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}


def _placed(value: Any) -> Any:
    """The schema with the real places of the kinds and JSON Schema's names of bounds."""
    if isinstance(value, dict):
        return {
            _BOUNDS.get(k, k): v.replace(PLACE, "#/$defs/")
            if k == "$ref" and isinstance(v, str)
            else _placed(v)
            for k, v in value.items()
        }
    return [_placed(v) for v in value] if isinstance(value, list) else value
