"""The gradients of a user's own job, checked against central differences (`distbp gradcheck JOB.yaml`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from distbp.core.arguments import path_given
from distbp.core.arrays import aligned_vector
from distbp.core.errors import DataError, Fault, JobError
from distbp.core.reduction import Block
from distbp.core.streams import Purpose, generator
from distbp.engine.blueprint import Blueprint
from distbp.engine.numerics import one_blas_thread, quiet
from distbp.engine.totals import LOSS, WEIGHT
from distbp.engine.worker import Worker
from distbp.job import TrainingJob
from distbp.job.checks import neediest
from distbp.nn import kernels as kernel_sets
from distbp.nn.activations import ACTIVATIONS
from distbp.nn.gradcheck import Report, Vector, check
from distbp.nn.program import Program
from distbp.run import train as training
from distbp.run.blueprints import make_blueprint
from distbp.run.splits import open_splits

MAX_ROWS = 16  # of the batch
COORDINATES = 20  # of each tensor, that are checked


@quiet()
def check_job(
    job: TrainingJob,
    folder: str | Path = ".",
    *,
    coordinates: int | None = COORDINATES,
    given: Mapping[str, Any] | None = None,
    watch: Callable[[int, int], None] = lambda done, total: None,
) -> Report:
    """Checks the gradient of the job's first batch (at most `MAX_ROWS` rows) in float64. The first batch
    whose rows do not all weigh 0 is taken.

    The gradient is computed as in training: by a `Worker`, over all shards and their tree, with dropout,
    normalization, class and sample weights. Penalties and clipping, which the parameter server applies, are
    not checked. `coordinates`: how many of each tensor are checked (None: all), drawn by the job's seed. If
    that is not all, the derivative along one random direction of the tensor is checked, too. `folder`: as in
    `train`. `given`: arrays by split. `watch`: as in `distbp.nn.gradcheck.check`. Raises JobError, DataError.
    """
    training.check_job(job)
    _has_gradients(job)
    rows = min(job.batch_rows(MAX_ROWS), MAX_ROWS)
    most = max(1, rows // neediest(job.model.layers).rows_needed)
    shards = job.shards if job.shards == "auto" else min(job.shards, most)
    changes = {"batch_size": rows, "shards": shards, "optimizer": "sgd", "workers": "auto", "servers": 1}
    small = job.replace(dtype="float64", **changes)
    splits = open_splits(small, path_given(folder, "folder"), training.by_split(given))
    blueprint = make_blueprint(small, splits)
    network = blueprint.network()
    data = splits.ready(blueprint)
    vector = aligned_vector(network.size, np.dtype(np.float64))
    vector[:] = network.initialize(small.seed)
    gradient = aligned_vector(network.size, np.dtype(np.float64))
    with one_blas_thread():
        worker = Worker(blueprint, vector, data)
        totals = np.zeros(worker.totals_size)
        for step in range(blueprint.steps_per_epoch):
            worker.compute(step, Block(0, blueprint.shards), gradient, totals)
            if totals[WEIGHT]:
                break
        else:
            raise DataError("the rows of every batch of the first epoch weigh 0: there is no gradient")
        analytic = gradient / totals[WEIGHT]
        draw = generator(small.seed, Purpose.INITIALIZE, 2**32)
        parts = {tensor.path: slice(tensor.start, tensor.stop) for tensor in network.tensors}
        sizes = {tensor.start: tensor.stop - tensor.start for tensor in network.tensors}
        chosen = [
            start + draw.choice(size, min(coordinates or size, size), replace=False)
            for start, size in sizes.items()
        ]
        loss = _mean_loss(blueprint, worker, vector, step)
        return check(loss, vector, analytic, parts, np.sort(np.concatenate(chosen)), draw=draw, watch=watch)


def _has_gradients(job: TrainingJob) -> None:
    """Raises JobError if a layer has no gradient, which only a job with `evolution` may have."""
    for index, layer in enumerate(job.model.layers if job.optimizer.copies else ()):
        if layer.ends_in is not None and not ACTIVATIONS[layer.ends_in].trainable:
            text = f"{layer.ends_in!r} has a derivative of zero, so there is no gradient to check"
            raise JobError([Fault(f"model.layers.{index}", text)])


def _mean_loss(blueprint: Blueprint, worker: Worker, vector: Vector, step: int) -> Callable[[Vector], float]:
    """The loss of a step's batch as a function of `vector`. It leaves out the backward pass, which takes most
    of the time of `Worker.compute`."""
    program = Program(
        worker.network,
        blueprint.sharding().slice_rows(0, 0),
        vector,
        kernels=kernel_sets.load(blueprint.kernels),
        loss=blueprint.job.loss,
        gradient=np.zeros_like(vector),  # takes the running statistics
        seed=blueprint.job.seed,
        steps=blueprint.total_steps,
        forward_only=True,
    )
    slices = [(shard, worker.reader(shard).slice(step)) for shard in range(blueprint.shards)]

    def mean_loss(_: Vector) -> float:
        total = weight = 0.0
        for shard, part in slices:
            if part.rows:
                program.run(part.x, part.targets, part.weights, step, shard)
                total += program.totals[LOSS]
                weight += program.totals[WEIGHT]
        return float(total / weight)

    return mean_loss
