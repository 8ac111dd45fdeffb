"""Recipes: networks with settings that suit them, by name. A job with a recipe is written out in full before
it is checked. So no other code knows of recipes, and every number can be changed.

`table`: layers of 256 units with dropout, AdamW with warm-up and cosine, early stopping; numbers of a table
are encoded in bins, and values to predict are scaled to mean 0 and standard deviation 1. A recipe's settings
outside of `model` are defaults: the job's own settings stay. `realmlp`: see `distbp.job.realmlp`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from distbp.core.errors import Fault, JobError
from distbp.job import realmlp
from distbp.job.faults import JobPart
from distbp.job.losses import outputs_in
from distbp.job.recipe_columns import completed, is_table, predicts_values, scale_for
from distbp.nn.losses.several import Losses

HIDDEN, DROPOUT = (256, 256, 256), 0.15
EPOCHS, WARM_UP, PATIENCE = 100, 2, 20
BATCH_SIZE = 64  # if the number of rows is not known
# Each number also gets a piecewise-linear encoding in bins, if there are enough rows. Of 15 tables with 750
# to 6,000 training rows (recipe table, 5 members), 9 scored higher with bins: verbal aggression an accuracy
# of 0.708 (0.658 without), prices of computers an R2 of 0.938 (0.909). None lost more than 0.005.
# Codes rise from -0.25 to 0.25. The height was chosen on 2 splits of 17 tables (699 to 4,500 training rows, 5
# members). On 3 other splits, 10 tables had a better mean log loss or R2 than with codes from 0 to 1, 7 a
# worse one: churn a log loss of 0.190 (0.201), attrition 0.330 (0.341), prices of houses an R2 of 0.932
# (0.927). Orange juice lost most, a log loss of 0.406 (0.401), and prices in Sacramento, 0.721 (0.727).
BINS, BIN_HEIGHT, BINS_ROWS = 32, 0.25, 500
BINS_COLUMNS = 100  # the most columns with bins: they already give the first layer 3,200 inputs
# There are never more bins than rows. Of 6 tables with 600 training rows and 18 to 64 numbers (2 members, 2
# splits), 3 scored higher without bins: silhouettes of vehicles an accuracy of 0.811 (0.764 with), values of
# players an R2 of 0.951 (0.937). The 64 pixels of digits (1,212 rows, 5 members) lost most: 0.974 (0.979).
# A pixel has at most 17 values, so a column with fewer values than BINS counts with the number of its values.
# Below this number of rows, each of several members measures on its own fold. Of 14 comparisons (11 tables,
# 133 to 24,000 training rows, 5 members, 1 to 3 splits), 13 had a better mean score, 12 a better mean loss:
# census income of 10,000 rows an accuracy of 0.8631 (0.8615 on one validation set), glass 0.698 (0.654). Wine
# lost most, 0.970 (0.978).
FOLDS_ROWS = 50_000
RecipeName = Literal["table", "realmlp"]
RECIPES = get_args(RecipeName)
_ASKS = ("recipe", "outputs", "rows")  # fields of `model` that are in place of `layers`


def layers(outputs: int, hidden: Sequence[int], activation: str = "relu") -> list[dict[str, Any]]:
    """The layers of the recipe `table`."""
    layers: list[dict[str, Any]] = []
    for units in hidden:
        layers.append({"type": "dense", "units": units, "activation": activation})
        layers.append({"type": "dropout", "rate": DROPOUT})
    return [*layers, {"type": "dense", "units": outputs}]


def optimizer(epochs: int) -> dict[str, Any]:
    """AdamW with two epochs of warm-up (fewer if there are no more), then a cosine down to the end."""
    warm_up = min(WARM_UP, epochs - 1)
    schedule: Any = "cosine"  # over the epochs after the warm-up
    if warm_up:
        schedule = {"type": "warm_up", "warmup_epochs": warm_up, "then": schedule}
    return {"type": "adamw", "learning_rate": 1e-3, "weight_decay": 1e-2, "schedule": schedule}


def batch_size(rows: int | None) -> int:
    """The batch size for a number of training rows; None: not known."""
    if rows is None:
        return BATCH_SIZE
    return 256 if rows >= 20_000 else 64 if rows >= 2_000 else 32


def stopping(folds: bool = False) -> dict[str, Any]:
    """Early stopping of the recipe `table`. folds: whether each network measures on a fold of its own."""
    return {"metric": "validation_loss", "patience": PATIENCE, **({"fold": "each"} if folds else {})}


def suits_folds(members: Any, rows: int | None) -> bool:
    """Whether each of several networks is to measure on its own fold. rows: of the table; None: unknown."""
    return type(members) is int and members > 1 and rows is not None and rows < FOLDS_ROWS


def with_folds(job: Mapping[str, Any], rows: int) -> Mapping[str, Any]:
    """The fields of a job for a table of `rows` rows, with folds if they suit it and it does not say."""
    found, data = job.get("early_stopping"), job.get("data")
    suits = suits_folds(job.get("members"), rows) and isinstance(data, Mapping) and _may_mix(data)
    if not suits or not isinstance(found, Mapping):
        return job
    return {**job, "early_stopping": {"fold": "each", **found}}


def number(rows: int | None, different: Sequence[float] = ()) -> dict[str, Any]:
    """The kind of a column of numbers. rows: of the table; None: not known. different: for each column of
    numbers, an upper bound on the number of its different values."""
    enough = rows is None or rows >= max(BINS_ROWS, sum(min(BINS, values) for values in different))
    return {"kind": "number", **(binned(BINS) if enough and len(different) <= BINS_COLUMNS else {})}


def binned(bins: int) -> dict[str, Any]:
    """The options of a number with bins."""
    return {"bins": bins, "bin_height": BIN_HEIGHT}


def expanded(job: Any) -> Any:
    """The fields of a job with its recipe written out. Fields that cannot be understood stay as they are, for
    later checks. Raises JobError if the recipe cannot serve the job."""
    model = job.get("model") if isinstance(job, Mapping) else None
    if not isinstance(model, Mapping) or model.get("recipe") not in RECIPES or "layers" in model:
        return job
    outputs, rows = model.get("outputs", 1), model.get("rows")
    if not _whole(outputs) or not (rows is None or _whole(rows)):
        return job
    data = _spelled(job.get("data", {}))
    if isinstance(data, Mapping):
        data = {name: _spelled(value) for name, value in data.items()}
    job = {**job, "data": data}
    _check(job, model["recipe"])
    rest = {name: value for name, value in model.items() if name not in _ASKS}
    if model["recipe"] == "realmlp":
        return _realmlp(job, rest, outputs)
    epochs = job.get("epochs")
    fields = dict(job)
    if is_table(data):
        # Not with windows, in which each step would have bins.
        windows = data.get("windows") is not None
        others = None if windows or _keeps_columns(job) else {"kind": "auto", "number": number(rows)}
        fields["data"] = completed(data, others, scale_for(job.get("loss")))
    if epochs is None:
        epochs = fields["epochs"] = EPOCHS
    if _whole(epochs):
        fields["optimizer"] = _over(optimizer(epochs), job.get("optimizer"))
    fields.setdefault("batch_size", batch_size(rows))
    if _validates(job["data"]):
        folds = suits_folds(job.get("members"), rows) and _may_mix(job["data"])
        fields.setdefault("early_stopping", stopping(folds))
    return {**fields, "model": {**rest, "layers": layers(outputs, HIDDEN)}}


def _check(job: Mapping[str, Any], recipe: str) -> None:
    faults, loss, data = [], job.get("loss"), job["data"]
    if isinstance(loss, Losses) or outputs_in(loss):
        text = f"{recipe} has one output, and loss names several; write the layers out, or give one loss"
        faults.append(Fault("model.recipe", text))
    told = data if isinstance(data, Mapping) else {}
    if told.get("truncated_bptt_steps") is not None:
        text = f"{recipe} has no recurrent layers for data.truncated_bptt_steps; write the layers out"
        faults.append(Fault("model.recipe", text))
    if told.get("windows") is not None and recipe == "realmlp":
        text = "realmlp takes one row of a table, and data.windows are several; take recipe: table"
        faults.append(Fault("model.recipe", text))
    if faults:
        raise JobError(faults)


def _keeps_columns(job: Mapping[str, Any]) -> bool:
    """Whether the columns are those of the model that the job begins with."""
    kept = job.get("init_keeps")
    return isinstance(kept, list | tuple) and "preparation" in kept


def _spelled(value: Any) -> Any:
    """A part of a job as a mapping of the fields that were set, if it is given as an object."""
    return value.model_dump(exclude_unset=True) if isinstance(value, JobPart) else value


def _realmlp(job: Mapping[str, Any], rest: Mapping[str, Any], outputs: int) -> dict[str, Any]:
    fields, loss, epochs = dict(job), job.get("loss"), job.get("epochs")
    classes = not predicts_values(loss)
    if "loss" in fields:
        fields["loss"] = realmlp.smoothed(loss)
    target = {} if classes else {**scale_for(loss), "clip": True}
    fields["data"], table = realmlp.prepared(job["data"], target, fits=not _keeps_columns(job))
    if epochs is None:
        epochs = fields["epochs"] = realmlp.EPOCHS
    fields["optimizer"] = _over(realmlp.optimizer(classes), job.get("optimizer"))
    groups = job.get("parameter_groups")
    if groups is None or isinstance(groups, Mapping):
        fields["parameter_groups"] = {**realmlp.GROUPS, **(groups or {})}
    fields.setdefault("batch_size", realmlp.BATCH_SIZE)
    fields.setdefault("drop_last", True)
    if _validates(fields["data"]) and _whole(epochs):
        metrics = job.get("metrics")
        told = metrics is None or (isinstance(metrics, list | tuple) and "accuracy" in metrics)
        by_accuracy = classes and told
        fields.setdefault("early_stopping", realmlp.stopping(epochs, by_accuracy))
    layers = realmlp.layers(outputs, realmlp.HIDDEN, classes)
    return {**fields, "model": {**rest, "layers": [*([] if table else realmlp.entered()), *layers]}}


def _whole(value: Any) -> bool:
    return type(value) is int and 0 < value < 1 << 31


def _over(recipe: dict[str, Any], said: Any) -> Any:
    """The recipe's optimizer with the job's options, or the job's optimizer if it is of another type."""
    if said is None:
        return recipe
    if isinstance(said, Mapping) and said.get("type", recipe["type"]) == recipe["type"]:
        return {**recipe, **said}
    return said


def _may_mix(data: Mapping[str, Any]) -> bool:
    """Whether the validation rows are a random share of the rows, so that others can take their place. data:
    as a job has it."""
    apart = [data.get(name) for name in ("validation", "group", "time", "windows")]
    return isinstance(data.get("split"), Mapping) and all(value is None for value in apart)


def _validates(data: Any) -> bool:
    """Whether a job's data has a validation set, or a share for one."""
    if not isinstance(data, Mapping):
        return False
    split = data.get("split")
    shared = isinstance(split, Mapping) and split.get("validation", 1) != 0
    return data.get("validation") is not None or shared
