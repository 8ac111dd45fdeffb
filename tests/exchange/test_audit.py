"""Answers computed twice and compared: drawn by a stream, found when a bit differs, and never in the way."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rigs import Rig, classes, make_job, make_rig

from distbp import TrainingJob
from distbp.core.errors import CorruptionError
from distbp.core.reduction import Block, assign, blocks_within
from distbp.engine.parameter_server import Contribution
from distbp.engine.totals import totals_size
from distbp.optim.schedules import PlateauState
from distbp.team.exchange import segment as seg
from distbp.team.exchange.audit import Audit, audit_of, same_bits
from distbp.team.exchange.faults import FaultPlan, faulty_post
from distbp.team.exchange.local_workers import LocalWorkers
from distbp.team.exchange.rounds import Rounds
from distbp.team.exchange.segment import Range
from distbp.team.exchange.worker_port import WorkerPort, post

STEPS, SHARDS = 12, 8


def job(audit: float) -> TrainingJob:
    layers = [{"type": "dense", "units": 6, "activation": "tanh"}, {"type": "dense", "units": 3}]
    return make_job(layers, shards=SHARDS, batch_size=20, max_steps=STEPS, audit=audit)


@cache
def rig(audit: float) -> Rig:
    return make_rig(job(audit), classes(60))


@cache
def undisturbed() -> bytes:
    made = rig(0.0)
    vector = made.start()
    server, worker = made.server(vector), made.worker(vector)
    whole = made.contribution(server.gradient, Block(0, SHARDS))
    for step in range(STEPS):
        worker.compute(step, *whole)
        server.apply(step, [whole])
    return vector.tobytes()


def spread(workers: int) -> dict[int, list[Range]]:
    return {w: [Range(a, b)] for w, (a, b) in enumerate(assign(SHARDS, workers)) if a < b}


class Node:
    """Server and workers over one segment, workers in threads. `faults`: worker -> what happens to its
    pushes."""

    def __init__(self, audit: float, workers: int, faults: dict[int, FaultPlan] | None = None) -> None:
        made = rig(audit)
        blueprint = made.blueprint
        self.segment = seg.create(blueprint.network().size, blueprint.dtype, totals_size(blueprint), 1)
        self.segment.vector[:] = made.start()
        self.server = made.server(self.segment.vector)
        self.audit = audit_of(blueprint, self.segment)
        self.workers = LocalWorkers(self.segment, self.audit)
        self.rounds = Rounds(self.server, self.workers, late_factor=0)
        self.pool = ThreadPoolExecutor(workers + 1)
        self.serving: list[Future[None]] = []
        for me in range(workers):
            plan = (faults or {}).get(me)
            port = WorkerPort(self.segment, me, SHARDS, faulty_post(plan, me) if plan else post)
            self.serving.append(self.pool.submit(port.serve, made.worker(self.segment.vector)))
        self.workers.assign(spread(workers))

    def run(self, stop: int = STEPS) -> int:
        return self.rounds.run(1, self.server.step, stop, PlateauState())

    def close(self) -> None:
        self.workers.close()
        for one in self.serving:
            one.result(30)
        self.pool.shutdown()
        self.segment.close()


@contextmanager
def node(*arguments: Any) -> Iterator[Node]:
    made = Node(*arguments)
    try:
        yield made
    finally:
        made.close()


@pytest.mark.parametrize("workers", [1, 2, 3, 5])
@pytest.mark.parametrize("share", [0.3, 1.0])
def test_the_bits_do_not_depend_on_the_audit(workers: int, share: float) -> None:
    with node(share, workers) as made:
        assert made.run() == STEPS
        assert made.segment.vector.tobytes() == undisturbed()
        assert made.audit is not None
        blocks = sum(len(blocks_within(SHARDS, a, b)) for a, b in assign(SHARDS, workers))
        if share == 1.0:
            assert made.audit.compared == (STEPS * blocks if workers > 1 else 0)
        elif workers > 1:
            assert 0 < made.audit.compared < STEPS * blocks


def test_a_flipped_bit_is_found_before_the_update() -> None:
    with node(1.0, 2, {1: FaultPlan(seed=3, flip=0.2)}) as made:
        with pytest.raises(CorruptionError) as caught:
            made.run()
        text = str(caught.value)
        step = made.server.step
        assert text.startswith(f"step {step}: worker ")
        for words in ("worker 0 (process ", "worker 1 (process ", "different gradient sums for shards ",
                      "at 1 of 57 places", "the update was not applied"):  # fmt: skip
            assert words in text
        # Nothing of the wrong sums went into the parameters.
        with node(0.0, 2) as good:
            good.run(step)
            assert made.segment.vector.tobytes() == good.segment.vector.tobytes()


def test_without_an_audit_a_flipped_bit_goes_unseen() -> None:
    with node(0.0, 2, {1: FaultPlan(seed=3, flip=0.2)}) as made:
        made.run()
        assert made.segment.vector.tobytes() != undisturbed()


def test_messages_that_are_lost_late_or_twice_do_not_disturb_it() -> None:
    plan = FaultPlan(seed=1, drop=0.1, repeat=0.2, delay=0.1, reorder=0.1)
    with node(1.0, 3, {0: plan, 2: plan}) as made:
        assert made.run() == STEPS
        assert made.segment.vector.tobytes() == undisturbed()


def test_an_auditor_that_leaves_does_not_hold_up_the_step() -> None:
    with node(1.0, 3) as made:
        moved = threading.Event()
        answered = made.audit.hear if made.audit else None
        assert answered

        def hear(worker: int, answer: Contribution) -> None:
            if worker == 2 and not moved.is_set():  # as if it had ended before it answered
                return
            answered(worker, answer)

        made.audit.hear = hear  # type: ignore[union-attr,method-assign]
        done = made.pool.submit(made.run)
        with pytest.raises(TimeoutError):
            done.result(0.3)
        moved.set()
        made.workers.assign({0: [Range(0, 4)], 1: [Range(4, 8)]})
        assert done.result(30) == STEPS
        assert made.segment.vector.tobytes() == undisturbed()


# Who is chosen -------------------------------------------------------------------------------------------


def plain(share: float, seed: int = 5) -> Audit:
    return Audit(seed, share, SHARDS, "worker {}".format)


@given(share=st.floats(0, 1), step=st.integers(0, 10**6), workers=st.integers(1, 8))
def test_a_plan(share: float, step: int, workers: int) -> None:
    hosts = spread(workers)
    planned = plain(share).plan(step, hosts)
    again = plain(share)
    again.plan(step + 1, hosts)
    assert again.plan(step, hosts) == planned  # a pure function of the step
    blocks = {b: w for w, r in hosts.items() for b in blocks_within(SHARDS, r[0].start, r[0].stop)}
    for worker, extra in planned.items():
        for start, stop, only_step in extra:
            assert only_step == step
            assert blocks[Block(start, stop)] != worker
    if share == 0 or workers == 1:
        assert not planned
    if share == 1 and workers > 1:
        assert sum(map(len, planned.values())) == len(blocks)


def test_the_share_is_that_of_all_answers() -> None:
    audit, hosts = plain(0.05), spread(4)
    count = sum(len(extra) for step in range(2000) for extra in audit.plan(step, hosts).values())
    assert count / (2000 * 4) == pytest.approx(0.05, abs=0.01)


def test_shares_of_two_workers_and_totals() -> None:
    audit = plain(1.0)
    audit.plan(7, {0: [Range(0, 1)], 1: [Range(1, 2)]})
    gradient, totals = np.ones(4, np.float32), np.ones(3)
    audit.hear(0, Contribution(Block(0, 1), gradient, totals))
    audit.hear(0, Contribution(Block(0, 1), gradient, totals))  # the same worker again
    assert not audit.settled
    with pytest.raises(CorruptionError, match=r"worker 0 and worker 1 on .* for shard 0 \(in the totals\)"):
        audit.hear(1, Contribution(Block(0, 1), gradient, totals * 2))


def test_bits_not_values() -> None:
    zero, minus = np.zeros(2, np.float32), -np.zeros(2, np.float32)
    nan = np.full(2, np.nan)
    assert not same_bits(zero, minus)
    assert same_bits(nan, nan.copy())


def test_the_digest_of_a_job_does_not_count_it() -> None:
    assert job(0.5).digest == job(0.0).digest
