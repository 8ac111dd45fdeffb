"""The gradients of a user's own job, checked against central differences (`distbp gradcheck JOB.yaml`)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from distbp.core.arguments import path_given
from distbp.core.reduction import Block
from distbp.core.streams import Purpose, generator
from distbp.engine.numerics import one_blas_thread, quiet
from distbp.engine.totals import LOSS, WEIGHT
from distbp.engine.worker import Worker
from distbp.job import TrainingJob
from distbp.job.checks import neediest
from distbp.nn.gradcheck import Report, Vector, check
from distbp.nn.network import aligned_vector
from distbp.run import train as training
from distbp.run.splits import open_splits

MAX_ROWS = 64


@quiet()
def check_job(
    job: TrainingJob,
    folder: str | Path = ".",
    *,
    coordinates: int = 20,
    given: Mapping[str, Any] | None = None,
) -> Report:
    """Checks the gradient of the job's first batch (at most `MAX_ROWS` rows) in float64.

    It is computed as in training: by a `Worker`, over all shards and their tree, with dropout, normalization,
    class and sample weights. `coordinates`: how many of each tensor, chosen at random. `folder`: as in
    `train`; `given`: arrays by split.
    Penalties and clipping are the parameter server's and are not part of it. Raises JobError, DataError.
    """
    training.check_job(job)
    rows = min(job.batch_rows(MAX_ROWS), MAX_ROWS)
    most = max(1, rows // neediest(job.model.layers).rows_needed)
    shards = job.shards if job.shards == "auto" else min(job.shards, most)
    changes = {"batch_size": rows, "shards": shards, "optimizer": "sgd", "workers": "auto", "servers": 1}
    small = job.replace(dtype="float64", **changes)
    splits = open_splits(small, path_given(folder, "folder"), training.by_split(given))
    blueprint = training.make_blueprint(small, splits)
    network = blueprint.network()
    data = splits.ready(blueprint)
    vector = aligned_vector(network.size, np.dtype(np.float64))
    vector[:] = network.initialize(small.seed)
    gradient = aligned_vector(network.size, np.dtype(np.float64))
    with one_blas_thread():
        worker = Worker(blueprint, vector, data)
        totals = np.zeros(worker.totals_size)
        everything = Block(0, blueprint.shards)

        def mean_loss(_: Vector) -> float:
            worker.compute(0, everything, gradient, totals)
            return float(totals[LOSS] / totals[WEIGHT])

        mean_loss(vector)
        analytic = gradient / totals[WEIGHT]
        draw = generator(small.seed, Purpose.INITIALIZE, 2**32)
        chosen = [
            tensor.start + draw.choice(size, min(coordinates, size), replace=False)
            for tensor in network.tensors
            for size in (tensor.stop - tensor.start,)
        ]
        parts = {tensor.path: slice(tensor.start, tensor.stop) for tensor in network.tensors}
        return check(mean_loss, vector, analytic, parts, np.sort(np.concatenate(chosen)))
