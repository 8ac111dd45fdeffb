"""Checks of jobs whose optimizer does not descend along the gradient of a batch. They look at the job
alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from distbp.core.errors import Fault
from distbp.optim import OPTIMIZERS

if TYPE_CHECKING:
    from distbp.job.training_job import TrainingJob


def whole_batches_fit(job: TrainingJob) -> Iterator[Fault]:
    """A line search compares losses at several points, so all must be values of one function of the
    parameters, and the gradient must be that function's."""
    name = job.optimizer.type
    if not job.optimizer.whole_batch:
        return
    if job.batch_size != "full":
        yield Fault(
            "batch_size",
            f"must be full with {name}, whose every step takes the whole training set, not {job.batch_size};"
            " leave it out",
        )
    if job.regularization.l1:
        yield Fault(
            "regularization.l1",
            f"has no gradient at 0, where {name} would stop; use regularization.l2, or another optimizer",
        )
    if job.clip is not None:
        yield Fault("clip", f"would give {name} another gradient than that of the loss; leave it out")
    if any(group.rate != 1 for group in (job.parameter_groups or {}).values()):
        yield Fault(
            "parameter_groups",
            f"give tensors a rate, and {name} has none: it searches for its step length; leave them out",
        )
    for index, layer in enumerate(job.model.layers):
        path = f"model.layers.{index}"
        if layer.random:
            yield Fault(
                path,
                f"{layer.type} makes the loss random, and {name} compares losses of different steps; leave it"
                " out, or use another optimizer",
            )
        if layer.rows_needed > 1:
            yield Fault(
                path,
                f"{layer.type} keeps running statistics, which would include points that {name} tries and"
                " rejects; use layer_normalization, or another optimizer",
            )


def copies_fit(job: TrainingJob) -> Iterator[Fault]:
    """Evolution evaluates copies of the parameters as in prediction."""
    name = job.optimizer.type
    for index, layer in enumerate(job.model.layers if job.optimizer.copies else ()):
        if layer.random or layer.rows_needed > 1:
            yield Fault(
                f"model.layers.{index}",
                f"{layer.type} learns or draws while a gradient is computed, but {name} computes no gradient;"
                " leave it out, or use another optimizer",
            )


def one_server_fits(job: TrainingJob) -> Iterator[Fault]:
    if (job.optimizer.whole_batch or job.optimizer.copies) and job.servers > 1:
        yield Fault(
            "servers",
            f"must be 1 with {job.optimizer.type}, whose step looks at the whole vector, not {job.servers}",
        )


def takes_whole_batches(optimizer: Any) -> bool:
    """Whether an optimizer, unchecked and in any spelling, takes the whole training set in each step."""
    name = optimizer if isinstance(optimizer, str) else getattr(optimizer, "type", None)
    if isinstance(optimizer, Mapping):
        name = optimizer.get("type")
    kind: Any = OPTIMIZERS.get(name) if isinstance(name, str) else None
    return kind is not None and bool(kind.whole_batch)
