"""Joins several networks with the same layers: their joined predictions are the mean of the members'."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from distbp.core.arrays import Array
from distbp.data.batches import Rows, TrainingRows
from distbp.data.series import begins_of
from distbp.data.sharding import evaluated_rows
from distbp.engine.evaluation import EVALUATION_ROWS, Evaluator, Measures, combine, values
from distbp.engine.numerics import kernel_set
from distbp.nn import kernels as kernel_sets
from distbp.nn.kernels import NUMPY, Kernels
from distbp.nn.losses.several import Heads
from distbp.nn.network import Network
from distbp.nn.program import Program


class Joined:
    """Runs one network for each of `vectors`, all with the same layers, over at most `most_rows` rows."""

    def __init__(
        self, heads: Heads, network: Network, vectors: Sequence[Array], most_rows: int, kernels: Kernels
    ) -> None:
        self._heads = heads
        self._programs: list[Program] = []
        for vector in vectors:
            work = self._programs[0].work if self._programs else None
            self._programs.append(Program(network, most_rows, vector, kernels=kernels, work=work))

    def outputs(self, x: Array) -> Array:
        """The outputs (rows, *output_shape) for prepared inputs x (rows, *row_shape), valid until the next
        call. With several networks these are outputs whose predictions are the mean of the networks'
        predictions, summed in order in float64. With windows of series, each network goes on from its states
        after the last call."""
        if len(self._programs) == 1:
            return self._of(self._programs[0], x)
        total: Any = 0.0
        for program in self._programs:
            y = self._of(program, x)
            total = total + self._heads.predictions(y.reshape(-1, y.shape[-1]).astype(np.float64))
        with np.errstate(over="ignore", under="ignore"):
            joined = self._heads.outputs_for(np.asarray(total / len(self._programs)))
            dtype = x.dtype if x.dtype.kind == "f" else self._programs[0].network.dtype
            return joined.astype(dtype).reshape(y.shape)

    def _of(self, program: Program, x: Array) -> Array:
        program.run(x)
        return program.outputs(len(x))


class _Outputs:
    """The joined outputs of a split's rows, as rows (see `distbp.data.batches.Rows`)."""

    def __init__(self, joined: Joined, network: Network, rows: Rows) -> None:
        self._joined, self._rows = joined, rows
        self.input_shape, self.targets, self.weights = network.output_shape, rows.targets, rows.weights
        self._x = np.empty((EVALUATION_ROWS, *network.row_shape), network.input_dtype)

    @property
    def inputs(self) -> Array:
        return cast("TrainingRows", self._rows).inputs

    def gather(self, rows: Array, out: Array) -> None:
        x = self._x[: len(rows)]
        self._rows.gather(rows, x)
        y = self._joined.outputs(x).reshape(len(rows), -1)
        x, out = x.reshape(len(rows), -1), out.reshape(len(rows), -1)  # views
        out[:, : y.shape[1]] = y
        out[:, y.shape[1] :] = x[:, x.shape[1] - (out.shape[1] - y.shape[1]) :]  # lengths and begins


def measured(
    measures: Measures,
    network: Network,
    vectors: Sequence[Array],
    kernels: Kernels,
    rows: Rows,
    count: int,
    shards: int,
) -> dict[str, float]:
    """The loss and metrics over the first `count` of `rows`, split into shards as in training. rows: for
    windows of series `PreparedRows`."""
    vector = vectors[0]
    if len(vectors) > 1:  # the rows are then outputs, and a network without layers computes their loss
        joined = Joined(measures.heads, network, vectors, EVALUATION_ROWS, kernels)
        rows = _Outputs(joined, network, rows)
        network = Network((), network.output_shape, network.dtype, carry=network.carry)
        vector = vector[:0]
    evaluator = Evaluator(measures.heads, network, kernels, vector)
    begins = None if network.carry is None else begins_of(cast("TrainingRows", rows).inputs)
    cuts = [evaluated_rows(count, shards, shard, begins) for shard in range(shards)]
    parts = [evaluator.sums(measures, rows, *cut) for cut in cuts]
    return values(measures, combine(parts))


def kernels_named(name: str) -> Kernels:
    """The kernel set with this name; if it cannot be loaded, NumPy's, whose last bits may differ."""
    try:
        return kernel_sets.load(kernel_set(name))
    except (ImportError, KeyError):
        return NUMPY
