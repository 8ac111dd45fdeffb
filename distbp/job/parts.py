"""The parts of a job, smallest first. What each field means stands in its description, once, for the JSON
Schema, the reference page and the faults."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from distbp.core.arguments import MAX_WORKERS
from distbp.job.columns import ColumnName, Columns, Missing, Split, TargetField, Windows
from distbp.job.faults import JobPart, Words, at_most, line, native, raised, shown
from distbp.job.kinds import Flag, Number, Text, Whole, kind, one_of
from distbp.job.losses import LossKind
from distbp.job.recipes import RecipeName
from distbp.job.shards import MAX_SHARDS
from distbp.job.tables import TABLES

MAX_LAYERS = 1000
MAX_WEIGHTS = 10_000  # of classes

if TYPE_CHECKING:
    from distbp.data.formats import Source as Source
    from distbp.nn.layers.base import Layer as Layer
    from distbp.nn.losses.base import Loss as OneLoss
    from distbp.nn.losses.several import Losses

    Loss = OneLoss | Losses
    from distbp.optim import Optimizer as Optimizer

    Kept = Literal["preparation", "optimizer"]
else:  # each holds an instance of a row of the table
    Source = kind("formats", "data format", TABLES, key="format")
    Layer = kind("layers", "layer", TABLES)
    _LOSS = LossKind("losses", "loss", TABLES)
    _ALLOWED = f"{_LOSS.allowed}; or a mapping from the names of layers to such"
    Loss = Annotated[Any, _LOSS, Words(_ALLOWED)]
    Optimizer = kind("optimizers", "optimizer", TABLES)
    Kept = one_of(("preparation", "optimizer"))  # of the model that a job begins with


class Data(JobPart):
    """Where the samples lie, and what is done to the inputs before the first layer."""

    train: Source | None = Field(
        default=None, description="the training set; left out where train() is given arrays"
    )
    validation: Source | None = Field(
        default=None, description="measured every `evaluate_every` epochs; not trained on"
    )
    test: Source | None = Field(default=None, description="measured once, at the end")
    folder: Text | None = Field(
        default=None, description="paths are relative to it; left out: to the job's own file"
    )
    scale: Number = Field(default=1.0, gt=0, description="divides every input (255 for bytes)")
    standardize: Flag = Field(
        default=False,
        description="give every input mean 0 and deviation 1, by the statistics of the training rows alone",
    )
    targets: Literal["inputs"] | None = Field(
        default=None,
        description="inputs: each row is compared with itself, as the first layer takes it (autoencoders);"
        " left out: with the targets that the data holds",
    )
    truncated_bptt_steps: Whole | None = Field(
        default=None,
        ge=1,
        le=1 << 16,
        description="of arrays whose rows are series, with a target for each step: cut them into windows of"
        " so many steps, through which recurrent layers carry their states; backpropagation ends where a"
        " window begins",
    )
    bad_rows: Literal["refuse", "skip"] = Field(
        default="refuse",
        description="what to do with rows that hold NaN, Inf, no label, a negative weight or a number that"
        " the dtype cannot hold",
    )
    target: TargetField | None = Field(
        default=None,
        description="of a table: the column to predict, and whether its values are scaled; where loss is a"
        " mapping, such a one for each output",
    )
    columns: Columns | None = Field(
        default=None,
        description="of a table: what each column is, by its name or a pattern; others: of those that are not"
        " named, auto unless told",
    )
    missing: Missing | None = Field(
        default=None,
        description="of a table: the texts of missing cells; left out: the empty one, ?, NA, N/A, n/a,"
        " #N/A, NaN, nan, NULL, null, None",
    )
    weight: ColumnName | None = Field(
        default=None,
        description="of a table: the column of the rows' weights; no input unless columns name it",
    )
    group: ColumnName | None = Field(
        default=None,
        description="of a table: rows with one value here stay in one set; no input unless columns name it",
    )
    time: ColumnName | None = Field(
        default=None,
        description="of a table: later rows measure what earlier ones taught; no input unless columns"
        " name it",
    )
    split: Split | None = Field(
        default=None, description="of a table: which share of the rows of train only measures"
    )

    windows: Windows | None = Field(
        default=None,
        description="of a table: the samples are windows of its rows in the order of data.time; rows of one"
        " data.group are a series; the sets are cut by time, unless split.by is group",
    )

    @model_validator(mode="after")
    def _one_scaling(self) -> Data:
        if self.standardize and self.scale != 1:
            text = "changes nothing beside standardize: true; leave one of them out"
            raise raised("Data", [line(("scale",), text)])
        return self


class Model(JobPart):
    """The network: layers in order. Each takes the output of the one above, or of those that its
    `inputs` name. Or a recipe, which is written out when the job is read, with an optimizer, epochs, a batch
    size and early stopping where the job says none."""

    layers: Annotated[tuple[Layer, ...], at_most(MAX_LAYERS)] = Field(
        default=(), min_length=1, max_length=MAX_LAYERS, description="from the inputs to the outputs"
    )
    recipe: RecipeName | None = Field(
        default=None,
        exclude=True,
        description="in place of layers: a network with all that belongs to it; `distbp describe --yaml`"
        " writes it out",
    )
    outputs: Whole | None = Field(
        default=None,
        ge=1,
        exclude=True,
        description="of a recipe: the numbers that the last layer gives, one a class or a value; left out: 1",
    )
    rows: Whole | None = Field(
        default=None,
        ge=1,
        exclude=True,
        description="of a recipe: how many training rows there are, about, for its batch size; left out: 64"
        " rows a batch",
    )

    @model_validator(mode="after")
    def _layers_or_recipe(self) -> Model:
        if self.recipe is not None:  # else it would have been written out
            raise raised("Model", [line(("recipe",), "gives the layers; leave it or layers out")])
        if self.outputs is not None or self.rows is not None:
            name = "rows" if self.outputs is None else "outputs"
            raise raised(
                "Model", [line((name,), "is for a recipe; name one (recipe: table), or leave it out")]
            )
        if not self.layers:
            raise raised(
                "Model", [line(("layers",), "is required (from the inputs to the outputs), or recipe")]
            )
        return self


class EarlyStopping(JobPart):
    """Ends training when a metric no longer improves."""

    metric: Text = Field(
        default="validation_loss", description="the metric to watch, as metrics.jsonl names it"
    )
    patience: Whole = Field(
        default=5, ge=1, description="evaluations without improvement after which to stop"
    )
    min_delta: Number = Field(
        default=0.0, ge=0, description="an improvement by no more than this does not count"
    )
    ties: Literal["last"] | None = Field(
        default=None,
        description="last: an evaluation as good as the best takes its place; left out: the first one stays",
    )
    restore_best: Flag = Field(
        default=True, description="end with the weights of the best evaluation, not the last"
    )


class Checkpoint(JobPart):
    """When to save the state of training, and which states to keep. Nothing here changes the result."""

    every_steps: Whole | None = Field(default=None, ge=1, description="save after every so many steps")
    every_seconds: Number | None = Field(
        default=60.0, gt=0, description="save when the last one is this old; null: never"
    )
    keep_last: Whole = Field(default=2, ge=1, description="how many of the newest to keep")
    keep_best: Flag = Field(
        default=True, description="also keep the parameters of the best evaluation, in every checkpoint"
    )


class WorkerRange(JobPart):
    """A job that grows while CPUs are free and shrinks when they are asked back."""

    min: Whole = Field(ge=1, description="never fewer workers than this")
    max: Whole = Field(ge=1, description="never more workers than this")

    @model_validator(mode="after")
    def _ordered(self) -> WorkerRange:
        if self.min > self.max:
            text = f"must be at most max ({self.max}), not {self.min}"
            raise raised("WorkerRange", [line(("min",), text)])
        return self


def _label(value: Any) -> int | str:
    """A class as a job writes it: a whole number, or text. JSON has text keys only, so "3" is class 3."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return int(value) if re.fullmatch(r"0|-?[1-9][0-9]{0,17}", value) else value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if not hasattr(value, "__index__"):
        raise PydanticCustomError(
            "wrong_type", f"must be a class, a whole number or text, not {shown(value)}"
        )
    return int(value)


