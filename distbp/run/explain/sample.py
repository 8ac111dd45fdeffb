"""The row for which a step is explained, as the engine takes it.

With windows of series it is a row of the step's batch, because only these have states from the step before.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from distbp.core.arrays import Array, aligned_vector
from distbp.core.errors import ArgumentError
from distbp.core.words import counted
from distbp.data.batches import Holdings
from distbp.engine.blueprint import Blueprint
from distbp.engine.worker import Worker
from distbp.nn.network import Network
from distbp.nn.wiring import DATA


class Sample(NamedTuple):
    """`number`: as the caller gave it. `row`: its number in the training set. `x`: (1, *row_shape). `target`:
    (1, ...), as the loss takes it. `weights`: of the targets, (targets, 1), with the sum 1; (0, 1) for a row
    with one target. `lane`: the number of its states among those of all shards; 0 without states."""

    number: int
    row: int
    lane: int
    x: Array
    target: Array
    weights: Array


def check_call(blueprint: Blueprint, sample: int, step: int) -> None:
    """Raises ArgumentError if the sample or the step does not exist."""
    rows, steps = blueprint.rows["train"], blueprint.total_steps
    if not 0 <= step < steps:
        raise ArgumentError(
            f"step is {step}, but the job has {counted(steps, 'step')}: 0 to {steps - 1} can come before;"
            " raise its epochs or max_steps"
        )
    where, what = "training set", "row"
    if blueprint.series:
        sharding = blueprint.sharding()
        rows = sharding.batch_rows(step % sharding.steps_per_epoch)
        where, what = f"batch of step {step}", "window"
    if not 0 <= sample < rows:
        there = f"{counted(rows, what)}, 0 to {rows - 1}" if rows > 1 else f"1 {what}, which is 0"
        raise ArgumentError(f"sample is {sample}, but the {where} has {there}")


def sample_of(
    blueprint: Blueprint, network: Network, worker: Worker, data: Holdings, number: int, step: int
) -> Sample:
    """The sample, after the steps before it. Raises ArgumentError if the row has no steps or the weight
    0."""
    row, lane = _in_batch(blueprint, worker, number, step) if blueprint.series else (number, 0)
    rows, _ = data.train(0)
    x = aligned_vector(math.prod(network.row_shape), network.input_dtype).reshape(1, *network.row_shape)
    rows.gather(np.array([row]), x)
    empty = [layer for layer, end in ends_of(network, x).items() if end == 0]
    if empty:
        where = "" if empty[0] == DATA else f" in its input {network.layers[empty[0]].name!r}"
        raise ArgumentError(
            f"sample {number} has no steps{where}, so there is nothing to explain; name another row"
        )
    weights = np.zeros((0, 1))
    if blueprint.series:
        given = np.ones(network.answers) if rows.weights is None else rows.weights[row].astype(np.float64)
        if not given.any():
            raise ArgumentError(
                f"sample {number} weighs nothing, so nothing is learned from it; name another"
            )
        weights = (given / given.sum()).reshape(-1, 1)
    return Sample(number, row, lane, x, rows.targets[[row]], weights)


def _in_batch(blueprint: Blueprint, worker: Worker, number: int, step: int) -> tuple[int, int]:
    """Maps the number of a row in the batch to its row in the training set and its lane of all shards."""
    lanes = blueprint.sharding().slice_rows(0, 0)
    slices = [worker.rows(step, shard) for shard in range(blueprint.shards)]
    places = [
        (int(row), shard * lanes + n) for shard, rows in enumerate(slices) for n, row in enumerate(rows)
    ]
    return places[number]


def ends_of(network: Network, x: Array) -> dict[int, int]:
    """The numbers of steps of the row x: of the data (-1) and of the output of each layer. Only data and
    outputs with lengths are included."""
    row = x.reshape(-1)
    own = {DATA: int(row[math.prod(network.input_shape)])} if network.lengths else {}
    for index, one in enumerate(network.named_inputs):
        if one.ragged:
            own[index] = int(row[one.end])
    return own | {
        index: own[source]
        for index, source in network.having_lengths.items()
        if index is not None and source is not None
    }


def with_states(network: Network, vector: Array, before: Array, lane: int) -> Array:
    """A copy of the vector in which the only row has the states of a lane of `before`."""
    found = aligned_vector(network.size, network.dtype)
    found[:] = vector
    for tensor in network.states:
        width = tensor.shape[-1]
        start = tensor.start + lane * width
        found[tensor.start : tensor.start + width] = before[start : start + width]
    return found
