"""A worker: forward and backward over the slices of its shards.

A plain class: it knows no exchange and no cluster. It reads one flat parameter vector (which somebody else
keeps current) and writes sums: a gradient vector and a few float64 totals for each block of the tree.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from distbp.blueprint import Blueprint
from distbp.data.batches import Holdings, ShardReader
from distbp.evaluation import Evaluation, evaluate_shard
from distbp.nn import kernels as kernel_sets
from distbp.nn.kernels import Kernels
from distbp.nn.layers.base import Array, Position
from distbp.nn.losses import SoftmaxCrossEntropy
from distbp.nn.network import Arena, Live, Network, aligned_vector
from distbp.reduction import Block, middle
from distbp.totals import BOUND, LIVE, LOSS, ROWS, WEIGHT, totals_size

Sums = Callable[[Array, Array, Array | None], tuple[float, float]]


class Bound(NamedTuple):
    """Forward, loss and backward bound to a gradient vector: `sums(x, targets, weights)` fills it and returns
    the loss sum and the bound (see `distbp.totals`). Found by the identity of `gradient`, which is kept here
    so that it stays taken."""

    sums: Sums
    live: Live
    gradient: Array


class Worker:
    """`vector`: the flat parameter vector (size,), read at every step. `data`: the rows it can reach.

    Call it within `numerics.one_blas_thread`.
    """

    def __init__(self, blueprint: Blueprint, vector: Array, data: Holdings) -> None:
        self.blueprint = blueprint
        self.network = blueprint.network()
        self.vector = vector
        self._data = data
        self._sharding = blueprint.sharding()
        self._kernels = kernel_sets.load(blueprint.kernels)
        self._arena = Arena()
        self._position = Position()
        self._readers: dict[int, ShardReader] = {}
        self._bound: dict[tuple[int, int], Bound] = {}  # (rows, id of the gradient)
        self._scratch: list[tuple[Array, Array]] = []  # right halves of the tree, by depth

    @property
    def totals_size(self) -> int:
        return totals_size(self.blueprint)

    def compute(self, step: int, block: Block, gradient: Array, totals: Array) -> None:
        """Computes the sums of a block at `step` into `gradient` (size,) and `totals` (totals_size,) float64.

        Pass the same array objects at every step: the backward pass is bound to them at the first.
        Does not wait. The same arguments and parameters
        give the same bits in every process with the same numerics fingerprint.
        """
        self._reduce(step, block, gradient, totals, 0)

    def evaluate(self, split: str, shard: int) -> Evaluation:
        """The metric sums of one shard's part of a split (for the tree over shards)."""
        rows, start, stop = self._data.split(split, shard)
        measures = self.blueprint.measures(self.network, split)
        return evaluate_shard(measures, self.network, self._kernels, self.vector, rows, start, stop)

    def rows(self, step: int, shard: int) -> Array:
        """Row numbers of the training set in a shard's slice at `step`, int64."""
        return self.reader(shard).rows(step)

    def forget(self) -> None:
        """Drops programs bound to old gradient buffers, when the exchange has replaced them."""
        self._bound.clear()

    def _reduce(self, step: int, block: Block, gradient: Array, totals: Array, depth: int) -> None:
        if block.stop - block.start == 1:
            self._shard(step, block.start, gradient, totals)
            return
        half = middle(block)
        self._reduce(step, Block(block.start, half), gradient, totals, depth)
        if depth == len(self._scratch):
            self._scratch.append(
                (aligned_vector(self.network.size, self.vector.dtype), np.zeros_like(totals))
            )
        right, right_totals = self._scratch[depth]
        self._reduce(step, Block(half, block.stop), right, right_totals, depth + 1)
        np.add(gradient, right, out=gradient)
        np.add(totals, right_totals, out=totals)

    def _shard(self, step: int, shard: int, gradient: Array, totals: Array) -> None:
        reader = self._readers.get(shard) or self.reader(shard)
        x, targets, weights, rows = reader.slice(step)
        if rows == 0:  # a last batch with fewer rows than shards
            gradient.fill(0)
            totals.fill(0)
            return
        key = (rows, id(gradient))
        bound = self._bound.get(key) or self._bind(key, gradient)
        position = self._position
        position.step, position.shard = step, shard
        totals[LOSS], totals[BOUND] = bound.sums(x, targets, weights)
        totals[WEIGHT] = rows if weights is None else weights.sum(dtype=np.float64)
        # One row has no variance: it stays out of running statistics (see `BatchNormalization`).
        totals[ROWS] = rows if rows > 1 or not self.network.statistics else 0
        place = LIVE
        for _, live in bound.live:
            rows_of_units = live()
            totals[place : place + len(rows_of_units)] = rows_of_units
            place += len(rows_of_units)

    def reader(self, shard: int) -> ShardReader:
        """What gathers a shard's slices."""
        if shard not in self._readers:
            rows, dealt = self._data.train(shard)
            self._readers[shard] = ShardReader(rows, dealt, self._sharding, shard, self.blueprint.dtype)
        return self._readers[shard]

    def _bind(self, key: tuple[int, int], gradient: Array) -> Bound:
        rows, job, kernels = key[0], self.blueprint.job, self._kernels
        if stacks(self.network, job.loss, kernels):
            from distbp.nn.dense_stack import DenseStack  # loads Numba

            assert kernels.gemm is not None
            stack = DenseStack(self.network, rows, self.vector, gradient, kernels.gemm(self.network.dtype))
            self._bound[key] = Bound(stack.sums, stack.live, gradient)
            return self._bound[key]
        program = self.network.bind(
            rows,
            self.vector,
            gradient,
            kernels=kernels,
            arena=self._arena,
            position=self._position,
            seed=job.seed,
        )
        loss = job.loss.bind(rows, self.network.output_shape, self.network.dtype, kernels)
        d_outputs = np.empty((rows, *self.network.output_shape), self.network.dtype)

        def sums(x: Array, targets: Array, weights: Array | None) -> tuple[float, float]:
            total = loss(program.forward(x), targets, weights, d_outputs)
            program.backward(d_outputs)
            return total, kernels.largest(gradient)

        self._bound[key] = Bound(sums, program.live, gradient)
        return self._bound[key]


def stacks(network: Network, loss: Any, kernels: Kernels) -> bool:
    """Whether a job's gradients are computed by one compiled call (`distbp.nn.dense_stack`)."""
    if kernels.gemm is None or not isinstance(loss, SoftmaxCrossEntropy) or loss.label_smoothing:
        return False
    from distbp.nn.dense_stack import covers  # loads Numba

    return covers(network)
