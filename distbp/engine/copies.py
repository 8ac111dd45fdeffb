"""A worker's part in evolution: the losses of perturbed copies of the parameters on a slice."""

from __future__ import annotations

import numpy as np

from distbp.core.arrays import Array, aligned_vector
from distbp.data.batches import Slice
from distbp.engine.blueprint import Blueprint
from distbp.engine.totals import BOUND, LIVE, LOSS, ROWS, WEIGHT
from distbp.nn.kernels import Kernels
from distbp.nn.network import Network
from distbp.nn.program import Program
from distbp.nn.tape import LOSS_TOTAL, WEIGHT_TOTAL
from distbp.optim.evolution import Evolution, Noise


class Copies:
    """`vector`: the flat parameter vector (size,), read at every call. The network runs as in prediction:
    nothing is dropped out, and normalization uses its running statistics."""

    def __init__(
        self, evolution: Evolution, blueprint: Blueprint, network: Network, kernels: Kernels, vector: Array
    ) -> None:
        self._vector = vector
        self._pairs, self._sigma = evolution.copies // 2, evolution.sigma
        self._copy = aligned_vector(network.size, vector.dtype)
        self._noise = Noise(blueprint.job.seed, network.parameter_count, vector.dtype, blueprint.past.steps)
        most = blueprint.sharding().slice_rows(0, 0)
        self._program = Program(network, most, self._copy, kernels=kernels, loss=blueprint.job.loss)

    def evaluate(self, step: int, rows: Slice, totals: Array) -> None:
        """Writes the totals of a slice (see `distbp.engine.totals`): the loss of the parameters themselves,
        and the losses of their copies. The copies of pair n are the parameters plus and minus
        `sigma` * noise n."""
        totals.fill(0)
        if rows.rows == 0:
            return
        self._copy[:] = self._vector
        totals[LOSS] = self._loss(rows)
        totals[WEIGHT], totals[ROWS] = self._program.totals[WEIGHT_TOTAL.start], rows.rows
        losses, sigma = totals[LIVE:BOUND], self._copy.dtype.type(self._sigma)
        for pair in range(self._pairs):
            noise = self._noise.at(step, pair)
            np.multiply(noise, sigma, out=noise)
            np.add(self._vector, noise, out=self._copy)
            losses[2 * pair] = self._loss(rows)
            np.subtract(self._vector, noise, out=self._copy)
            losses[2 * pair + 1] = self._loss(rows)

    def _loss(self, rows: Slice) -> float:
        self._program.run(rows.x, rows.targets, rows.weights)
        return float(self._program.totals[LOSS_TOTAL.start])
