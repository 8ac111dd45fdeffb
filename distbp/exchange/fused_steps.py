"""Many steps of a job with one shard in one compiled call, for the inline exchange (Numba, optional).

Where server and worker are one process and nothing has to be joined, a weight's gradient need not be written
out: it is computed for a few units at a time and applied while it lies in the nearest cache. Kernels,
products and their shapes are those of `dense_stack` and `optimizers.compiled`, in the same order for every
element, so the bits are those of `Worker.compute` and `ParameterServer.apply` for the same step.

What needs all gradients at once is left to those two: the last step of an epoch (norms, saturation),
clipping, and a step whose gradients are not known to be finite beforehand (see `bound_by_factors`).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from distbp.blueprint import Blueprint
from distbp.data.batches import Holdings, ShardReader
from distbp.data.compiled_rows import take_rows
from distbp.data.prepared import PreparedRows
from distbp.exchange.threaded_steps import ThreadedSteps, divides
from distbp.nn import kernels as kernel_sets
from distbp.nn.arrays import Array
from distbp.nn.dense_stack import (
    LINE,
    Plan,
    backward_to_biases,
    block,
    bound_by_factors,
    factors,
    plan,
    units_at_once,
)
from distbp.nn.gemm import PLAIN, TRANSPOSED, product
from distbp.nn.jit import jit
from distbp.nn.network import aligned_vector
from distbp.optimizers.compiled import Rule, rule_of, update
from distbp.optimizers.joined import constants_of_steps, slots_of
from distbp.parameter_server import ParameterServer
from distbp.schedules import PlateauState
from distbp.totals import SURELY_FINITE
from distbp.worker import stacks

# A call shall take some milliseconds: signals and requests to the run are heard between calls.
FLOPS_A_CALL = 1e9
MOST_STEPS = 256


@jit
def _train(
    places: Plan,
    vector: Array,
    gradient: Array,
    work: Array,
    part: Array,
    x: Array,
    labels: Array,
    losses: Array,
    totals: Array,
    inputs: Array,
    targets: Array,
    order: Array,
    rule: int,
    first: Array,
    second: Array,
    l2: float,
    biases_decay: bool,
    constants: Array,
    loss_sums: Array,
) -> int:
    """Steps on the rows of `order`, one for each line of `constants` (keep, and what follows it); returns how
    many were applied. A step that is not is left as if it had not begun."""
    rows = x.shape[0]
    scale = 1.0 / float(rows)
    for step in range(constants.shape[0]):
        take_rows(inputs, targets, order, step * rows, x, labels)
        loss = backward_to_biases(places, vector, gradient, work, x, labels, None, losses, totals)
        if not (np.isfinite(loss) and bound_by_factors(places, work, x) < SURELY_FINITE):
            return step
        keep, after_keep = constants[step, 0], constants[step, 1:]
        for i in range(places.units.size):
            dz, below = factors(places, work, x, i)
            units, features = dz.shape[1], below.shape[1]
            many = units_at_once(rows, units, features)
            for start in range(0, units, many):
                stop = min(start + many, units)
                at, to = places.weights[i] + start * features, places.weights[i] + stop * features
                some = block(part, at % LINE, stop - start, features)  # as it would lie in the gradient
                product(places.gemm, TRANSPOSED, PLAIN, dz[:, start:stop], below, some)
                update(
                    rule, vector[at:to], some.reshape(-1), first[at:to], second[at:to],
                    scale, l2, keep, after_keep,
                )  # fmt: skip
            at, to = places.biases[i], places.biases[i] + units
            update(
                rule, vector[at:to], gradient[at:to], first[at:to], second[at:to],
                scale, l2 if biases_decay else 0.0, keep if biases_decay else 1.0, after_keep,
            )  # fmt: skip
        loss_sums[step] = loss
    return len(constants)


class FusedSteps:
    """`run(step, stop, plateau)`: trains some steps from `step` on, and returns how many; 0: the next one is
    not for here."""

    def __init__(
        self,
        blueprint: Blueprint,
        rule: Rule,
        server: ParameterServer,
        reader: ShardReader,
        data: PreparedRows,
    ) -> None:
        self._server = server
        self._reader = reader
        self._rule = rule
        self._rows = rows = blueprint.job.batch_size
        network = blueprint.network()
        sharding = blueprint.sharding()
        self._steps_per_epoch = sharding.steps_per_epoch
        self._full_batches = sharding.rows // rows
        self._most = int(max(1, min(MOST_STEPS, FLOPS_A_CALL / (6 * rows * network.parameter_count))))
        kernels = kernel_sets.load(blueprint.kernels)
        assert kernels.gemm is not None
        places, work = plan(network, rows, kernels.gemm(network.dtype))
        shapes = [(above[0], below[0]) for below, above in pairwise(network.shapes)]
        largest = max(units_at_once(rows, units, below) * below for units, below in shapes)
        part = aligned_vector(largest + LINE, network.dtype)
        x = aligned_vector(rows * places.features, network.dtype).reshape(rows, places.features)
        first, second = slots_of(rule, server.slots, server.vector)
        scratch = np.empty(rows, data.targets.dtype), np.empty(rows), np.empty(rows, network.dtype)
        self._fixed = (
            places, server.vector, server.gradient, work, part, x, *scratch, data.inputs, data.targets,
        )  # fmt: skip
        self._state = rule.number, first, second, rule.l2, blueprint.job.regularization.biases
        self._losses = np.zeros(self._most)

    def run(self, step: int, stop: int, plateau: PlateauState) -> int:
        epoch, index = divmod(step, self._steps_per_epoch)
        steps = min(stop - step, self._full_batches - index, self._steps_per_epoch - 1 - index, self._most)
        if steps <= 0:
            return 0
        order = self._reader.order(epoch)[index * self._rows : (index + steps) * self._rows]
        constants = constants_of_steps(
            self._rule, self._server.learning_rate, plateau, range(step, step + steps)
        )
        done = int(_train(*self._fixed, order, *self._state, constants, self._losses))
        if done:
            self._server.advance(self._losses[:done], self._rows)
        return done

    def close(self) -> None:
        """There are no threads to end."""


def rows_for(blueprint: Blueprint, data: Holdings) -> PreparedRows | None:
    """The training rows where compiled code can read them as they lie, else None."""
    rows, _ = data.train(0)
    if not isinstance(rows, PreparedRows):
        return None
    ready = (
        rows.preprocessing is None
        and not isinstance(rows.inputs, np.memmap)  # whose pages must be given back
        and rows.inputs.flags.c_contiguous
        and rows.weights is None
    )
    # Else slices do not begin where vector instructions like it, and the worker may read them elsewhere.
    slice_rows = blueprint.job.batch_size // blueprint.shards
    aligned = slice_rows * blueprint.input_shape[0] % LINE == 0
    return rows if ready and aligned else None


def fused_steps(
    blueprint: Blueprint,
    server: ParameterServer,
    readers: Sequence[ShardReader],
    data: Holdings,
    threads: int = 1,
) -> FusedSteps | ThreadedSteps | None:
    """For a job that can be trained so, else None. readers: of the shards, those that step by step training
    uses, too; threads: that share the shards."""
    kernels = kernel_sets.load(blueprint.kernels)
    rule = rule_of(blueprint.update_rule())
    if rule is None or not stacks(blueprint.network(), blueprint.job.loss, kernels):
        return None
    rows = rows_for(blueprint, data)
    if rows is None:
        return None
    if blueprint.shards == 1:
        return FusedSteps(blueprint, rule, server, readers[0], rows)
    return ThreadedSteps(blueprint, rule, server, readers, rows, threads) if divides(blueprint) else None
