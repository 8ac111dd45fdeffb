"""The engine in one process without a run directory: blueprint, data, server and worker of a job."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from distbp import TrainingJob
from distbp.core.arrays import Array
from distbp.core.reduction import Block
from distbp.data.batches import WholeData
from distbp.engine.blueprint import Blueprint
from distbp.engine.parameter_server import Contribution, ParameterServer
from distbp.engine.totals import totals_size
from distbp.engine.worker import Worker
from distbp.run.blueprints import make_blueprint
from distbp.run.splits import Splits, open_splits

Data = tuple[Any, ...]


@dataclass(frozen=True)
class Rig:
    blueprint: Blueprint
    splits: Splits
    data: WholeData

    @property
    def shards(self) -> int:
        return self.blueprint.shards

    def training_arrays(self) -> tuple[Array, Array, Array]:
        """Inputs, targets and weights of all training rows, as the worker has them."""
        rows, _ = self.data.train(0)
        x = np.empty((self.blueprint.rows["train"], *rows.input_shape), self.blueprint.dtype)
        rows.gather(np.arange(len(x)), x)
        weights = np.ones(len(x), self.blueprint.dtype) if rows.weights is None else rows.weights
        return x, rows.targets, weights

    def start(self) -> Array:
        return self.blueprint.network().initialize(self.blueprint.job.seed)

    def server(self, vector: Array, **options: Any) -> ParameterServer:
        return ParameterServer(self.blueprint, vector, **options)

    def worker(self, vector: Array) -> Worker:
        return Worker(self.blueprint, vector, self.data)

    def contribution(self, vector: Array, block: Block) -> Contribution:
        return Contribution(block, np.full_like(vector, np.nan), np.full(totals_size(self.blueprint), np.nan))


def make_job(layers: Iterable[Any] = ({"type": "dense", "units": 3},), **fields: Any) -> TrainingJob:
    standard = {"loss": "softmax_cross_entropy", "batch_size": 8, "shards": 4, "workers": 0, "seed": 5}
    return TrainingJob(**{**standard, "model": {"layers": list(layers)}, **fields})


def make_rig(
    job: TrainingJob, train: Data, others: Mapping[str, Data] | None = None, kernels: str = "numpy"
) -> Rig:
    splits = open_splits(job, Path(), {"train": train, **(others or {})})
    blueprint = replace(make_blueprint(job, splits), kernels=kernels)
    return Rig(blueprint, splits, splits.ready(blueprint))


def classes(rows: int, features: int = 5, seed: int = 0, weighted: bool = False) -> Data:
    """Three classes that can be learned; inputs float64."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, features))
    y = (x[:, 0] > 0).astype(np.int64) + (x[:, 1] > 0)
    return (x, y, rng.uniform(0.2, 3, rows)) if weighted else (x, y)


DATA = {"train": classes(70, weighted=True), "validation": classes(33, seed=1), "test": classes(20, seed=2)}
# Dropout, running statistics, slots, an early end: what a run must have right to go on with the same bits.
STATEFUL_JOB = make_job(
    (
        {"type": "dense", "units": 7, "activation": "tanh"},
        {"type": "dropout", "rate": 0.2},
        {"type": "batch_normalization"},
        {"type": "dense", "units": 3},
    ),
    batch_size=16,
    shards=3,
    epochs=5,
    optimizer={"type": "adam", "learning_rate": 0.3},
    early_stopping={"patience": 2},
    checkpoint={"every_steps": 3},
)


def files_of(path: Path) -> dict[str, bytes]:
    """What must have the same bits in the run directory of a job with several networks."""
    names = ("metrics.jsonl", "model/model.json", "model/weights.safetensors")
    places = [path, *sorted((path / "members").iterdir())]
    return {
        f"{place.relative_to(path)}/{name}": (place / name).read_bytes() for place in places for name in names
    }
