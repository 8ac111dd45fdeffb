"""The field `loss` of a job: one loss, or a mapping from the names of output layers to losses."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from pydantic import GetJsonSchemaHandler, ValidationError
from pydantic_core import CoreSchema, InitErrorDetails, core_schema

from distbp.core.errors import MOST_FAULTS
from distbp.job.faults import details, line, nearest, raised, shown
from distbp.job.kinds import PLACE, Kind, plain
from distbp.nn.losses import LOSSES
from distbp.nn.losses.several import Losses, OutputLoss

MOST_OUTPUTS = 1000
FACTOR = "factor"
_FACTOR_HELP = "of this loss in the sum of all, at least 0"


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
                loss = super().validate(one)
            except ValidationError as error:
                lines += [line((name, *e["loc"]), e["msg"], e.get("input")) for e in details(error)]
                continue
            problem = _factor_fault(factor)
            if problem:
                lines.append(line((name, FACTOR), problem, factor))
            else:
                found.append(OutputLoss(name, loss, float(factor)))
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
                FACTOR: {"type": "number", "minimum": 0, "description": _FACTOR_HELP},
            },
        }
        return {
            "anyOf": [
                one,
                {"type": "object", "minProperties": 1, "additionalProperties": {"anyOf": [one, weighed]}},
            ]
        }


def outputs_in(value: Any) -> tuple[Any, ...]:
    """The names of outputs in what a job writes as its loss, right or wrong; () where it is one loss."""
    if not isinstance(value, Mapping) or "type" in value:
        return ()
    if any(isinstance(one, Mapping) or type(one) in LOSSES.values() for one in value.values()):
        return tuple(value)
    names = all(isinstance(one, str) and one in LOSSES for one in value.values())
    near = any(isinstance(key, str) and nearest(key, ["type"]) for key in value)
    return tuple(value) if names and not near else ()


def _factor_apart(value: Any) -> tuple[Any, Any]:
    """A loss as a job writes it, without its factor; and that."""
    if not isinstance(value, Mapping) or FACTOR not in value:
        return value, 1.0
    return {name: inner for name, inner in value.items() if name != FACTOR}, value[FACTOR]


def _factor_fault(factor: Any) -> str:
    if isinstance(factor, bool) or not isinstance(factor, int | float) or factor != factor:
        return f"must be a number, at least 0, not {shown(factor)}"
    return "" if 0 <= factor < float("inf") else f"must be at least 0 and finite, not {shown(factor)}"


def written(loss: Any) -> Any:
    """A loss, or losses, as plain values, from which the same ones are made."""
    if isinstance(loss, Losses):
        return {one.name: {**plain(one.loss), FACTOR: one.factor} for one in loss.outputs}
    return plain(loss) if dataclasses.is_dataclass(loss) else loss
