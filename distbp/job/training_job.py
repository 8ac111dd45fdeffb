"""`TrainingJob`: all settings that decide the result of a training run; reading, writing and comparing
them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, ValidationError, ValidatorFunctionWrapHandler, model_validator

from distbp.core.arguments import MAX_MEMBERS, path_given
from distbp.core.errors import Fault, JobError
from distbp.core.storage import user_path
from distbp.job import text as _text
from distbp.job.checks import check_job
from distbp.job.digest import digest
from distbp.job.faults import JobPart, Words, at_most, details, left_out, located
from distbp.job.graph import drawing_of
from distbp.job.kinds import Flag, Number, Text, Whole, plain
from distbp.job.losses import outputs_in
from distbp.job.method_checks import takes_whole_batches
from distbp.job.parts import (
    Checkpoint,
    Data,
    EarlyStopping,
    Kept,
    Loss,
    Model,
    Optimizer,
    Workers,
)
from distbp.job.recipes import expanded
from distbp.job.shards import automatic_shards, least_slice_rows
from distbp.job.unions import BatchSize, ClassWeight, Shards
from distbp.job.updates import Clip, ParameterGroup, Regularization
from distbp.optim.recipes import Adam

if TYPE_CHECKING:
    from distbp.nn.network import Network


class TrainingJob(JobPart):
    """A training job: data, network, loss, optimizer, and how long to train.

    It is immutable and holds no data. Make one with `TrainingJob(...)`, from mappings or instances, or with
    `from_yaml`, `from_json` or `from_file`. A job that cannot be trained raises JobError with every fault.
    `loss` and `optimizer` hold the dataclasses of `distbp.nn.losses` and `distbp.optim`, and
    `model.layers` those of `distbp.nn.layers`.
    """

    name: Annotated[
        Text, Words("1 to 100 letters, digits, spaces, '.', '_' or '-', a letter or digit first")
    ] = Field(
        default="job",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]{0,99}$",
        description="a name for people: 1 to 100 letters, digits, spaces, '.', '_', '-'",
    )
    data: Data = Field(default=Data(), description="the data sets")
    model: Model = Field(description="the network")
    init: Text | None = Field(
        default=None,
        min_length=1,
        description="a model folder or run directory with the weights to begin with; only layers of the same"
        " type and shapes take them; on a service model:ID",
    )
    init_keeps: Annotated[tuple[Kept, ...], at_most(2)] | None = Field(
        default=None,
        description="what else the job takes over from the run in init. preparation: the scales of arrays or"
        " the plan of a table's columns, and the names of classes; nothing is fitted anew. optimizer: its"
        " state at the end, such as moments, and the count of updates; the random orders of samples and"
        " dropout go on, too",
    )
    loss: Loss = Field(description="the function that training minimizes")
    optimizer: Optimizer = Field(default=Adam(), description="the update rule")
    batch_size: BatchSize = Field(
        default=32,
        description="samples in one step, over all shards; full: the whole training set, the default of"
        " conjugate_gradient and lbfgs",
    )
    epochs: Whole | None = Field(
        default=None,
        ge=1,
        description="passes over the training set; 10 if neither epochs nor max_steps is given",
    )
    max_steps: Whole | None = Field(
        default=None, ge=1, description="stop after this many steps, even in the middle of an epoch"
    )
    shards: Shards = Field(
        default="auto",
        description="parts that every batch is cut into; auto: up to 8, by the work of a step",
    )
    workers: Workers = Field(
        default="auto",
        description="worker processes; 0: the trainer's process computes; auto: chosen by measurement. Never"
        " changes the result",
    )
    servers: Whole = Field(
        default=1,
        ge=1,
        le=64,
        description="parameter servers, each with a range of the vector. Never changes the result",
    )
    audit: Number = Field(
        default=0.0,
        ge=0,
        le=1,
        description="share of all answers that a second worker of the same node computes, too; the job stops"
        " if a bit differs. Never changes the result",
    )
    seed: Whole = Field(default=0, ge=0, lt=1 << 64, description="seed of all random numbers")
    members: Whole = Field(
        default=1,
        ge=1,
        le=MAX_MEMBERS,
        description="number of networks of different seeds; they are trained independently, and the model"
        " averages their predictions (probabilities or values)",
    )
    restarts: Whole = Field(
        default=1,
        ge=1,
        le=MAX_MEMBERS,
        description="number of networks of different seeds, trained independently; the best is kept: by the"
        " metric of early_stopping, else by the validation loss, else by the training loss",
    )
    shuffle: Flag = Field(default=True, description="a new order of the samples in every epoch")
    bucket_by_length: Flag = Field(
        default=True,
        description="if samples have lengths and are shuffled: put samples of similar lengths into a batch;"
        " steps that none of its samples has are left out",
    )
    drop_last: Flag = Field(
        default=False, description="leave out the last batch of an epoch if it is smaller"
    )
    dtype: Literal["float32", "float64"] = Field(
        default="float32", description="dtype of parameters, inputs and gradients"
    )
    metrics: Annotated[tuple[Text, ...], at_most(100)] | None = Field(
        default=None,
        description="what to measure besides the loss; left out: the usual metrics of the loss",
    )
    class_weight: ClassWeight | None = Field(
        default=None,
        description="weight of each class in the loss: a list, a mapping, or balanced (rare classes weigh"
        " more)",
    )
    regularization: Regularization = Field(default=Regularization(), description="penalties on the weights")
    parameter_groups: (
        Annotated[
            dict[Annotated[Text, Field(min_length=1)], ParameterGroup],
            at_most(1000, "mapping"),
            Words("a mapping from the name of a tensor, or a pattern (*.bias), to its group"),
        ]
        | None
    ) = Field(
        default=None,
        description="tensors with their own learning rate or decay, by name (layers.0.dense.bias) or pattern"
        " (*.bias); if several patterns match, the longest counts",
    )
    clip: Clip | None = Field(default=None, description="limits on the gradient")
    evaluate_every: Whole = Field(default=1, ge=1, description="epochs between two evaluations")
    early_stopping: EarlyStopping | None = Field(
        default=None, description="stop when a metric no longer improves"
    )
    checkpoint: Checkpoint = Field(default=Checkpoint(), description="when to save the state")

    @model_validator(mode="before")
    @classmethod
    def _written_out(cls, value: Any) -> Any:
        value = expanded(value)
        if not isinstance(value, Mapping):
            return value
        found = dict(value)
        if found.get("epochs") is None and found.get("max_steps") is None:
            found["epochs"] = 10
        if "batch_size" not in found and takes_whole_batches(found.get("optimizer")):
            found["batch_size"] = "full"
        return found

    @model_validator(mode="wrap")
    @classmethod
    def _all_faults(cls, value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        # JobError is not a ValueError, so it passes through pydantic as it is.
        try:
            job = handler(value)
        except ValidationError as error:
            lines = details(error)
            faults = list(located(lines))
            rest, drawing = _checks_of_the_rest(value, faults, handler)
            raise JobError([*faults, *rest], more=left_out(lines), drawing=drawing) from None
        faults = check_job(job)
        if faults:
            raise JobError(faults, drawing=drawing_of(job.model.layers, None, faults, job.loss))
        return job

    # Reading and writing ---------------------------------------------------------------------------------

    @classmethod
    def from_mapping(cls, fields: Any, source: str = "the job") -> TrainingJob:
        """From plain values. `source` names where they come from, in errors. Raises JobError."""
        try:
            return cls.model_validate(fields)
        except JobError as error:
            raise error.within(source) from None

    @classmethod
    def from_yaml(cls, text: str, source: str = "the job") -> TrainingJob:
        """From YAML text; `distbp.job.text` says which parts of YAML are refused. Raises JobError."""
        return cls.from_mapping(_text.read_yaml(text, source), source)

    @classmethod
    def from_json(cls, text: str, source: str = "the job") -> TrainingJob:
        """From JSON text. Raises JobError."""
        return cls.from_mapping(_text.read_json(text, source), source)

    @classmethod
    def from_file(cls, path: str | Path) -> TrainingJob:
        """From a file: `.json` is JSON, any other name YAML. Raises JobError, naming the file."""
        return cls.from_mapping(_text.read_file(path), str(path))

    def to_mapping(self) -> dict[str, Any]:
        """Every field, defaults too, as plain values for JSON and YAML. Fields that are null by default and
        here are left out, at every depth: an older service does not know newer fields."""
        mapping: dict[str, Any] = _without_nulls(self, plain(self.model_dump()))
        return mapping

    def to_yaml(self) -> str:
        """YAML text with every field, from which `from_yaml` makes an equal job."""
        return _text.write_yaml(self.to_mapping())

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical form, 64 hexadecimal digits (see `distbp.job.digest`).

        Equal for every spelling of the same job. `name`, `workers`, `servers`, `audit` and `checkpoint` do
        not count: they cannot change a bit of the weights.
        """
        return digest(self.to_mapping())

    def replace(self, **changes: Any) -> TrainingJob:
        """A copy of this job with other values of some fields, validated. Fields that were never set get
        their defaults again. Raises JobError."""
        given = {name: getattr(self, name) for name in self.model_fields_set}
        return type(self).model_validate({**given, **changes})

    def located(self, folder: Path) -> TrainingJob:
        """A copy of this job with `data.folder` as an absolute path. A relative one, or none, is relative to
        `folder`. The digest stays the same, because `data.folder` does not count in it.
        """
        place = path_given(folder, "folder") / user_path(self.data.folder or "")
        return self.replace(data=self.data.model_copy(update={"folder": str(place)}))

    def batch_rows(self, rows: int) -> int:
        """Samples in one step. rows: of the training set."""
        return rows if isinstance(self.batch_size, str) else self.batch_size

    def resolved_shards(self, network: Network, rows: int = 1) -> int:
        """The number of shards; `auto` is a function of job and data alone. rows: of the training set, used
        for `batch_size: full`."""
        if self.shards != "auto":
            return self.shards
        flops = network.flops * self.optimizer.passes
        return automatic_shards(self.batch_rows(rows), flops, least_slice_rows(network))


