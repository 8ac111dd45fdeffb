"""Checks of jobs that cut series into windows (`data.truncated_bptt_steps`). They look at the job alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from distbp.core.errors import Fault
from distbp.job.table_checks import has_table
from distbp.nn.losses.several import names_of
from distbp.nn.wiring import tearing

if TYPE_CHECKING:
    from distbp.job.training_job import TrainingJob

_FIELD = "data.truncated_bptt_steps"


def series_fit(job: TrainingJob) -> Iterator[Fault]:
    data = job.data
    if data.truncated_bptt_steps is None:
        return
    if has_table(job) or data.target is not None:
        yield Fault(_FIELD, "is for arrays whose rows are series; windows of a table are data.windows")
    if data.targets is not None:
        yield Fault(
            "data.targets", f"compares whole rows, but with {_FIELD} each step has a target; leave it out"
        )
    if data.bad_rows == "skip":
        yield Fault("data.bad_rows", f"must be refuse with {_FIELD}: a row is a whole series")
    if names_of(job.loss):
        yield Fault("loss", f"must be one loss with {_FIELD}, not one for each of several outputs")


def layers_carry(job: TrainingJob) -> Iterator[Fault]:
    if job.data.truncated_bptt_steps is None:
        return
    for place, message in tearing(job.model.layers):
        yield Fault(f"model.layers.{place}", message)
    if not any(layer.carries for layer in job.model.layers):
        yield Fault(
            _FIELD,
            "is for recurrent layers, and the network has none; add elman, gru or lstm, or leave it out",
        )


def batches_carry(job: TrainingJob) -> Iterator[Fault]:
    """Each step of training begins with the states at the end of the step before."""
    if job.data.truncated_bptt_steps is None:
        return
    name = job.optimizer.type
    if job.optimizer.whole_batch or job.optimizer.copies:
        yield Fault(
            "optimizer", f"{name} carries no states from step to step; take another, or leave {_FIELD} out"
        )
    elif job.batch_size == "full":
        yield Fault("batch_size", "full takes all windows at once, so none follows another; give a number")
