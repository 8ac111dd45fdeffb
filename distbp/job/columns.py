"""The parts of a job that say what the columns of a table are."""

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
    """Columns without a header are named by their numbers, which YAML reads as such."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _names(value: Any) -> Any:
    return {_name(key): inner for key, inner in value.items()} if isinstance(value, Mapping) else value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise PydanticCustomError("fault", "{text}", {"text": f"must be text, not {shown(value)}"})
    return value


ColumnName = Annotated[Text, BeforeValidator(_name), Field(min_length=1), Words("the name of a column")]


class Target(JobPart):
    """What is predicted: a column of the table. Its name alone will do."""

    column: ColumnName = Field(description="the name of the column; its number where there is no header")
    scale: Literal["none", "standard"] = Field(
        default="none",
        description="standard: values are trained with mean 0 and deviation 1 (of the training rows), and"
        " predicted in their own units; losses and metrics of training are those of the scaled values",
    )
    clip: Flag | None = Field(
        default=None,
        description="true: predict gives no value below the least or above the largest of the training rows;"
        " losses and metrics are those of the values before that",
    )


class Split(JobPart):
    """Shares of the rows of `train` that only measure. Rows are split first; all statistics are those of
    the rows that train."""

    validation: Number = Field(default=0.15, ge=0, lt=1, description="share of the validation set; 0: none")
    test: Number = Field(default=0.15, ge=0, lt=1, description="share of the test set; 0: none")
    by: Literal["auto", "random", "stratified", "group", "time"] = Field(
        default="auto",
        description="auto: by data.group or data.time where they are given, stratified for classes, else"
        " random; stratified: every class has its share in each set; group: rows of one group stay together;"
        " time: the latest rows are the test set",
    )
    seed: Whole = Field(default=0, ge=0, lt=1 << 64, description="of the draw")

    @model_validator(mode="after")
    def _rows_are_left(self) -> Split:
        if self.validation + self.test >= 1:
            text = f"leaves no row to train on: validation {self.validation:g} and test {self.test:g} are"
            raise raised("Split", [line((), f"{text} {self.validation + self.test:g} of all rows")])
        return self


class Windows(JobPart):
    """Samples from a series. A sample is `length` rows, one after the other: the input columns, and the
    target itself where it is a number. Its target is that of a later row. No window crosses into another set
    or series."""

    length: Whole = Field(gt=0, description="rows of a window")
    stride: Whole = Field(default=1, gt=0, description="rows from the start of a window to that of the next")
    horizon: Whole = Field(default=1, gt=0, description="rows from the last of a window to its target's")
    difference: Flag = Field(
        default=False,
        description="train on the change of the target since the last row of the window; predictions are its"
        " values again. For series that wander; needs target.scale: standard",
    )


def _target(value: Any) -> Any:
    value = _name(value)
    return {"column": value} if isinstance(value, str) else value


def _one_or_several(value: Any) -> str | None:
    """Which member of the union a value can be: a target, or a mapping from outputs to targets, which has no
    `column`."""
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
            Words("a mapping from each output to such"),
            Tag("several"),
        ],
        Discriminator(_one_or_several),
    ],
    BeforeValidator(_target),
]


def targets_in(target: Target | Mapping[str, Target] | None) -> dict[str, Target]:
    """The targets that `data.target` names by output, "" where it is the only one."""
    if target is None:
        return {}
    return {"": target} if isinstance(target, Target) else {name: target[name] for name in sorted(target)}


Columns = Annotated[
    dict[ColumnName, ColumnKind],
    BeforeValidator(_names),
    at_most(MAX_COLUMNS, "mapping"),
    Words("a mapping from the name of a column, a pattern (x_*) or others to its kind"),
]
Missing = Annotated[tuple[Annotated[str, BeforeValidator(_text)], ...], at_most(1000)]
