"""Measures the constants of `distbp.run.plan.speed_model` on this machine, within about two seconds.

The exchange is measured separately, between processes as in training. `python -m distbp.run.plan.calibrate`
runs a worker that computes nothing and only writes its sums.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict
from itertools import pairwise
from typing import Any, cast

import numpy as np

from distbp.core import settings
from distbp.core.arrays import Array, aligned_vector
from distbp.core.errors import ExchangeError
from distbp.core.reduction import Block
from distbp.data.batches import Holdings
from distbp.engine import numerics
from distbp.engine.blueprint import Blueprint
from distbp.engine.parameter_server import NO_PLATEAU, Contribution, NotFiniteError, ParameterServer
from distbp.engine.totals import ROWS, WEIGHT
from distbp.engine.worker import Worker
from distbp.machine.memory import MemoryHandle
from distbp.run.plan.speed_model import Machine, Work
from distbp.team.base import Snapshot
from distbp.team.exchange import segment as seg
from distbp.team.exchange.gathering import Gathering
from distbp.team.exchange.local_workers import LocalWorkers
from distbp.team.exchange.segment import Range, Segment, SegmentHandle
from distbp.team.exchange.worker_port import WorkerPort
from distbp.team.inline import InlineTeam

WORKERS = 2  # in the measured exchange
SMALL = 1_000  # floats; joining so few takes no time, so the rest is wake-ups
MEASURE_S = 0.3  # for each quantity
WARM_STEPS = 3  # not measured: the first step binds programs and starts threads
PIECES = 32  # the fewest pieces of a measurement, so that other programs disturb only some of them
PATIENCE_S = 30.0  # the longest wait for a helper process
_TOTALS = 3


def measure_work(blueprint: Blueprint, data: Holdings, seconds: float = MEASURE_S) -> Work:
    """Times steps of the job in this process for about `seconds` per quantity. The parameters are discarded.

    Call it within `one_blas_thread`.
    """
    vector = blueprint.network().initialize(blueprint.job.seed)
    worker, server = Worker(blueprint, vector, data), ParameterServer(blueprint, vector)
    whole = Contribution(Block(0, blueprint.shards), server.gradient, server.totals)
    steps = max(1, blueprint.total_steps)
    position = iter(range(10**9))

    def compute() -> None:
        worker.compute(next(position) % steps, *whole)

    def update() -> None:
        server.gradient.fill(1e-6)  # the update overwrites it
        server.totals.fill(0)
        server.totals[WEIGHT] = server.totals[ROWS] = 1
        began = time.perf_counter()
        server.apply(server.step, [whole])
        took.append(time.perf_counter() - began)

    took: list[float] = []
    try:
        times = repeat(compute, seconds)
        repeat(update, seconds / 3)
    finally:
        server.close()
    shard_s = statistics.median(times) / blueprint.shards
    inline_s = _inline_step(blueprint, data, seconds)
    return Work(
        blueprint.shards, shard_s, vector.nbytes, statistics.median(took[1:]), _jitter(times), inline_s
    )


def _inline_step(blueprint: Blueprint, data: Holdings, seconds: float) -> float | None:
    """The seconds of a step without workers, from a training that is discarded. None if the job is too short
    or gives NaN at once."""
    vector = blueprint.network().initialize(blueprint.job.seed)
    team = InlineTeam(blueprint, data, Snapshot(0, {"vector": vector}))
    deadline, step, ahead = math.inf, 0, 1
    times: list[float] = []  # seconds of a step, for each piece
    try:
        while step < blueprint.total_steps and (began := time.perf_counter()) < deadline:
            reached = team.run(step, min(step + ahead, blueprint.total_steps), NO_PLATEAU, lambda: False)
            took = time.perf_counter() - began
            if step >= WARM_STEPS:
                times.append(took / (reached - step))
                deadline = min(deadline, began + seconds)
            step, ahead = reached, 2 * ahead if took < seconds / PIECES else ahead
    except NotFiniteError:
        pass  # the steps measured before count
    finally:
        team.close()
    return statistics.median(times) if times else None


def _jitter(times: list[float]) -> float:
    """The relative standard deviation, estimated from the quartiles, because other programs disturb the
    tails. In a normal distribution the quartiles are 1.349 standard deviations apart."""
    if len(times) < 8:
        return 0.0
    low, middle, high = statistics.quantiles(times, n=4)
    return (high - low) / 1.349 / middle


def measure_machine(floats: int, dtype: np.dtype[Any], seconds: float = MEASURE_S) -> Machine:
    """Times wake-ups between processes, and joins of vectors of `floats` numbers. The other constants are the
    defaults of `Machine`."""
    join_s = statistics.median(join_times(floats, dtype, seconds / 3))
    round_s = statistics.median(exchange_times(SMALL, dtype, seconds=seconds))
    standard = Machine(settings.processors())
    wake_s = max(round_s - WORKERS * standard.answer_s, 1e-6)
    return Machine(standard.cores, wake_s=wake_s, join_s_per_byte=join_s / (floats * dtype.itemsize))


def join_times(floats: int, dtype: np.dtype[Any], seconds: float) -> list[float]:
    """The seconds of repeated additions of one vector to another."""
    left, right = aligned_vector(floats, dtype), aligned_vector(floats, dtype)
    left.fill(0)
    right.fill(0)
    return repeat(lambda: _join(left, right), seconds)


def exchange_times(
    floats: int, dtype: np.dtype[Any], workers: int = WORKERS, seconds: float = MEASURE_S, threads: int = 1
) -> list[float]:
    """The seconds of each round of a shared-memory exchange without training: publish, every worker writes
    all `floats` of its slot, and the server joins them on `threads` threads. Raises ExchangeError."""
    segment = seg.create(floats, dtype, _TOTALS, attempt=1)
    local = LocalWorkers(segment)
    with ExitStack() as stack:
        stack.callback(segment.close)
        helpers = [_start_helper(segment, me, workers) for me in range(workers)]
        for helper in helpers:
            stack.callback(helper.wait)
        stack.callback(local.close)
        local.assign({me: [Range(me, me + 1)] for me in range(workers)})
        gathering: Gathering[Contribution] = Gathering(workers)
        step = iter(range(10**9))
        cuts = [floats * thread // threads for thread in range(threads + 1)]
        stretches = [slice(a, b) for a, b in pairwise(cuts)]
        pool = stack.enter_context(ThreadPoolExecutor(max(1, threads - 1)))

        def one_round() -> None:
            now = next(step)
            gathering.start()
            local.publish(now)
            _gather(local, now, gathering, helpers)
            first, *others = (answer.gradient for _, answer in gathering.answers())
            for other in others:
                waiting = [pool.submit(_join, first[part], other[part]) for part in stretches[1:]]
                _join(first[stretches[0]], other[stretches[0]])
                for one in waiting:
                    one.result()

        one_round()  # waits until the helpers have started
        return repeat(one_round, seconds)


def repeat(action: Callable[[], None], seconds: float) -> list[float]:
    """The seconds of each of at least three calls, after a call to warm up."""
    action()
    times: list[float] = []
    until = time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < until:
        began = time.perf_counter()
        action()
        times.append(time.perf_counter() - began)
    return times


def _join(left: Array, right: Array) -> None:
    np.add(left, right, out=left)


def _gather(
    local: LocalWorkers, step: int, gathering: Gathering[Contribution], helpers: list[subprocess.Popen[bytes]]
) -> None:
    until = time.monotonic() + PATIENCE_S
    while True:
        seen = local.arrivals
        local.take(step, gathering)
        if gathering.complete:
            return
        if not local.wait(seen, 0.05):
            if any(helper.poll() is not None for helper in helpers):
                raise ExchangeError("a process that measures the exchange ended by itself")
            if time.monotonic() > until:
                raise ExchangeError(
                    f"a process that measures the exchange gave no answer for {PATIENCE_S:g} s"
                )


def _start_helper(segment: Segment, me: int, workers: int) -> subprocess.Popen[bytes]:
    words = json.dumps([asdict(segment.handle), me, workers, os.getpid()])
    return subprocess.Popen([sys.executable, "-m", "distbp.run.plan.calibrate", words])


class _Writer:
    """Replaces a worker. It computes nothing and writes its sums in place, as a backward pass does. It does
    not copy them: no worker does, and a copy larger than a cache would dominate the measurement."""

    def compute(self, step: int, block: Block, gradient: Array, totals: Array) -> None:
        gradient.fill(1)
        totals.fill(1)


def _help(words: str) -> None:
    handle, me, workers, parent = json.loads(words)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    memory = MemoryHandle(**handle.pop("memory"))
    segment = seg.attach(SegmentHandle(memory, **handle))
    with numerics.one_blas_thread():
        WorkerPort(segment, me, workers).serve(cast(Worker, _Writer()))


def _end_with(parent: int) -> None:
    """Ends this helper process when its parent has ended, even by kill -9."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


if __name__ == "__main__":
    _help(sys.argv[1])
