"""Chooses the engine that updates the flat vector, from the job's optimizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from distbp.core.arrays import Array
from distbp.engine.blueprint import Blueprint
from distbp.nn import kernels
from distbp.optim import Rule, Searching, Updater, chain
from distbp.optim.groups import Rates
from distbp.optim.whole_batch import WholeBatch


def updater_of(
    blueprint: Blueprint,
    parameters: Array,
    decays: Sequence[tuple[int, int]],
    rates: Rates,
    tensors: Sequence[tuple[int, int]],
    slots: Mapping[str, Array] | None,
    threads: int,
) -> Updater | Searching:
    """The engine that updates `parameters` (count,) in place. The other arguments are those of `Updater`;
    slots are copied."""
    slots = None if slots is None else {name: values.copy() for name, values in slots.items()}
    job = blueprint.job
    if job.optimizer.whole_batch:
        l2 = job.regularization.l2
        method = cast("WholeBatch", job.optimizer)
        return Searching(method, parameters, decays, l2=l2, tensors=tensors, slots=slots)
    return Updater(
        blueprint.update_rule(),
        parameters,
        decays,
        tensors=tensors,
        rates=rates,
        slots=slots,
        compiled=kernels.load(blueprint.kernels).gemm is not None,
        threads=threads,
    )


def state_vectors(optimizer: Any) -> int:
    """The number of vectors, each as long as the parameters, that an optimizer keeps from step to step."""
    if optimizer.whole_batch:
        return 4 + sum(cast("WholeBatch", optimizer).slots.values())  # direction, gradient, point, trial
    return len(Rule(chain(optimizer)).slots)
