"""Evaluation: loss and metrics of a split. Each shard evaluates a part; the fixed tree combines the sums.

Training and `Model.evaluate` call the same functions with the same shards, so they give the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from distbp.core.arrays import Array
from distbp.core.reduction import Block, middle
from distbp.data.batches import Rows, TrainingRows
from distbp.data.series import begins_of, side_by_side
from distbp.nn.kernels import Kernels
from distbp.nn.losses.base import Loss
from distbp.nn.losses.several import Heads, Losses
from distbp.nn.metrics import BoundMetric
from distbp.nn.network import Network
from distbp.nn.program import Program

# The most rows of one forward pass. Part of the numerics: this number decides the shapes of the products.
EVALUATION_ROWS = 1024


@dataclass(frozen=True)
class Measures:
    """The losses and metrics to compute. `class_weights`: one for each class, or None; they weigh the loss,
    not the metrics."""

    heads: Heads
    metrics: Sequence[BoundMetric]
    class_weights: tuple[float, ...] | None

    @property
    def losses(self) -> list[str]:
        """The names of the losses: "loss" and, of a network with several outputs, one for each output."""
        return ["loss", *(head.metric("loss") for head in self.heads if self.heads.several)]

    @property
    def names(self) -> list[str]:
        """The names of the losses and metrics, in order."""
        return [*self.losses, *(metric.name for metric in self.metrics)]

    @property
    def first(self) -> int:
        """The place in `Evaluation.sums` at which the sums of the metrics begin."""
        return 1 + len(self.losses)


@dataclass(frozen=True)
class Evaluation:
    """Sums over some rows. `sums`, float64: the loss, its weight, the loss of each output if there are
    several outputs, then each metric's sums. `scores`, `targets`, `weights`: outputs, targets and sample
    weights of all these rows, for metrics that need every row; else None."""

    sums: Array
    scores: Array | None = None
    targets: Array | None = None
    weights: Array | None = None


def loss_weights(
    class_weights: tuple[float, ...] | None, targets: Array, sample_weights: Array | None, dtype: Any
) -> Array | None:
    """Each row's weight in the loss, (rows,) in `dtype`: class weight x sample weight. None: all are 1."""
    weights = sample_weights
    if class_weights is not None:
        by_class = np.asarray(class_weights)[targets]
        weights = by_class if weights is None else by_class * weights
    return None if weights is None else np.ascontiguousarray(weights, dtype)


class Evaluator:
    """Evaluates `network` with its losses over `vector`, which it reads at every call."""

    def __init__(
        self, loss: Loss | Losses | Heads, network: Network, kernels: Kernels, vector: Array
    ) -> None:
        self._network = network
        self._program = Program(network, EVALUATION_ROWS, vector, kernels=kernels, loss=loss)
        self._x = np.empty((EVALUATION_ROWS, *network.row_shape), network.input_dtype)

    def sums(self, measures: Measures, data: Rows, start: int, stop: int) -> Evaluation:
        """The sums over rows [start, stop) of `data`, at most `EVALUATION_ROWS` rows at a time. If rows are
        windows of series, `data` is `PreparedRows`, and series are evaluated side by side, each from its
        beginning."""
        metrics, program = measures.metrics, self._program
        begin = measures.first
        sums = np.zeros(begin + sum(m.size for m in metrics))
        collect = any(m.collect for m in metrics)
        kept: list[tuple[Array, Array, Array | None]] = []
        for rows in self._slices(data, start, stop):
            x = self._x[: len(rows)]
            data.gather(rows, x)
            targets = data.targets[rows]
            sample_weights = None if data.weights is None else data.weights[rows]
            weights = loss_weights(measures.class_weights, targets, sample_weights, x.dtype)
            program.run(x, targets, weights)
            sums[:2] += program.totals[:2]
            if measures.heads.several:
                sums[2:begin] += program.own_losses()
            outputs = program.outputs(len(rows))
            if self._network.carry is not None:
                outputs, targets, sample_weights = step_by_step(outputs, targets, sample_weights)
            place = begin
            for metric in metrics:
                if not metric.collect:
                    metric.accumulate(outputs, targets, sample_weights, sums[place : place + metric.size])
                place += metric.size
            if collect:
                kept.append((outputs.copy(), targets, sample_weights))
        if not kept:
            return Evaluation(sums)
        weighted = kept[0][2] is not None
        return Evaluation(
            sums,
            np.concatenate([k[0] for k in kept]),
            np.concatenate([k[1] for k in kept]),
            np.concatenate([k[2] for k in kept if k[2] is not None]) if weighted else None,
        )

    def _slices(self, data: Rows, start: int, stop: int) -> Iterator[Array]:
        """Yields the row numbers of each forward pass, int64."""
        if self._network.carry is not None:
            begins = begins_of(cast("TrainingRows", data).inputs, slice(start, stop))
            for rows in side_by_side(begins, EVALUATION_ROWS):
                yield start + rows
            return
        for first in range(start, stop, EVALUATION_ROWS):
            yield np.arange(first, min(first + EVALUATION_ROWS, stop), dtype=np.int64)


def step_by_step(outputs: Array, targets: Array, weights: Array | None) -> tuple[Array, Array, Array | None]:
    """Turns windows into single steps: outputs (rows, steps, outputs), targets and weights become arrays with
    rows * steps rows."""
    count = outputs.shape[-1]
    labels = targets.dtype.kind in "iu"
    return (
        outputs.reshape(-1, count),
        targets.reshape(-1) if labels else targets.reshape(-1, count),
        None if weights is None else weights.reshape(-1),
    )


def combine(parts: Sequence[Evaluation]) -> Evaluation:
    """Combines the evaluations of a split's shards, given in shard order: the fixed tree adds up their sums,
    and their rows are concatenated."""

    def reduce(block: Block) -> Array:
        if block.size == 1:
            return parts[block.start].sums
        half = middle(block)
        total: Array = reduce(Block(block.start, half)) + reduce(Block(half, block.stop))
        return total

    def joined(name: str) -> Array | None:
        arrays = [getattr(p, name) for p in parts if getattr(p, name) is not None]
        return np.concatenate(arrays) if arrays else None

    return Evaluation(reduce(Block(0, len(parts))), joined("scores"), joined("targets"), joined("weights"))


def values(measures: Measures, whole: Evaluation) -> dict[str, float]:
    """The values of a whole split by name: `loss`, the loss of each of several outputs (`digit.loss`, without
    its factor), and each metric. NaN if all rows weigh 0; all are NaN if outputs are so large that the loss
    is."""
    lost = [whole.sums[0], *whole.sums[2 : measures.first]]
    weight, found = whole.sums[1], {}
    for name, total in zip(measures.losses, lost, strict=True):
        found[name] = float(total / weight) if weight else math.nan
    place = measures.first
    for metric in measures.metrics:
        if metric.collect:
            assert whole.scores is not None and whole.targets is not None
            value = metric.finish_collected(whole.scores, whole.targets, whole.weights)
        else:
            value = metric.finish(whole.sums[place : place + metric.size])
        place += metric.size
        found[metric.name] = math.nan if math.isnan(found["loss"]) else float(value)
    return found
