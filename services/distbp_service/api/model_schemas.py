"""The schemas of a model's inputs and predictions."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from distbp_service.api.prediction import Predicted
from distbp_service.api.schemas import In


class InputColumn(BaseModel):
    name: str
    kind: Literal["number", "category", "boolean", "date"]
    levels: list[str] | None = Field(
        default=None,
        description="of a category, the commonest 1,000 in training, or yes and no; null: not known",
    )
    low: float | None = Field(default=None, description="the smallest in training, where the model knows it")
    high: float | None = Field(default=None, description="the largest in training, where the model knows it")
    deviation: float | None = Field(default=None, description="from the mean, `missing`, where that is known")
    timed: bool = Field(default=False, description="a date with a time of the day")
    missing: float | str | None = Field(default=None, description="what a missing cell counts as")
    example: float | str | None = Field(default=None, description="the mean, or the commonest level")


Steps = Literal["all", "most", "any"]


class InputPart(BaseModel):
    name: str | None = Field(description="of an input; null where the model has one alone, without a name")
    shape: list[int] = Field(description="of one row; its first size is that of steps, where they vary")
    steps: Steps = Field(
        description="whether a row has as many steps as its shape says, at most so many, or any number"
    )


class ModelInputs(BaseModel):
    task: str = Field(description="classification, binary (yes or no), regression, or several of these")
    classes: list[Any] | dict[str, list[Any] | None] | None = Field(
        description="in the order of probabilities; null: their numbers; of several outputs by name"
    )
    target: str | None = Field(description="the column of a table that is predicted, or several, with commas")
    shape: list[int] = Field(description="of one row as the first layer takes it")
    parts: list[InputPart] = Field(description="what a row holds; of several inputs each; none of a table")
    is_table: bool = Field(description="it takes rows with named columns")
    rows: int = Field(
        description="of a table, that one prediction is of; of a series the length of its window"
    )
    columns: list[InputColumn] | None = Field(
        description="of a table, where they are at most 1,000, and one prediction is of one row"
    )


class Inputs(In):
    inputs: list[Any] = Field(
        min_length=1,
        description="rows of numbers, in the shape of the training rows; or mappings from column to"
        " number, and for a model of a table to what its cells hold",
    )
    probabilities: bool = Field(default=False, description="give those too")


class Predictions(BaseModel):
    predictions: list[Any] = Field(
        description="one for each row: a class, or a value, or several values; of several outputs an object"
        " with such a one for each, and so are probabilities"
    )
    probabilities: list[Any] | None
    unseen: dict[str, int] = Field(
        description="by column of a table, cells of levels that have no column of their own in the model"
    )
    ignored: list[str] = Field(description="columns that the model does not use; at most 100 are named")
    ignored_count: int = Field(description="how many columns those are")

    @staticmethod
    def of(made: Predicted) -> Predictions:
        return Predictions(
            predictions=made.predictions,
            probabilities=made.probabilities,
            unseen=dict(made.unseen),
            ignored=list(made.ignored[:100]),
            ignored_count=len(made.ignored),
        )