def _without_nulls(part: Any, fields: Any) -> Any:
    """The fields of `part`, as plain values, without those that are null by default and here."""
    if not isinstance(part, JobPart):
        return fields
    return {
        name: _without_nulls(getattr(part, name), value)
        for name, value in fields.items()
        if value is not None or type(part).model_fields[name].default is not None
    }


def _checks_of_the_rest(
    value: Any, faults: Sequence[Fault], handler: ValidatorFunctionWrapHandler
) -> tuple[list[Fault], str]:
    """Returns the faults between those fields that are right on their own, and the drawing of the network if
    it is one of them. faults: of the other fields."""
    if not isinstance(value, Mapping):
        return [], ""
    wrong = {fault.path.split(".")[0] for fault in faults}
    rest = {k: v for k, v in value.items() if k in TrainingJob.model_fields and k not in wrong}
    outputs = {name: "mse" for name in outputs_in(value.get("loss")) if isinstance(name, str)}
    stand_ins: dict[str, Any] = {"model": {"layers": ["linear"]}, "loss": outputs or "mse"}
    for name, stand_in in stand_ins.items():
        if name in wrong:
            rest[name] = stand_in
    try:
        job = handler(rest)
    except ValidationError:
        return [], ""
    found = check_job(job, without=frozenset(wrong))
    return found, drawing_of(job.model.layers, None, found, job.loss)
