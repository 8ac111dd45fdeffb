"""What the tests of layers share: a network as a program, its gradients checked, its two executors
compared."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any
from unittest import mock

import numpy as np
import pytest
from rigs import make_job, make_rig

from distbp.core.arrays import Array, Shape, aligned_vector
from distbp.core.reduction import Block
from distbp.engine import numerics
from distbp.engine.thread_choice import ThreadChoice
from distbp.nn import kernels as kernel_sets
from distbp.nn.gradcheck import Report, check
from distbp.nn.kernels import NUMPY, Kernels
from distbp.nn.layers import LAYERS
from distbp.nn.layers.base import Layer
from distbp.nn.losses import LOSSES
from distbp.nn.network import Network
from distbp.nn.program import Program
from distbp.optim.schedules import PlateauState
from distbp.team import inline
from distbp.team.base import Snapshot
from distbp.team.inline import InlineTeam

COORDINATES = 8  # of a tensor that a gradient check tries alone


def layer(kind: str, **options: Any) -> Layer:
    made: Layer = LAYERS[kind](**options)
    return made


def data(network: Network, rows: int, ids: int = 0) -> tuple[Array, Array]:
    """Inputs (ids below `ids`, where the network takes some) and targets for all outputs. Where rows have
    lengths they are drawn, too, one of them 0, and padding is as the rest."""
    draw = np.random.default_rng(rows)
    shape = (rows, *network.input_shape)
    x = draw.integers(0, ids, shape) if network.ids_below else draw.normal(size=shape).astype(network.dtype)
    for one in network.named_inputs:
        if one.ids_below:
            x[:, one.first : one.end] = draw.integers(0, one.ids_below, (rows, one.end - one.first))
        if one.ragged:
            x[:, one.end] = draw.integers(0, one.shape[0] + 1, rows)
            x[0, one.end], x[-1, one.end] = 0, one.shape[0]
    if network.lengths:
        steps = network.input_shape[0]
        lengths = draw.integers(0, steps + 1, rows)
        lengths[0], lengths[-1] = 0, steps
        x = np.concatenate([x.reshape(rows, -1), lengths[:, None].astype(x.dtype)], axis=1)
    return x, draw.normal(size=(rows, int(np.prod(network.output_shape)))).astype(network.dtype)


def vector_of(network: Network) -> Array:
    """Random parameters (biases, too) and the first statistics."""
    vector = network.initialize(3)
    draw = np.random.default_rng(5)
    count = network.parameter_count
    vector[:count] += 0.3 * draw.normal(size=count)
    return vector


def train_once(
    network: Network, most_rows: int, x: Array, targets: Array, vector: Array, kernels: Kernels = NUMPY
) -> tuple[float, Array, Array]:
    """The loss sum, outputs and gradient of one slice."""
    gradient = aligned_vector(network.size, network.dtype)
    gradient[:] = np.nan  # whatever is not written shows
    program = Program(network, most_rows, vector, kernels=kernels, loss=LOSSES["mse"](), gradient=gradient)
    program.work[:] = np.nan
    program.run(x, targets)
    return float(program.totals[0]), program.outputs(len(x)).copy(), gradient


def gradcheck(
    layers: Sequence[Layer],
    shape: Shape,
    rows: int,
    most_rows: int = 0,
    ids: int = 0,
    lengths: bool = False,
) -> Report:
    """The gradients of a slice of `rows` rows of a program for up to `most_rows`, in float64. Of a large
    tensor some coordinates are checked, and along a direction all of them."""
    network = Network(layers, shape, np.float64, lengths=lengths)
    x, targets = data(network, rows, ids)
    vector = vector_of(network)
    gradient = aligned_vector(network.size, np.float64)
    program = Program(
        network, most_rows or rows, vector, kernels=NUMPY, loss=LOSSES["mse"](), gradient=gradient
    )

    def loss(_: Array) -> float:
        program.run(x, targets)
        return float(program.totals[0])

    loss(vector)
    parts = {t.path: slice(t.start, t.stop) for t in network.tensors if t.stop <= network.parameter_count}
    chosen = [
        np.unique(np.linspace(one.start, one.stop - 1, COORDINATES).astype(int)) for one in parts.values()
    ]
    return check(loss, vector, gradient.copy(), parts, np.concatenate(chosen), draw=np.random.default_rng(7))


@functools.cache
def compiled_kernels() -> Kernels:
    pytest.importorskip("numba", reason="Numba is not installed")
    return kernel_sets.load("numba")


def check_compiled(
    layers: Sequence[Layer],
    shape: Shape,
    rows: int,
    most_rows: int = 0,
    ids: int = 0,
    lengths: bool = False,
) -> None:
    """The compiled ops give what NumPy's definitions give, up to rounding; every element of the gradient is
    written."""
    network = Network(layers, shape, np.float32, lengths=lengths)
    x, targets = data(network, rows, ids)
    vector = vector_of(network)
    most = most_rows or rows
    loss, outputs, gradient = train_once(network, most, x, targets, vector)
    found = train_once(network, most, x, targets, vector, compiled_kernels())
    assert np.isfinite(gradient[: network.parameter_count]).all()
    np.testing.assert_allclose(found[0], loss, rtol=1e-4)
    np.testing.assert_allclose(found[1], outputs, rtol=1e-4, atol=1e-4 * np.abs(outputs).max())
    count = network.parameter_count
    np.testing.assert_allclose(
        found[2][:count], gradient[:count], rtol=1e-3, atol=2e-5 * np.abs(gradient[:count]).max()
    )


def check_same_bits(
    layers: Sequence[Any], x: Array, y: Array, shards: int, kernels: str = "numba", **fields: Any
) -> None:
    """Training gives one vector, bit for bit: with one thread and two, and step by step on one worker and on
    one for each shard. The last batch of an epoch leaves smaller slices; some are empty."""
    if kernels == "numba":
        pytest.importorskip("numba", reason="Numba is not installed")
    job = make_job(layers, shards=shards, batch_size=8 * shards, epochs=3, **fields)
    made = make_rig(job, (x, y), kernels=kernels)
    blocks = [Block(shard, shard + 1) for shard in range(shards)]
    steps, found = 3 * made.blueprint.steps_per_epoch, {}
    with (
        numerics.one_blas_thread(),
        np.errstate(all="ignore"),
        mock.patch.multiple(inline, FLOPS_WORTH_THREADS=0, FLOPS_WORTH_PYTHON_THREADS=0),
        mock.patch.object(ThreadChoice, "next", lambda choice, now: 0),  # as many as there are
    ):
        for threads in (1, 2):
            start = Snapshot(0, {"vector": made.start()})
            team = InlineTeam(made.blueprint, made.data, start, threads=threads)
            assert team.run(0, steps, PlateauState(), lambda: False) == steps
            found[f"{threads} threads"] = team.server.vector.tobytes()
            team.close()
        for workers in ([Block(0, shards)], blocks):
            server = made.server(made.start())
            each = [made.worker(server.vector) for _ in workers]
            sums = [made.contribution(server.vector, block) for block in workers]
            for step in range(steps):
                for worker, one in zip(each, sums, strict=True):
                    worker.compute(step, one.block, one.gradient, one.totals)
                server.apply(step, sums)
            found[f"{len(workers)} workers"] = server.vector.tobytes()
    assert server.vector.tobytes() != made.start().tobytes()
    assert len(set(found.values())) == 1, {name: hash(bits) for name, bits in found.items()}
