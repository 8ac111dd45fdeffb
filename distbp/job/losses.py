"""The field `loss` of a job: one loss, or a mapping from the names of output layers to losses."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from pydantic import Field, GetJsonSchemaHandler, ValidationError
from pydantic_core import CoreSchema, InitErrorDetails, core_schema

from distbp.core.errors import MOST_FAULTS
from distbp.job.faults import JobPart, details, line, raised
from distbp.job.kinds import PLACE, Kind, Number, plain
from distbp.nn.losses import LOSSES
from distbp.nn.losses.several import Losses, OutputLoss

MOST_OUTPUTS = 1000
FACTOR = "factor"


class Weighed(JobPart):
    """The field that each of several losses has besides its options."""

    factor: Number = Field(default=1.0, ge=0, description="of this loss in the sum of all")


class LossKind(Kind):
    """Holds a loss, or `Losses`. In a mapping of losses each may have a `factor` besides its options."""

    def validate(self, value: Any) -> Any:
        if isinstance(value, Losses):
            given = {output.name: (output.loss, output.factor) for output in value.outputs}
        elif outputs_in(value):
            given = {name: _factor_apart(loss) for name, loss in value.items()}
        else:
            return super().validate(value)
        if len(given) > MOST_OUTPUTS:
            text = f"must be a mapping of at most {MOST_OUTPUTS} outputs, not of {len(given)}"
            raise raised(self.what, [line((), text, value)])
        outputs: list[OutputLoss] = []
        lines: list[InitErrorDetails] = []
        for name in sorted(given, key=str):
            fields, factor = given[name]
            if not isinstance(name, str):
                lines.append(line((name,), "keys must be the names of layers", value))
                continue
            try:
                loss, weighed = super().validate(fields), Weighed(factor=factor)
            except ValidationError as error:
                lines += [line((name, *e["loc"]), e["msg"], e.get("input")) for e in details(error)]
            else:
                outputs.append(OutputLoss(name, loss, weighed.factor))
        if lines:
            raise raised(self.what, lines[:MOST_FAULTS])
        return Losses(tuple(outputs))

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            self.validate, serialization=core_schema.plain_serializer_function_ser_schema(written)
        )

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        single: dict[str, Any] = {"$ref": PLACE + self.name}
        weighed = {
            "type": "object",
            "required": [self.key, FACTOR],
            "properties": {
                self.key: {"enum": sorted(self.table), "description": "which loss"},
                **Weighed.model_json_schema()["properties"],
            },
        }
        return {
            "anyOf": [
                single,
                {"type": "object", "minProperties": 1, "additionalProperties": {"anyOf": [single, weighed]}},
            ]
        }


def outputs_in(value: Any) -> tuple[Any, ...]:
    """The names of outputs in a job's unchecked `loss`: the keys of a mapping without `type` whose values may
    be losses. () for a single loss."""
    if not isinstance(value, Mapping) or "type" in value:
        return ()
    losses = all(isinstance(loss, str | Mapping) or type(loss) in LOSSES.values() for loss in value.values())
    return tuple(value) if losses else ()


def _factor_apart(value: Any) -> tuple[Any, Any]:
    """Splits a loss, as a job writes it, into the loss without its factor, and the factor."""
    if not isinstance(value, Mapping) or FACTOR not in value:
        return value, 1.0
    return {name: inner for name, inner in value.items() if name != FACTOR}, value[FACTOR]


def written(loss: Any) -> Any:
    """A loss, or losses, as plain values for JSON and YAML."""
    if isinstance(loss, Losses):
        return {output.name: {**plain(output.loss), FACTOR: output.factor} for output in loss.outputs}
    return plain(loss) if dataclasses.is_dataclass(loss) else loss
