"""The parts of a job. The description of a field is used in the JSON Schema, the reference page and
faults."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, Tag, model_validator

from distbp.core.arguments import MAX_WORKERS
from distbp.job.columns import ColumnName, Columns, Missing, Split, TargetField, Windows
from distbp.job.faults import JobPart, Words, at_most, line, raised
from distbp.job.kinds import Flag, Number, Text, Whole, kind, one_of
from distbp.job.losses import LossKind
from distbp.job.recipes import RecipeName
from distbp.job.tables import TABLES
from distbp.job.unions import BY_SPELLING, Fold

MAX_LAYERS = 1000

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
    _ALLOWED = f"{_LOSS.allowed}; or a mapping from the names of layers to losses"
    Loss = Annotated[Any, _LOSS, Words(_ALLOWED)]
    Optimizer = kind("optimizers", "optimizer", TABLES)
    Kept = one_of(("preparation", "optimizer"))  # parts of the model that a job begins with


class Data(JobPart):
    """The data sets, and the scaling of the inputs before the first layer."""

    train: Source | None = Field(
        default=None, description="the training set; left out if train() is given arrays"
    )
    validation: Source | None = Field(
        default=None, description="the validation set, evaluated every `evaluate_every` epochs"
    )
    test: Source | None = Field(default=None, description="the test set, evaluated once, at the end")
    folder: Text | None = Field(
        default=None, description="the folder that paths are relative to; left out: that of the job's file"
    )
    scale: Number = Field(default=1.0, gt=0, description="divides every input (255 for bytes)")
    standardize: Flag = Field(
        default=False,
        description="give every input mean 0 and deviation 1, by the statistics of the training rows alone",
    )
    targets: Literal["inputs"] | None = Field(
        default=None,
        description="inputs: the target of each row is the row itself, as the first layer takes it"
        " (autoencoders); left out: the targets of the data",
    )
    truncated_bptt_steps: Whole | None = Field(
        default=None,
        ge=1,
        le=1 << 16,
        description="of arrays whose rows are series with a target for each step: cut them into windows of"
        " this number of steps; recurrent layers carry their states from window to window, and"
        " backpropagation ends where a window begins",
    )
    bad_rows: Literal["refuse", "skip"] = Field(
        default="refuse",
        description="what to do with rows that hold NaN, Inf, no label, a negative weight or a number that"
        " the dtype cannot hold",
    )
    target: TargetField | None = Field(
        default=None,
        description="of a table: the column to predict, and whether its values are scaled; if loss is a"
        " mapping, a mapping from each output to its target",
    )
    columns: Columns | None = Field(
        default=None,
        description="of a table: the kind of each column, by its name or a pattern; others: the kind of all"
        " columns that are not named, auto by default",
    )
    missing: Missing | None = Field(
        default=None,
        description="of a table: the texts of missing cells; left out: the empty text, ?, NA, N/A, n/a,"
        " #N/A, NaN, nan, NULL, null, None",
    )
    weight: ColumnName | None = Field(
        default=None,
        description="of a table: the column of the rows' weights; not an input unless columns name it",
    )
    group: ColumnName | None = Field(
        default=None,
        description="of a table: a column; rows with the same value in it stay in one set; not an input"
        " unless columns name it",
    )
    time: ColumnName | None = Field(
        default=None,
        description="of a table: the column of the rows' times; the latest rows are for test and validation;"
        " not an input unless columns name it",
    )
    split: Split | None = Field(
        default=None, description="of a table: the shares of the rows of train for validation and test"
    )

    windows: Windows | None = Field(
        default=None,
        description="of a table: samples are windows of its rows in the order of data.time; the rows of one"
        " data.group form a series; the sets are split by time, unless split.by is group",
    )

    @model_validator(mode="after")
    def _one_scaling(self) -> Data:
        if self.standardize and self.scale != 1:
            text = "has no effect with standardize: true; leave one of them out"
            raise raised("Data", [line(("scale",), text)])
        return self


class Model(JobPart):
    """The network: layers in order. Each takes the output of the layer above, or of the layers that its
    `inputs` name. Or a recipe, which is written out as layers when the job is read. A recipe also chooses
    optimizer, epochs, batch size and early stopping if the job does not."""

    layers: Annotated[tuple[Layer, ...], at_most(MAX_LAYERS)] = Field(
        default=(), min_length=1, max_length=MAX_LAYERS, description="from the inputs to the outputs"
    )
    recipe: RecipeName | None = Field(
        default=None,
        exclude=True,
        description="in place of layers: a network with settings that suit it; `distbp describe --yaml`"
        " writes it out",
    )
    outputs: Whole | None = Field(
        default=None,
        ge=1,
        exclude=True,
        description="of a recipe: the number of outputs, one for each class or value; left out: 1",
    )
    rows: Whole | None = Field(
        default=None,
        ge=1,
        exclude=True,
        description="of a recipe: the approximate number of training rows, which decides the batch size; left"
        " out: batches of 64 rows",
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
        default=5, ge=1, description="stop after this many evaluations without improvement"
    )
    min_delta: Number = Field(
        default=0.0, ge=0, description="an improvement by no more than this does not count"
    )
    ties: Literal["last"] | None = Field(
        default=None,
        description="last: of equally good evaluations the last is the best; left out: the first",
    )
    restore_best: Flag = Field(
        default=True, description="the model gets the weights of the best evaluation, not the last"
    )
    fold: Fold | None = Field(
        default=None,
        description="the rows that measure. The training and validation rows are cut into folds of the size"
        " of the validation set, which is fold 0. A number: this fold measures, and the others train; each:"
        " of members, network 0 measures on fold 0, network 1 on fold 1, and so on; left out: fold 0",
    )


class Checkpoint(JobPart):
    """When to save the state of training, and which states to keep. Nothing here changes the result."""

    every_steps: Whole | None = Field(default=None, ge=1, description="steps from one checkpoint to the next")
    every_seconds: Number | None = Field(
        default=60.0, gt=0, description="save when the last checkpoint is this old; null: never"
    )
    keep_last: Whole = Field(default=2, ge=1, description="how many of the newest checkpoints to keep")
    keep_best: Flag = Field(
        default=True, description="also keep the parameters of the best evaluation, in every checkpoint"
    )


class WorkerRange(JobPart):
    """The limits of a job that grows while CPUs are free, and shrinks when other programs need them."""

    min: Whole = Field(ge=1, description="never fewer workers than this")
    max: Whole = Field(ge=1, description="never more workers than this")

    @model_validator(mode="after")
    def _ordered(self) -> WorkerRange:
        if self.min > self.max:
            text = f"must be at most max ({self.max}), not {self.min}"
            raise raised("WorkerRange", [line(("min",), text)])
        return self


Workers = Annotated[
    Annotated[Whole, Field(ge=0, le=MAX_WORKERS), Tag("number")]
    | Annotated[Literal["auto"], Tag("word")]
    | Annotated[WorkerRange, Tag("mapping")],
    BY_SPELLING,
]
