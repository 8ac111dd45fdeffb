"""Evaluation: loss and metrics of a split, cut by shard and combined in the fixed tree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from distbp.blueprint import EVALUATION_ROWS, Blueprint
from distbp.data.batches import Rows
from distbp.nn.arrays import Array
from distbp.nn.kernels import Kernels
from distbp.nn.network import Network
from distbp.nn.program import Program
from distbp.reduction import Block, middle


@dataclass(frozen=True)
class Evaluation:
    """Sums over some rows: `sums` float64 = [loss, loss weight, then each metric's sums]. `scores`,
    `targets`, `weights`: the rows themselves, for the metrics that need all of them (else None)."""

    sums: Array
    scores: Array | None = None
    targets: Array | None = None
    weights: Array | None = None


class Evaluator:
    """Evaluates `network` over `vector`, which it reads at every call."""

    def __init__(self, blueprint: Blueprint, network: Network, kernels: Kernels, vector: Array) -> None:
        self._blueprint = blueprint
        self._metrics = blueprint.metrics(network)
        self._program = Program(network, EVALUATION_ROWS, vector, kernels=kernels, loss=blueprint.job.loss)
        self._x = np.empty((EVALUATION_ROWS, *network.input_shape), network.input_dtype)

    def sums(self, data: Rows, start: int, stop: int) -> Evaluation:
        """The sums over rows [start, stop) of `data`, at most `EVALUATION_ROWS` rows at a time."""
        metrics, program = self._metrics, self._program
        sums = np.zeros(2 + sum(m.size for m in metrics))
        collect = any(m.collect for m in metrics)
        kept: list[tuple[Array, Array, Array | None]] = []
        for first in range(start, stop, EVALUATION_ROWS):
            rows = np.arange(first, min(first + EVALUATION_ROWS, stop), dtype=np.int64)
            x = self._x[: len(rows)]
            data.gather(rows, x)
            targets = data.targets[rows]
            sample_weights = None if data.weights is None else data.weights[rows]
            weights = self._blueprint.weights_of(targets, sample_weights)
            program.run(x, targets, weights)
            sums[:2] += program.totals[:2]
            outputs = program.outputs(len(rows))
            place = 2
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


def combine(parts: Sequence[Evaluation]) -> Evaluation:
    """The evaluation of a whole split from those of its shards, in shard order, summed in the fixed tree."""

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


def values(blueprint: Blueprint, network: Network, whole: Evaluation, prefix: str) -> Mapping[str, float]:
    """`{prefix}_loss` and `{prefix}_{metric}` of a whole split."""
    found = {f"{prefix}_loss": float(whole.sums[0] / whole.sums[1])}
    place = 2
    for metric in blueprint.metrics(network):
        if metric.collect:
            assert whole.scores is not None and whole.targets is not None
            value = metric.finish_collected(whole.scores, whole.targets, whole.weights)
        else:
            value = metric.finish(whole.sums[place : place + metric.size])
        place += metric.size
        found[f"{prefix}_{metric.name}"] = float(value)
    return found
