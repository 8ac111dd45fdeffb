"""Measures the time of each op of a step. All run in their order, on random data, on one core."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import numpy as np

from distbp.core.arrays import Array, aligned_vector
from distbp.engine.blueprint import Blueprint
from distbp.nn.kernels import Kernels
from distbp.nn.losses.several import heads_of
from distbp.nn.lowered import Lowered
from distbp.nn.network import Network
from distbp.nn.program import executor
from distbp.nn.tape import Row, Space, position
from distbp.optim.parts import Rule, Step, Vector

Slices = tuple[Array, Array | None, Array | None]  # inputs, targets, weights
PASSES = 9  # through all ops; an op's time is the least of them


def random_slice(
    blueprint: Blueprint, network: Network, lowered: Lowered, slice_rows: int, weighted: bool
) -> tuple[dict[Space, Array], Slices]:
    """The spaces for a slice, with random numbers that are valid for every op, and its rows."""
    draw, dtype, answers = np.random.default_rng(0), network.dtype, slice_rows * network.answers
    heads = heads_of(blueprint.job.loss, network.answer_shapes)
    spaces = {
        Space.PARAMETERS: network.initialize(blueprint.job.seed),
        Space.GRADIENT: aligned_vector(network.size, dtype),
        Space.WORK: aligned_vector(lowered.work, dtype),
        Space.TOTALS: np.zeros(lowered.totals),
        Space.POSITION: position(),
        Space.CONSTANTS: lowered.constants,
        Space.LABELS: np.zeros(lowered.labels, np.int64),
    }
    inputs = aligned_vector(slice_rows * int(np.prod(network.row_shape)), network.input_dtype)
    most = network.ids_below
    inputs[:] = draw.uniform(0.1, 0.9, inputs.size) if most is None else draw.integers(0, most, inputs.size)
    parts: dict[str, Array] = {}
    for head in heads:
        shape = (answers, head.outputs[1])
        values = draw.uniform(0.1, 0.9, shape).astype(dtype)
        parts[head.name] = draw.integers(0, shape[1], answers) if head.is_label else values
    targets = heads.join(parts, dtype) if heads.several else parts[""]
    return spaces, (inputs, targets, np.ones(answers, dtype) if weighted else None)


def random_vectors(rule: Rule, network: Network, count: int) -> tuple[dict[Space, Array], Slices]:
    """Like `random_slice`, for a rule. Its slots have the numbers of the spaces inputs, weights and
    targets."""
    constants = rule.constants([Step(1, 1e-9, 1.0)])[0, 1]
    first, second, third = (aligned_vector(count, network.dtype) for _ in range(3))
    spaces = {
        Space(v): aligned_vector(count, network.dtype)
        for v in (Vector.PARAMETERS, Vector.SUMS, Vector.DIRECTION)
    }
    return {**spaces, Space(Vector.CONSTANTS): constants.reshape(-1)}, (first, third, second)


def op_seconds(
    ops: Sequence[Row],
    spaces: Mapping[Space, Array],
    slices: Slices,
    rows: int,
    kernels: Kernels,
    network: Network,
) -> list[float]:
    """The seconds of each op on this machine: the least over passes through all ops in their order, so the
    caches are as in a step, and other programs count for little. The least time of a call without ops is
    subtracted. An op that takes less than calls differ by may have 0."""
    lists: list[list[Row]] = [[], *([op] for op in ops)]
    calls = [executor(one, rows, spaces, kernels, network.dtype).run for one in lists]
    times = np.empty((PASSES + 1, len(calls)))
    for taken in times:  # the first pass loads or compiles the ops
        for number, call in enumerate(calls):
            began = time.perf_counter()
            call(rows, *slices)
            taken[number] = time.perf_counter() - began
    nothing, *each = times[1:].min(axis=0).tolist()
    return [max(0.0, seconds - nothing) for seconds in each]