def _once(value: Any) -> Any:
    """A mapping whose keys are classes. Two spellings of one class would silently hide a weight."""
    found: dict[Any, Any] = {}
    for key, weight in value.items():
        label = _label(native(key))
        if label in found:
            text = f"names class {label} twice, as a number and as text; keep one of them"
            raise PydanticCustomError("fault", "{text}", {"text": text})
        found[label] = weight
    return found


def _spelling(value: Any) -> str | None:
    """Which member of a union a value can be, so that faults speak of that one only."""
    if isinstance(value, Mapping | JobPart):
        return "mapping"
    if isinstance(value, list | tuple):
        return "list"
    if isinstance(value, str):
        return "word"
    return "number" if isinstance(value, int | float) or hasattr(value, "__index__") else None


_BY_SPELLING = Discriminator(_spelling)
Weight = Annotated[Number, Field(ge=0)]
BatchSize = Annotated[
    Annotated[Whole, Field(ge=1, le=1 << 24), Tag("number")] | Annotated[Literal["full"], Tag("word")],
    _BY_SPELLING,
]
Shards = Annotated[
    Annotated[Whole, Field(ge=1, le=MAX_SHARDS), Tag("number")] | Annotated[Literal["auto"], Tag("word")],
    _BY_SPELLING,
]
Workers = Annotated[
    Annotated[Whole, Field(ge=0, le=MAX_WORKERS), Tag("number")]
    | Annotated[Literal["auto"], Tag("word")]
    | Annotated[WorkerRange, Tag("mapping")],
    _BY_SPELLING,
]
ClassWeight = Annotated[
    Annotated[
        dict[int | str, Weight],
        Field(min_length=1),
        BeforeValidator(_once),
        at_most(MAX_WEIGHTS, "mapping"),
        Words("a mapping from class to weight"),
        Tag("mapping"),
    ]
    | Annotated[
        tuple[Weight, ...], Field(min_length=1), at_most(MAX_WEIGHTS), Words("a list of weights"), Tag("list")
    ]
    | Annotated[Literal["balanced"], Tag("word")],
    _BY_SPELLING,
]
