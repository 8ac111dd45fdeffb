"""Where NaN or Inf came from: a step that failed is computed again, layer by layer, with checks.

Any step can be recomputed from its parameters, so the hot loop pays for one check of the whole sum only.
"""

from __future__ import annotations

import numpy as np

from distbp.blueprint import Blueprint
from distbp.data.batches import Holdings, ShardReader
from distbp.errors import NumericsError
from distbp.nn import kernels as kernel_sets
from distbp.nn.arrays import Array
from distbp.nn.network import Network, Program
from distbp.nn.layers.base import Position

MOST_ROWS = 10
ADVICE = {
    "inputs": "Mend the data, or set data.bad_rows: skip.",
    "outputs": "Lower optimizer.learning_rate, set clip, or scale the inputs (data.standardize: true).",
    "loss": "Lower optimizer.learning_rate, set clip, or scale the inputs (data.standardize: true).",
}


def diagnose(blueprint: Blueprint, vector: Array, data: Holdings, step: int) -> NumericsError:
    """The error that names layer, tensor, value and training rows. `vector`: the parameters before `step`."""
    network = blueprint.network()
    kernels = kernel_sets.load(blueprint.kernels)
    sharding = blueprint.sharding()
    for tensor in network.tensors:
        values = vector[tensor.start : tensor.stop]
        if not np.isfinite(values).all():
            return _error(network, step, tensor.layer, tensor.name, values, ())
    for shard in range(blueprint.shards):
        rows, dealt = data.train(shard)
        reader = ShardReader(rows, dealt, sharding, shard, blueprint.dtype)
        x, targets, weights, count = reader.slice(step)
        if not count:
            continue
        numbers = sharding.order(shard, sharding.dealt(shard), step // sharding.steps_per_epoch)
        first = sum(sharding.slice_rows(i, shard) for i in range(step % sharding.steps_per_epoch))
        numbers = numbers[first : first + count]
        gradient = np.zeros_like(vector)
        program = network.bind(
            count, vector, gradient, kernels=kernels, position=Position(step, shard), seed=blueprint.job.seed
        )
        with np.errstate(all="ignore"):
            found = _check_slice(blueprint, network, program, step, x, targets, weights, numbers, gradient)
        if found is not None:
            return found
    return NumericsError(
        step, "the network", "sum of the gradients over the batch", "Inf", (), ADVICE["outputs"]
    )


def _check_slice(
    blueprint: Blueprint,
    network: Network,
    program: Program,
    step: int,
    x: Array,
    targets: Array,
    weights: Array | None,
    numbers: Array,
    gradient: Array,
) -> NumericsError | None:
    if not np.isfinite(x).all():
        return NumericsError(
            step, "the data", "inputs", _kind(x), numbers[_bad_rows(x)][:MOST_ROWS], ADVICE["inputs"]
        )
    for index, forward in enumerate(program.forwards):
        x = forward(x)
        if not np.isfinite(x).all():
            return _error(network, step, index, "outputs", x, numbers[_bad_rows(x)])
    loss = blueprint.job.loss.bind(len(x), network.output_shape, network.dtype, kernel_sets.NUMPY)
    d_outputs = np.empty_like(x)
    value = loss(x, targets, weights, d_outputs)
    if not np.isfinite(value):
        one = blueprint.job.loss.bind(1, network.output_shape, network.dtype, kernel_sets.NUMPY)
        bad = [
            not np.isfinite(
                one(x[i : i + 1], targets[i : i + 1], None if weights is None else weights[i : i + 1], None)
            )
            for i in range(len(x))
        ]
        return NumericsError(
            step, "the loss", "value", _kind(np.array(value)), numbers[bad][:MOST_ROWS], ADVICE["loss"]
        )
    if not np.isfinite(d_outputs).all():
        rows = numbers[_bad_rows(d_outputs)]
        return NumericsError(
            step, "the loss", "gradient", _kind(d_outputs), rows[:MOST_ROWS], ADVICE["loss"]
        )
    program.backward(d_outputs)
    for tensor in reversed(network.tensors):
        values = gradient[tensor.start : tensor.stop]
        if not np.isfinite(values).all():
            return _error(network, step, tensor.layer, f"gradient of the {tensor.name}", values, ())
    return None


def _error(
    network: Network, step: int, layer: int, tensor: str, values: Array, rows: Array | tuple[()]
) -> NumericsError:
    name = f"layer {layer} ({network.layers[layer].type})"
    return NumericsError(step, name, tensor, _kind(values), rows[:MOST_ROWS], ADVICE["outputs"])


def _kind(values: Array) -> str:
    return "NaN" if np.isnan(values).any() else "Inf"


def _bad_rows(values: Array) -> Array:
    bad: Array = ~np.isfinite(values.reshape(len(values), -1)).all(axis=1)
    return bad
