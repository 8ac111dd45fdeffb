"""What does not fit between a job's loss, or losses, and its layers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from distbp.core.arrays import Shape
from distbp.core.errors import Fault, JobError
from distbp.job.faults import unknown
from distbp.job.layer_shapes import (
    heads_known,
    last_activation,
    output_places,
    shapes,
)
from distbp.nn.head_metrics import metrics_of
from distbp.nn.losses.base import LayerFault, Targets
from distbp.nn.losses.several import Head, Heads, heads_of, names_of, parts_of
from distbp.nn.wiring import places_of, wire, with_lengths

if TYPE_CHECKING:
    from distbp.job.training_job import TrainingJob

MANY = 1 << 20  # numbers of an output whose size is not known


def outputs_exist(job: TrainingJob) -> Iterator[Fault]:
    """The names in a mapping of losses are those of layers, and something is learned."""
    _, strange = places_of(job.model.layers, names_of(job.loss), unknown)
    nameless = all(layer.name is None for layer in job.model.layers)
    for name, message in strange:
        why = f"{name!r} is not known, as no layer has a name; give the layers of the outputs names,"
        why += " or write one loss with its type"
        yield Fault(f"loss.{name}", f"names no layer: {why if nameless else message}")
    if not any(part.factor for part in parts_of(job.loss)):
        yield Fault("loss", "has the factor 0 for every output, so nothing is learned; raise one")


def lengths_left(layers: Sequence[Any], loss: Any, data: bool) -> list[Fault]:
    """Outputs whose steps have lengths, so that a loss would count padding. data: whether the data have
    some."""
    text = (
        "gives the steps of rows that have lengths to the loss, so padding would count; put a layer"
        " after it that uses them, as average_steps, last_step, or a recurrent one; or, where each step has a"
        " target, set data.truncated_bptt_steps"
    )
    having, places = with_lengths(layers, wire(layers)[0], data), output_places(layers, loss) or ()
    return [
        Fault(f"model.layers.{at}", f"{layers[at].type} {text}") for at in places if having[at] is not None
    ]


def loss_fits(job: TrainingJob) -> Iterator[Fault]:
    if any(problem for _, _, problem in shapes(job.model.layers, None)):
        return  # the shape of the outputs is not what the user meant
    if lengths_left(job.model.layers, job.loss, False):
        return  # which is said, and its shape would be no better
    heads = heads_known(job.model.layers, job.loss, 2)
    if heads is not None:
        yield from head_faults(job, heads, {})


def head_faults(
    job: TrainingJob, heads: Heads, targets: dict[str, Targets], at_layers: bool = False
) -> Iterator[Fault]:
    """Every reason why a loss does not fit its layer, or the targets of that output (by its name). at_layers:
    what is the layer's fault is said of the layer."""
    layers = job.model.layers
    for head, place in zip(heads, output_places(layers, job.loss) or (), strict=True):
        facts = targets.get(head.name, Targets())
        for problem in head.loss.faults(head.shape, last_activation(layers, place), facts, head.layer):
            of_layer = at_layers and isinstance(problem, LayerFault)
            yield Fault(f"model.layers.{place}" if of_layer else path_of(head), problem)


def path_of(head: Head) -> str:
    return f"loss.{head.name}" if head.name else "loss"


def metrics_apply(job: TrainingJob) -> Iterator[Fault]:
    heads = _smaller(job)
    try:
        if heads is not None:
            metrics_of(heads, job.metrics)
    except JobError as error:
        yield from error.faults


def metrics_in(job: TrainingJob) -> list[str]:
    """What an evaluation gives beside the loss; the usual metrics where those of the job are at fault."""
    heads = _smaller(job)
    if heads is None:
        return []
    try:
        found = metrics_of(heads, job.metrics)
    except JobError:  # said by metrics_apply
        found = metrics_of(heads)
    own = [head.metric("loss") for head in heads if heads.several]
    return own + [metric.name for metric in found]


def _smaller(job: TrainingJob) -> Heads | None:
    """The outputs with at most `MANY` numbers each: a metric takes memory for each of them."""
    heads = heads_known(job.model.layers, job.loss, MANY)
    if heads is None:
        return None
    sizes: list[Shape] = [(min(head.outputs[1], MANY),) for head in heads]
    return heads_of(job.loss, sizes)


def one_loss_is_needed(job: TrainingJob) -> Iterator[Fault]:
    """What does not go with several outputs."""
    if not names_of(job.loss):
        return
    if job.class_weight is not None:
        yield Fault(
            "class_weight",
            "is of the classes of one loss, and this job has several outputs; leave it out, or give"
            " the rows weights",
        )
    if job.data.targets is not None:
        yield Fault(
            "data.targets", "is for one loss, and this job has several outputs; give each output its targets"
        )
    if job.data.windows is not None:
        yield Fault("data.windows", "are for one target, and this job has several outputs; give it one loss")
