"""The origin of NaN or Inf: a step that failed is computed again, layer by layer, with checks.

Any step can be recomputed from its parameters. So training checks only the whole sum of each step.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from distbp.core.arrays import Array
from distbp.core.errors import NumericsError
from distbp.data.batches import Holdings, ShardReader
from distbp.engine.blueprint import Blueprint
from distbp.nn import kernels as kernel_sets
from distbp.nn.network import Network
from distbp.nn.program import Program
from distbp.nn.tape import ENTRY

MOST_ROWS = 10  # that an error names
_MEND_DATA = "Mend the data, or set data.bad_rows: skip."
_SMALLER = "Lower optimizer.learning_rate, set clip, or scale the inputs (data.standardize: true)."

# Layer, tensor, its values, and a mask of the slice's rows that are at fault (None: not known).
Finding = tuple[str, str, Array, Array | None]


def diagnose(
    blueprint: Blueprint,
    vector: Array,
    data: Holdings,
    step: int,
    row_number: Callable[[int], int] = int,
) -> NumericsError:
    """Returns the error to raise, which names layer, tensor, NaN or Inf, and training rows. `vector`: the
    flat vector (size,) before `step`. `row_number`: from a row of the training table to its number in the
    file. Computes the step once more, in this process."""
    network = blueprint.network()
    for tensor in (*network.tensors, *network.statistics):
        values = vector[tensor.start : tensor.stop]
        if not np.isfinite(values).all():
            return NumericsError(
                step, _layer(network, tensor.layer), tensor.name, _kind(values), (), _SMALLER
            )
    for shard in range(blueprint.shards):
        rows, dealt = data.train(shard)
        reader = ShardReader(rows, dealt, blueprint.sharding(), shard, network.input_dtype)
        if not reader.slice(step).rows:
            continue
        with np.errstate(all="ignore"):
            found = _check_slice(blueprint, network, vector, reader, step)
        if found is not None:
            layer, tensor_name, values, bad = found
            numbers = [] if bad is None else [row_number(int(row)) for row in reader.rows(step)[bad]]
            advice = _MEND_DATA if layer == "the data" else _SMALLER
            return NumericsError(step, layer, tensor_name, _kind(values), sorted(numbers)[:MOST_ROWS], advice)
    return NumericsError(step, "the network", "sum of the gradients over the batch", "Inf", (), _SMALLER)


def _check_slice(
    blueprint: Blueprint, network: Network, vector: Array, reader: ShardReader, step: int
) -> Finding | None:
    x, targets, weights, count = reader.slice(step)
    if not np.isfinite(x).all():
        return "the data", "inputs", x, _bad_rows(x)
    if targets.dtype.kind == "f" and not np.isfinite(targets).all():
        return "the data", "targets", targets, _bad_rows(targets)
    gradient = np.zeros_like(vector)

    def run(forward_only: bool) -> Program:
        program = Program(
            network,
            count,
            vector,
            kernels=kernel_sets.load(blueprint.kernels),
            loss=blueprint.job.loss,
            gradient=gradient,
            seed=blueprint.job.seed,
            steps=blueprint.total_steps,
            forward_only=forward_only,
        )
        program.run(x, targets, weights, step, reader.shard)
        return program

    program = run(forward_only=True)
    for index in range(len(network.layers)):
        values = program.activations(index, count)
        if not np.isfinite(values).all():
            return _layer(network, index), "outputs", values, _bad_rows(values)
    for name, values in (("value", program.losses(count)), ("gradient", program.loss_gradient(count))):
        if not np.isfinite(values).all():
            return "the loss", name, values, _bad_rows(values)
    run(forward_only=False)
    for tensor in (*reversed(network.tensors), *network.statistics):
        values = gradient[tensor.start : tensor.stop]
        if not np.isfinite(values).all():
            name = f"running {tensor.name}" if tensor.rate else f"gradient of the {tensor.name}"
            return _layer(network, tensor.layer), name, values, None
    return None


def _layer(network: Network, index: int) -> str:
    return "the columns" if index == ENTRY else f"layer {index} ({network.layers[index].type})"


def _kind(values: Array) -> str:
    return "NaN" if np.isnan(values).any() else "Inf"


def _bad_rows(values: Array) -> Array:
    return np.asarray(~np.isfinite(values.reshape(len(values), -1)).all(axis=1))
