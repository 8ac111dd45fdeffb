"""Checks between the fields of a job. Each check is a function from the job to faults, and a row of `CHECKS`,
which names the fields that it looks at. A check is left out if one of these fields is already at fault.

`distbp.job.data_checks` has the checks that need the data.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from distbp.core.arrays import Shape
from distbp.core.errors import Fault, cut
from distbp.core.metric_names import SPLITS
from distbp.job.faults import unknown
from distbp.job.layer_shapes import output_shapes, shapes
from distbp.job.loss_checks import (
    lengths_left,
    loss_fits,
    metrics_apply,
    metrics_in,
    one_loss_is_needed,
    outputs_exist,
)
from distbp.job.members import folds_fit, least_workers, members_or_restarts, networks
from distbp.job.method_checks import copies_fit, one_server_fits, whole_batches_fit
from distbp.job.parts import WorkerRange
from distbp.job.series_checks import batches_carry, layers_carry, series_fit
from distbp.job.table_checks import splits_off, tables_are_whole, values_are_scaled
from distbp.nn.activations import ACTIVATIONS
from distbp.nn.initializers import initializers_of
from distbp.nn.losses.several import names_of, parts_of
from distbp.nn.metrics import less_is_better
from distbp.nn.named_inputs import named_inputs
from distbp.nn.sharing import parameter_shapes, share
from distbp.nn.wiring import DATA, data_facts, dropping, wire
from distbp.optim.schedules import WarmUp, plateau_of

if TYPE_CHECKING:
    from distbp.job.training_job import TrainingJob


def neediest(layers: Iterable[Any]) -> Any:
    """The layer that needs the most rows in every slice (`rows_needed`)."""
    return max(layers, key=lambda layer: layer.rows_needed)


def _names_fit(job: TrainingJob) -> Iterator[Fault]:
    for place, message in wire(job.model.layers, unknown, names_of(job.loss))[1]:
        yield Fault(f"model.layers.{place}", message)


def tensors_fit(layers: Iterable[Any], input_shape: Shape | None) -> Iterator[Fault]:
    """Yields the faults of the tensors that layers share. input_shape: of one row; None: not known."""
    layers, known = tuple(layers), {DATA: input_shape}
    known |= {index: shape for index, shape, _ in shapes(layers, input_shape)}
    tensors = [
        parameter_shapes(layer, [None if source is None else known[source] for source in sources])
        for layer, sources in zip(layers, wire(layers)[0], strict=True)
    ]
    for place, message in share(layers, tensors, unknown)[1]:
        yield Fault(f"model.layers.{place}", message)


def _shared_tensors_fit(job: TrainingJob) -> Iterator[Fault]:
    yield from tensors_fit(job.model.layers, None)


def _ids_stay(job: TrainingJob) -> Iterator[Fault]:
    if named := named_inputs(job.model.layers):
        most = 1 << np.finfo(job.dtype).nmant + 1
        for index, entry in enumerate(named):
            if (entry.ids_below or 0) > most:
                text = f"holds ids up to {entry.ids_below:,}, but {job.dtype} has whole numbers up to"
                yield Fault(f"model.layers.{index}", f"{text} {most:,}; take dtype: float64")
            if entry.ids_below is not None and entry.scale != 1:
                yield Fault(f"model.layers.{index}.scale", "would change its ids; leave it out")
        if job.data.scale != 1:
            yield Fault("data.scale", "would change every input; give each input layer a scale")
        if job.data.targets is not None:
            yield Fault("data.targets", "has no meaning with several inputs; give the data targets")
        if job.data.truncated_bptt_steps is not None:
            yield Fault("data.truncated_bptt_steps", "is for networks with one input; leave it out")
        return
    if data_facts(job.model.layers).ids_below is None:
        return
    if job.data.standardize:
        yield Fault("data.standardize", "would change the ids that an embedding takes; leave it out")
    if job.data.scale != 1:
        text = f"would change the ids that an embedding takes, but is {job.data.scale:g}; leave it out"
        yield Fault("data.scale", text)


def lengths_dropped(
    layers: Iterable[Any], data: bool = True, input_shape: Shape | None = None
) -> list[Fault]:
    """The faults of layers that would count padding. data: whether the data have lengths."""
    layers = tuple(layers)
    faults = dropping(layers, wire(layers)[0], data, input_shape)
    return [Fault(f"model.layers.{at}", message) for at, message in faults]


def _lengths_stay(job: TrainingJob) -> Iterator[Fault]:
    lengths = getattr(job.data.train, "lengths", None)
    several = bool(named_inputs(job.model.layers))
    if several and isinstance(lengths, str):
        text = "are of one input, and the network has several; write a mapping from ragged inputs to names"
        yield Fault("data.train.lengths", text)
    yield from lengths_dropped(job.model.layers, isinstance(lengths, str) and not several)


def _lengths_are_used(job: TrainingJob) -> Iterator[Fault]:
    if job.data.truncated_bptt_steps is None:
        known = isinstance(getattr(job.data.train, "lengths", None), str)
        yield from lengths_left(job.model.layers, job.loss, known and not named_inputs(job.model.layers))


def _shapes_fit(job: TrainingJob) -> Iterator[Fault]:
    for index, _, problem in shapes(job.model.layers, None):
        if problem:
            yield Fault(f"model.layers.{index}", problem)


def _steps_learn_nothing(job: TrainingJob) -> Iterator[Fault]:
    if job.optimizer.copies:  # no derivative is asked for
        return
    trained: dict[int | None, bool] = {}  # outputs that depend on parameters
    for index, (layer, sources) in enumerate(zip(job.model.layers, wire(job.model.layers)[0], strict=True)):
        trained[index] = layer.trains or any(trained.get(source, False) for source in sources)
        name = layer.ends_in
        if trained[index] and name is not None and not ACTIVATIONS[name].trainable:
            field = "" if layer.activation_option == "type" else f".{layer.activation_option}"
            yield Fault(
                f"model.layers.{index}{field}",
                f"{name!r} has a derivative of zero, so nothing before it can learn; train with 'sigmoid', or"
                " a single layer as 'linear' with the loss 'perceptron', or use the optimizer 'evolution'",
            )


def _something_to_train(job: TrainingJob) -> Iterator[Fault]:
    if not any(layer.trains for layer in job.model.layers):
        yield Fault("model.layers", "hold nothing that can be trained; add a {type: dense, units: ...} layer")


def _dense_layers_look_at_data(job: TrainingJob) -> Iterator[Fault]:
    """Initializers that look at the data are only for dense layers, of networks that share no tensors."""
    shares = any(layer.shares is not None for layer in job.model.layers)
    for index, layer in enumerate(job.model.layers):
        for option, initializer in initializers_of(layer).items():
            path, what, name = f"model.layers.{index}.{option}", initializer.by_data, initializer.type
            if what and layer.by_data.get(option) != what:
                yield Fault(path, f"{name} looks at the data, and is for the {what} of dense layers")
            elif what and shares:
                yield Fault(path, f"{name} looks at the data; where layers share tensors take another")


def _shards_fit_the_batch(job: TrainingJob) -> Iterator[Fault]:
    if job.shards != "auto" and job.batch_size != "full" and job.shards > job.batch_size:
        yield Fault(
            "shards",
            f"must be at most batch_size ({job.batch_size}), not {job.shards}, so that every shard has a"
            " sample; lower shards or raise batch_size",
        )


def _slices_normalize(job: TrainingJob) -> Iterator[Fault]:
    layer = neediest(job.model.layers)
    if job.batch_size == "full":
        return
    if job.shards != "auto" and 1 < job.shards <= job.batch_size < layer.rows_needed * job.shards:
        yield Fault(
            "shards",
            f"leave too small slices ({job.batch_size} samples over {job.shards} shards), and {layer.type}"
            f" needs {layer.rows_needed} in each; set shards to at most"
            f" {job.batch_size // layer.rows_needed}, or use layer_normalization",
        )


def _batches_normalize(job: TrainingJob) -> Iterator[Fault]:
    layer = neediest(job.model.layers)
    if job.batch_size != "full" and job.batch_size < layer.rows_needed:
        yield Fault(
            "batch_size",
            f"must be at least {layer.rows_needed} with {layer.type}; or use layer_normalization",
        )


def _workers_have_work(job: TrainingJob) -> Iterator[Fault]:
    if job.shards == "auto":
        return
    wanted, several = least_workers(job), networks(job)  # each network has its own shards
    if wanted > several * job.shards:
        path = "workers.min" if isinstance(job.workers, WorkerRange) else "workers"
        most = f"shards ({job.shards})" + (f" times networks ({several})" if several > 1 else "")
        yield Fault(
            path,
            f"must be at most {most}, not {wanted}: a worker without a shard has nothing to do; lower it or"
            " raise shards",
        )


def watchable(job: TrainingJob) -> list[str]:
    """The metrics that can be watched, by their names in metrics.jsonl.

    Metrics of the validation set are among them if the job names such a set, or gets its data from Python.
    """
    measured = job.data.validation is not None or splits_off(job, "validation")
    if not measured and job.data.train is not None and job.data.train.type != "arrays":
        return ["train_loss"]
    return ["train_loss", "validation_loss", *(f"validation_{name}" for name in metrics_in(job))]


def _watched(job: TrainingJob, path: str, metric: str) -> Iterator[Fault]:
    known = watchable(job)
    if metric in known:
        return
    metric = cut(metric, 60)
    if metric.startswith("validation_") and not any(name.startswith("validation_") for name in known):
        yield Fault(
            path,
            f"watches {metric!r}, but there is no validation set; add data.validation, or watch 'train_loss'",
        )
        return
    near = difflib.get_close_matches(metric, known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ";"
    yield Fault(path, f"{metric!r} is not measured by this job{hint} measured: {', '.join(known)}")


def _early_stopping_watches(job: TrainingJob) -> Iterator[Fault]:
    if job.early_stopping is not None:
        yield from _watched(job, "early_stopping.metric", job.early_stopping.metric)


def _plateau(job: TrainingJob) -> tuple[str, Any]:
    """The path and the instance of `reduce_on_plateau` in the schedule, also behind warm-ups; None
    without."""
    schedule: Any = job.optimizer.schedule
    path = "optimizer.schedule"
    while isinstance(schedule, WarmUp):
        schedule, path = schedule.then, f"{path}.then"
    return path, plateau_of(schedule)


def _plateau_watches(job: TrainingJob) -> Iterator[Fault]:
    path, plateau = _plateau(job)
    if plateau is None:
        return
    yield from _watched(job, f"{path}.metric", plateau.metric)
    if job.early_stopping is None or job.early_stopping.metric != plateau.metric:
        return
    if job.early_stopping.patience <= plateau.patience:
        yield Fault(
            "early_stopping.patience",
            f"must be greater than {path}.patience ({plateau.patience}), not {job.early_stopping.patience}:"
            " training would stop before the learning rate is ever reduced",
        )


def _plateau_direction(job: TrainingJob) -> Iterator[Fault]:
    path, plateau = _plateau(job)
    if plateau is None:
        return
    right = "min" if less_is_better(plateau.metric) else "max"
    if plateau.metric in watchable(job) and plateau.mode != right:
        yield Fault(f"{path}.mode", f"must be {right!r} for {plateau.metric!r}, not {plateau.mode!r}")


def _class_weights_have_classes(job: TrainingJob) -> Iterator[Fault]:
    if job.class_weight is None or names_of(job.loss):
        return
    loss = parts_of(job.loss)[0].loss
    if loss.targets != "labels":
        yield Fault(
            "class_weight",
            f"needs a loss that chooses between classes, and {loss.type} takes values; leave class_weight"
            " out, or use 'softmax_cross_entropy'",
        )
        return
    (shape,) = output_shapes(job.model.layers, loss)
    if job.class_weight == "balanced":
        return
    by_name = isinstance(job.class_weight, Mapping)
    outputs = None if shape is None else shape[0]
    if by_name and outputs is not None and len(job.class_weight) > outputs:
        yield Fault(
            "class_weight",
            f"names {len(job.class_weight)} classes, but the last layer has {outputs} outputs",
        )
    elif not by_name and outputs is not None and len(job.class_weight) != outputs:
        yield Fault(
            "class_weight",
            f"must have one weight for each of the {outputs} classes of the last layer, not"
            f" {len(job.class_weight)}",
        )
    weights = job.class_weight.values() if isinstance(job.class_weight, Mapping) else job.class_weight
    if not any(weights) and (not by_name or len(job.class_weight) == outputs):
        yield Fault(
            "class_weight", "is 0 for every class, so nothing can be learned; give some class a weight"
        )


def _rows_in_order(job: TrainingJob) -> Iterator[Fault]:
    for split in SPLITS:
        rows = getattr(getattr(job.data, split), "rows", None)
        if rows is not None and not 0 <= rows[0] < rows[1]:
            yield Fault(
                f"data.{split}.rows",
                f"must be [first, one past the last] with 0 <= first < last, not [{rows[0]}, {rows[1]}]",
            )


def _splits_need_training_data(job: TrainingJob) -> Iterator[Fault]:
    if job.data.train is None and (job.data.validation is not None or job.data.test is not None):
        yield Fault(
            "data.train", "is required where data.validation or data.test is given (the training set)"
        )


def _kept_of_a_model(job: TrainingJob) -> Iterator[Fault]:
    kept = job.init_keeps or ()
    if kept and job.init is None:
        yield Fault("init_keeps", "is for a job that begins with a model; name its run directory in init")
    if "preparation" in kept:
        said = {"columns": job.data.columns, "missing": job.data.missing, "standardize": job.data.standardize}
        said["scale"] = job.data.scale != 1
        for name in (name for name, value in said.items() if value not in (None, False)):
            null = ", or set it to null" if name in ("columns", "missing") else ""
            yield Fault(f"data.{name}", f"is the model's with init_keeps: [preparation]; leave it out{null}")
    if "optimizer" in kept and job.optimizer.whole_batch:
        text = f"names the optimizer, and {job.optimizer.type} has no state for another training set"
        yield Fault("init_keeps", f"{text}; leave it out")


Check = Callable[["TrainingJob"], Iterator[Fault]]
CHECKS: tuple[tuple[Check, frozenset[str]], ...] = (
    (_splits_need_training_data, frozenset({"data"})),
    (tables_are_whole, frozenset({"data", "loss"})),
    (values_are_scaled, frozenset({"data", "loss"})),
    (series_fit, frozenset({"data", "loss"})),
    (layers_carry, frozenset({"data", "model"})),
    (batches_carry, frozenset({"data", "optimizer", "batch_size"})),
    (_rows_in_order, frozenset({"data"})),
    (_names_fit, frozenset({"model"})),
    (outputs_exist, frozenset({"model", "loss"})),
    (_ids_stay, frozenset({"model", "data"})),
    (_lengths_stay, frozenset({"model", "data"})),
    (_lengths_are_used, frozenset({"model", "data", "loss"})),
    (_shapes_fit, frozenset({"model"})),
    (_shared_tensors_fit, frozenset({"model"})),
    (_dense_layers_look_at_data, frozenset({"model"})),
    (_something_to_train, frozenset({"model"})),
    (_steps_learn_nothing, frozenset({"model", "optimizer"})),
    (loss_fits, frozenset({"model", "loss"})),
    (metrics_apply, frozenset({"model", "loss", "metrics"})),
    (one_loss_is_needed, frozenset({"loss", "class_weight", "data"})),
    (_class_weights_have_classes, frozenset({"model", "loss", "class_weight"})),
    (_batches_normalize, frozenset({"model", "batch_size"})),
    (_shards_fit_the_batch, frozenset({"shards", "batch_size"})),
    (_slices_normalize, frozenset({"model", "shards", "batch_size"})),
    (_workers_have_work, frozenset({"workers", "shards", "members", "restarts"})),
    (
        whole_batches_fit,
        frozenset({"optimizer", "batch_size", "model", "clip", "regularization", "parameter_groups"}),
    ),
    (copies_fit, frozenset({"optimizer", "model"})),
    (one_server_fits, frozenset({"optimizer", "servers"})),
    (_plateau_direction, frozenset({"optimizer", "model", "loss", "metrics", "data"})),
    (_plateau_watches, frozenset({"optimizer", "model", "loss", "metrics", "data", "early_stopping"})),
    (_kept_of_a_model, frozenset({"init", "init_keeps", "optimizer", "data"})),
    (members_or_restarts, frozenset({"members", "restarts"})),
    (folds_fit, frozenset({"early_stopping", "data"})),
    (_early_stopping_watches, frozenset({"early_stopping", "model", "loss", "metrics", "data"})),
)


def check_job(job: TrainingJob, without: frozenset[str] = frozenset()) -> list[Fault]:
    """The faults between the fields of a job. `without`: fields that are already at fault; checks that look
    at one of these are left out."""
    return [fault for check, needs in CHECKS if not needs & without for fault in check(job)]
