"""What every process of a job must agree on, and what each builds from it for itself.

The trainer opens the data, checks the job against it, and makes a `Blueprint`: plain, picklable, small. The
parameter server and each worker build their network, loss and update rule from it. Nothing in it depends on
the number of workers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from distbp.data.sharding import Sharding
from distbp.job import TrainingJob
from distbp.metrics import BoundMetric, metrics_for
from distbp.nn.layers.base import Array, Shape
from distbp.nn.network import Network

# Rows of one forward pass in evaluation. Part of the numerics: it decides the shapes of the products.
EVALUATION_ROWS = 1024


@dataclass(frozen=True)
class Blueprint:
    """`shards` is resolved (never "auto"). `rows`: of each split, by name ("train", "validation", "test").
    `class_weights`: (classes,) float64 or None. `kernels`: the kernel set's name, resolved."""

    job: TrainingJob
    shards: int
    input_shape: Shape
    rows: Mapping[str, int]
    kernels: str
    class_weights: tuple[float, ...] | None = None
    preprocessing: Mapping[str, Any] = field(default_factory=dict)

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.job.dtype)

    def network(self) -> Network:
        return Network(self.job.layers(), self.input_shape, self.dtype)

    def sharding(self) -> Sharding:
        job = self.job
        return Sharding(
            self.rows["train"], job.batch_size, self.shards, job.seed, job.shuffle, job.drop_last
        )

    def metrics(self, network: Network) -> list[BoundMetric]:
        loss = self.job.loss_function()
        return metrics_for(loss, network.output_shape, self.job.metrics)

    def weights_of(self, targets: Array, sample_weights: Array | None) -> Array | None:
        """Per-row weights in the loss, (rows,) in the job's dtype: class weight x sample weight; None: all 1."""
        weights = sample_weights
        if self.class_weights is not None:
            by_class = np.asarray(self.class_weights)[targets]
            weights = by_class if weights is None else by_class * weights
        return None if weights is None else np.ascontiguousarray(weights, self.dtype)
