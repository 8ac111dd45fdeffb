"""A network that is ready to run: a tape, the memory that it uses, and an executor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from distbp.core.arrays import Array, aligned_vector
from distbp.nn.kernels import Kernels
from distbp.nn.losses.base import Loss, lower_loss
from distbp.nn.losses.several import Heads, Losses
from distbp.nn.lowered import lower
from distbp.nn.network import Network
from distbp.nn.run_tape import Executor, NumpyExecutor, Spaces, matrix
from distbp.nn.tape import LOSS_TOTAL, TOTALS, Ref, Row, Space, Tape, position


def executor(
    ops: Sequence[Row], most_rows: int, spaces: Spaces, kernels: Kernels, dtype: np.dtype[Any]
) -> Executor:
    """An executor for slices of at most `most_rows` rows. It is compiled if `kernels` has compiled ops and
    the dtype is float32; else it calls the definitions in NumPy."""
    if kernels.gemm is None or dtype != np.float32:
        return NumpyExecutor(ops, spaces)
    from distbp.nn.run_compiled import CompiledExecutor, products_of  # loads Numba

    return CompiledExecutor(ops, spaces, products_of(ops, most_rows, kernels, dtype))


class Program:
    """Runs a network on slices of at most `most_rows` rows.

    `vector`: the flat parameter vector (size,), which is only read. `loss`: if given, each run computes the
    loss, too. `gradient`: (size,); if given, the passes are those of training, and each run fills it.
    `forward_only`: leaves out the backward pass, and keeps the results of all layers and of the loss, so that
    they can be read. `seed`, `steps`: those of the job; `past`: the steps before the job. They decide the
    draws of dropout. `work`: memory to use if large enough. Programs that share it must not run concurrently.
    """

    def __init__(
        self,
        network: Network,
        most_rows: int,
        vector: Array,
        *,
        kernels: Kernels,
        loss: Loss | Losses | Heads | None = None,
        gradient: Array | None = None,
        seed: int = 0,
        steps: int = 0,
        past: int = 0,
        forward_only: bool = False,
        work: Array | None = None,
    ) -> None:
        self.network = network
        self.lowered = lowered = lower(
            network, most_rows, loss, training=gradient is not None, forward_only=forward_only
        )
        if work is None or len(work) < lowered.work:
            work = aligned_vector(lowered.work, network.dtype)
        self.work = work
        self.totals = np.zeros(lowered.totals)
        self._inputs = work[:0]  # those of the last run: the outputs of a network without layers
        self._position = position(seed=seed, steps=steps, past=past)
        spaces = {
            Space.PARAMETERS: vector,
            Space.WORK: work,
            Space.TOTALS: self.totals,
            Space.POSITION: self._position,
            Space.CONSTANTS: lowered.constants,
            Space.LABELS: np.zeros(lowered.labels, np.int64),
            Space.STATE: np.zeros(lowered.states, network.dtype),  # kept from run to run
        }
        if gradient is not None:
            spaces[Space.GRADIENT] = gradient
        self._executor = executor(lowered.rows, most_rows, spaces, kernels, network.dtype)

    def run(
        self,
        x: Array,
        targets: Array | None = None,
        weights: Array | None = None,
        step: int = 0,
        shard: int = 0,
    ) -> None:
        """Computes a slice; returns when it is done. x: (rows, *row_shape) of the network's `input_dtype`.
        targets: as the loss takes them; those of several outputs side by side (see
        `distbp.nn.losses.several`). weights: `Network.answers` for each row; None: all are 1. All are
        C-contiguous. `totals` then holds the loss sum, the weight, the bound of the gradient, and the live
        rows of each unit that can saturate."""
        self.totals[:] = 0
        self._position[0], self._position[1] = step, shard
        self._inputs = x
        self._executor.run(len(x), x, targets, weights)

    def outputs(self, rows: int) -> Array:
        """The outputs of the last run, a view (rows, *output_shape) that is valid until the next run."""
        return self._read(self.lowered.outputs, rows).reshape(rows, *self.network.output_shape)

    def activations(self, layer: int, rows: int) -> Array:
        """A layer's output in the last run, (rows, numbers of a sample), a view. Needs `forward_only`."""
        return self._read(self.lowered.activations[layer], rows)

    def loss_gradient(self, rows: int) -> Array:
        """The gradient of the loss with respect to the outputs, (rows, outputs). Needs `forward_only`."""
        return self._side_by_side(self.lowered.loss_gradients, rows)

    def losses(self, rows: int) -> Array:
        """The losses of the last run without weights, (rows, columns): one for each output; for labels, one
        for each target. A view; with several outputs a copy, without their factors."""
        return self._side_by_side(self.lowered.losses, rows)

    def own_losses(self) -> Array:
        """The loss sum of each of several outputs in the last run, float64, without its factor."""
        return self.totals[[total.start for total in self.lowered.own_totals]]

    def _side_by_side(self, refs: Sequence[Ref], rows: int) -> Array:
        parts = [self._read(ref, rows).reshape(rows, -1) for ref in refs]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    def _read(self, ref: Ref, rows: int) -> Array:
        space = {Space.WORK: self.work, Space.INPUTS: self._inputs.reshape(-1)}[Space(ref.space)]
        return matrix(space, ref, rows)


def loss_sum(loss: Loss, outputs: Array, targets: Array, weights: Array | None) -> float:
    """The weighted sum of the losses of outputs (rows, outputs), by the definitions in NumPy."""
    rows, columns = outputs.shape
    tape = Tape(rows, outputs.dtype, training=False)
    lower_loss(tape, loss, Ref(Space.INPUTS, 0, columns, 1))
    plan, totals = tape.planned(), np.zeros(TOTALS)
    spaces = {Space.WORK: np.empty(plan.work, outputs.dtype), Space.TOTALS: totals}
    NumpyExecutor(plan.rows, spaces).run(rows, outputs, targets, weights)
    return float(totals[LOSS_TOTAL.start])
