"""A worker computes forward and backward passes over the slices of its shards.

The class knows no exchange and no cluster. It reads one flat parameter vector, which its host keeps current,
and writes sums: a gradient vector and a few float64 totals for each block of the tree.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np

from distbp.core.arrays import Array, aligned_vector
from distbp.core.reduction import Block, middle
from distbp.data.batches import Holdings, ShardReader
from distbp.engine.blueprint import Blueprint
from distbp.engine.copies import Copies
from distbp.engine.evaluation import Evaluation, Evaluator
from distbp.engine.totals import BOUND, LIVE, LOSS, ROWS, WEIGHT, totals_size
from distbp.nn import kernels as kernel_sets
from distbp.nn.program import Program
from distbp.nn.tape import TOTALS

if TYPE_CHECKING:
    from distbp.optim.evolution import Evolution


class Worker:
    """`vector`: the flat parameter vector (size,), read at every step. `data`: the rows of this process.

    Call all methods within `numerics.one_blas_thread`.
    """

    def __init__(self, blueprint: Blueprint, vector: Array, data: Holdings) -> None:
        self.blueprint = blueprint
        self.network = blueprint.network()
        self.vector = vector
        self._data = data
        self._sharding = blueprint.sharding()
        self._kernels = kernel_sets.load(blueprint.kernels)
        self._readers: dict[int, ShardReader] = {}
        self._programs: dict[int, tuple[Program, Array]] = {}  # by id of the gradient
        self._work: Array | None = None
        self._evaluator: Evaluator | None = None
        self._copies: Copies | None = None
        self._scratch: list[tuple[Array, Array]] = []  # sums of right halves of the tree, by depth

    @property
    def totals_size(self) -> int:
        return totals_size(self.blueprint)

    def compute(self, step: int, block: Block, gradient: Array, totals: Array) -> None:
        """Computes the sums of a block at `step` into `gradient` (`Blueprint.pushed`,), in the job's dtype,
        and `totals` (totals_size,), float64.

        Pass the same array objects at every step: the first call binds the backward pass to them. The same
        arguments and parameters give the same bits in every process with the same numerics fingerprint.
        """
        self._reduce(step, block, gradient, totals, 0)

    def evaluate(self, split: str, shard: int) -> Evaluation:
        """The sums of loss and metrics over one shard's part of a split; `evaluation.combine` joins them."""
        rows, start, stop = self._data.split(split, shard)
        if self._evaluator is None:
            self._evaluator = Evaluator(self.blueprint.job.loss, self.network, self._kernels, self.vector)
        return self._evaluator.sums(self.blueprint.measures(self.network, split), rows, start, stop)

    def rows(self, step: int, shard: int) -> Array:
        """Row numbers of the training set in a shard's slice at `step`, int64."""
        return self.reader(shard).rows(step)

    def forget(self) -> None:
        """Drops all programs. Call it when the exchange has replaced the gradient buffers that they write."""
        self._programs.clear()

    def _reduce(self, step: int, block: Block, gradient: Array, totals: Array, depth: int) -> None:
        if block.stop - block.start == 1:
            self._shard(step, block.start, gradient, totals)
            return
        half = middle(block)
        self._reduce(step, Block(block.start, half), gradient, totals, depth)
        if depth == len(self._scratch):
            self._scratch.append((aligned_vector(len(gradient), self.vector.dtype), np.zeros_like(totals)))
        right, right_totals = self._scratch[depth]
        self._reduce(step, Block(half, block.stop), right, right_totals, depth + 1)
        np.add(gradient, right, out=gradient)
        np.add(totals, right_totals, out=totals)

    def _shard(self, step: int, shard: int, gradient: Array, totals: Array) -> None:
        reader = self._readers.get(shard) or self.reader(shard)
        if self.blueprint.job.optimizer.copies:
            self._losses_of_copies(step, reader, totals)
            return
        x, targets, weights, rows = reader.slice(step)
        if rows == 0:  # a last batch with fewer rows than shards
            gradient.fill(0)
            totals.fill(0)
            return
        program = self._program(gradient)
        program.run(x, targets, weights, step, shard)
        totals[LOSS], totals[WEIGHT], totals[BOUND] = program.totals[:TOTALS]
        totals[LIVE:BOUND] = program.totals[TOTALS : TOTALS + program.lowered.live]
        # One row has no variance, so it does not enter running statistics (see `BatchNormalization`).
        totals[ROWS] = rows if rows > 1 or not self.network.statistics else 0

    def _losses_of_copies(self, step: int, reader: ShardReader, totals: Array) -> None:
        if self._copies is None:
            evolution = cast("Evolution", self.blueprint.job.optimizer)
            self._copies = Copies(evolution, self.blueprint, self.network, self._kernels, self.vector)
        self._copies.evaluate(step, reader.slice(step), totals)

    def reader(self, shard: int) -> ShardReader:
        """The reader that gathers a shard's slices; made at the first call."""
        if shard not in self._readers:
            rows, dealt = self._data.train(shard)
            self._readers[shard] = ShardReader(rows, dealt, self._sharding, shard, self.network.input_dtype)
        return self._readers[shard]

    def _program(self, gradient: Array) -> Program:
        """The program that writes `gradient`, found by the array's id. The array is kept, so that no other
        array can get its id."""
        if id(gradient) not in self._programs:
            program = Program(
                self.network,
                self._sharding.slice_rows(0, 0),
                self.vector,
                kernels=self._kernels,
                loss=self.blueprint.job.loss,
                gradient=gradient,
                seed=self.blueprint.job.seed,
                steps=self.blueprint.total_steps,
                past=self.blueprint.past.steps,
                work=self._work,
            )
            self._work = program.work
            self._programs[id(gradient)] = program, gradient
        return self._programs[id(gradient)][0]
