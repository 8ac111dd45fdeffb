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
    """What each of several losses has beside its options."""

    factor: Number = Field(default=1.0, ge=0, description="of this loss in the sum of all")


class LossKind(Kind):
    """Holds a loss, or `Losses`. In a mapping of losses each may have a `factor` beside its options."""

    def validate(self, value: Any) -> Any:
        if isinstance(value, Losses):
            given = {one.name: (one.loss, one.factor) for one in value.outputs}
        elif outputs_in(value):
            given = {name: _factor_apart(one) for name, one in value.items()}
        else:
            return super().validate(value)
        if len(given) > MOST_OUTPUTS:
            text = f"must be a mapping of at most {MOST_OUTPUTS} outputs, not of {len(given)}"
            raise raised(self.what, [line((), text, value)])
        found: list[OutputLoss] = []
        lines: list[InitErrorDetails] = []
        for name in sorted(given, key=str):
            one, factor = given[name]
            if not isinstance(name, str):
                lines.append(line((name,), "keys must be the names of layers", value))
                continue
            try:
                loss, weighed = super().validate(one), Weighed(factor=factor)
            except ValidationError as error:
                lines += [line((name, *e["loc"]), e["msg"], e.get("input")) for e in details(error)]
            else:
                found.append(OutputLoss(name, loss, weighed.factor))
        if lines:
            raise raised(self.what, lines[:MOST_FAULTS])
        return Losses(tuple(found))

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            self.validate, serialization=core_schema.plain_serializer_function_ser_schema(written)
        )

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        one: dict[str, Any] = {"$ref": PLACE + self.name}
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
                one,
                {"type": "object", "minProperties": 1, "additionalProperties": {"anyOf": [one, weighed]}},
            ]
        }


def outputs_in(value: Any) -> tuple[Any, ...]:
    """The names of outputs in what a job writes as its loss, right or wrong: the keys of a mapping without
    `type` whose values may be losses. () where it is one loss."""
    if not isinstance(value, Mapping) or "type" in value:
        return ()
    losses = all(isinstance(one, str | Mapping) or type(one) in LOSSES.values() for one in value.values())
    return tuple(value) if losses else ()


def _factor_apart(value: Any) -> tuple[Any, Any]:
    """A loss as a job writes it, without its factor; and that."""
    if not isinstance(value, Mapping) or FACTOR not in value:
        return value, 1.0
    return {name: inner for name, inner in value.items() if name != FACTOR}, value[FACTOR]


def written(loss: Any) -> Any:
    """A loss, or losses, as plain values, from which the same ones are made."""
    if isinstance(loss, Losses):
        return {one.name: {**plain(one.loss), FACTOR: one.factor} for one in loss.outputs}
    return plain(loss) if dataclasses.is_dataclass(loss) else loss
