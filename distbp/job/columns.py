"""The parts of a job about the columns of a table: target, split, windows, kinds of columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from distbp.job.faults import JobPart, Words, at_most, line, raised, shown
from distbp.job.kinds import Flag, Number, Text, Whole, kind
from distbp.job.tables import TABLES

MAX_COLUMNS = 100_000

if TYPE_CHECKING:
    from distbp.data.columns.kinds import Auto as ColumnKind
else:
    ColumnKind = kind("columns", "column kind", TABLES, key="kind")


def _name(value: Any) -> Any:
    """Columns without a header are named by their numbers, which YAML reads as whole numbers."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _names(value: Any) -> Any:
    return {_name(key): inner for key, inner in value.items()} if isinstance(value, Mapping) else value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise PydanticCustomError("fault", "{text}", {"text": f"must be text, not {shown(value)}"})
    return value


ColumnName = Annotated[Text, BeforeValidator(_name), Field(min_length=1), Words("the name of a column")]


class Target(JobPart):
    """The column of a table that is predicted. Its name alone is enough."""

    column: ColumnName = Field(description="the name of the column; its number if there is no header")
    scale: Literal["none", "standard"] = Field(
        default="none",
        description="standard: values are trained with mean 0 and standard deviation 1 (of the training rows)"
        " and predicted in their own units; losses and metrics of training are those of the scaled values",
    )
    clip: Flag | None = Field(
        default=None,
        description="true: predicted values are clipped to the range of the training rows; losses and metrics"
        " are those of the values before clipping",
    )


class Split(JobPart):
    """Shares of the rows of `train` for validation and test. Rows are split first; all statistics are
    computed from the remaining training rows."""

    validation: Number = Field(default=0.15, ge=0, lt=1, description="share of the validation set; 0: none")
    test: Number = Field(default=0.15, ge=0, lt=1, description="share of the test set; 0: none")
    by: Literal["auto", "random", "stratified", "group", "time"] = Field(
        default="auto",
        description="auto: by data.group or data.time if they are given, stratified for classes, else random;"
        " stratified: every class has the same share in each set; group: rows of one group stay together;"
        " time: the latest rows are the test set",
    )
    seed: Whole = Field(default=0, ge=0, lt=1 << 64, description="seed of the random split")

    @model_validator(mode="after")
    def _rows_are_left(self) -> Split:
        if self.validation + self.test >= 1:
            text = f"leaves no row to train on: validation {self.validation:g} and test {self.test:g} are"
            raise raised("Split", [line((), f"{text} {self.validation + self.test:g} of all rows")])
        return self


class Windows(JobPart):
    """Samples that are windows of a series. The inputs of a sample are `length` consecutive rows: the input
    columns, and the target column if it is a number. Its target is that of a later row. A window lies within
    one set and one series."""

    length: Whole = Field(gt=0, description="rows of a window")
    stride: Whole = Field(default=1, gt=0, description="rows from the start of a window to the next start")
    horizon: Whole = Field(default=1, gt=0, description="rows from the last row of a window to its target")
    difference: Flag = Field(
        default=False,
        description="train on the change of the target since the last row of the window; predictions are"
        " values again. For series whose level drifts; needs target.scale: standard",
    )


def _target(value: Any) -> Any:
    value = _name(value)
    return {"column": value} if isinstance(value, str) else value


def _one_or_several(value: Any) -> str | None:
    """The tag of a value in the union: "one" target, or "several", a mapping from outputs to targets, which
    has no key `column`."""
    if isinstance(value, Target):
        return "one"
    if not isinstance(value, Mapping):
        return None
    return "one" if "column" in value else "several"


_ONE = Annotated[Target, Words("the name of a column, or a mapping with column and scale")]
TargetField = Annotated[
    Annotated[
        Annotated[_ONE, Tag("one")]
        | Annotated[
            dict[Text, Annotated[_ONE, BeforeValidator(_target)]],
            Field(min_length=1),
            Words("a mapping from each output to its target"),
            Tag("several"),
        ],
        Discriminator(_one_or_several),
    ],
    BeforeValidator(_target),
]


def targets_in(target: Target | Mapping[str, Target] | None) -> dict[str, Target]:
    """The targets in `data.target`, by output; by "" if there is only one."""
    if target is None:
        return {}
    return {"": target} if isinstance(target, Target) else {name: target[name] for name in sorted(target)}


Columns = Annotated[
    dict[ColumnName, ColumnKind],
    BeforeValidator(_names),
    at_most(MAX_COLUMNS, "mapping"),
    Words("a mapping from the name of a column, a pattern (x_*) or `others` to its kind"),
]
Missing = Annotated[tuple[Annotated[str, BeforeValidator(_text)], ...], at_most(1000)]
