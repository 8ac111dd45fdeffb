"""Fused steps shared by threads: the bits of worker and server step by step, for any number of threads."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from rigs import Data, Rig, classes, make_job, make_rig

from distbp import numerics
from distbp.data.prepared import PreparedRows
from distbp.exchange import inline
from distbp.exchange.base import Snapshot
from distbp.exchange.inline import InlineTeam
from distbp.parameter_server import NotFiniteError
from distbp.reduction import Block
from distbp.schedules import PlateauState

THREADS = [1, 2, 3]


@pytest.fixture(autouse=True)
def _every_step_is_worth_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inline, "FLOPS_WORTH_THREADS", 0)
    monkeypatch.setattr(inline, "FLOPS_WORTH_PYTHON_THREADS", 0)


def rig(data: Data, kernels: str = "numba", **fields: Any) -> Rig:
    if kernels == "numba":
        pytest.importorskip("numba", reason="Numba is not installed")
    layers = [
        {"type": "dense", "units": 33, "activation": "relu"},
        {"type": "dense", "units": 3},
    ]
    fields = {"shards": 4, "epochs": 3, "batch_size": 16, "layers": layers, **fields}
    return make_rig(make_job(**fields), data, kernels=kernels)


def team(made: Rig, threads: int) -> InlineTeam:
    return InlineTeam(
        made.blueprint, made.data, Snapshot(0, {"vector": made.start().copy()}), threads=threads
    )


def assert_same_bits(made: Rig, threads: int, steps: int = 20, compiled: bool = True) -> None:
    whole = Block(0, made.blueprint.shards)
    with numerics.one_blas_thread(), np.errstate(all="ignore"):
        mine, plain = team(made, threads), team(made, 1)
        assert (mine._fused is not None) is compiled
        assert mine.run(0, steps, PlateauState(), lambda: False) == steps
        sums = made.contribution(plain.server.vector, whole)
        for step in range(steps):
            plain.worker.compute(step, whole, sums.gradient, sums.totals)
            plain.server.apply(step, [sums])
        evaluated = mine.evaluate("train"), plain.evaluate("train")
        mine.close()
    saved, expected = mine.server.snapshot(), plain.server.snapshot()
    for name in expected:
        assert saved[name].tobytes() == expected[name].tobytes(), name
    assert (mine.server.step, mine.server.applied) == (steps, steps)
    assert mine.server.health == plain.server.health
    assert evaluated[0].sums.tobytes() == evaluated[1].sums.tobytes()


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("kernels", ["numba", "fma", "mkl"])
@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "nesterov", "adam"])
def test_every_rule(optimizer: str, kernels: str, threads: int) -> None:
    # 7 steps an epoch, the last of them a smaller one.
    made = rig(classes(100, features=8), kernels, optimizer={"type": optimizer, "learning_rate": 0.05})
    assert_same_bits(made, threads)


@pytest.mark.parametrize("shards", [2, 3, 5, 8])
def test_shards_that_threads_do_not_divide(shards: int) -> None:
    made = rig(classes(200, features=16), shards=shards, batch_size=4 * shards, regularization={"l2": 0.01})
    assert_same_bits(made, 3)


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("kernels", ["numpy", "numba"])
def test_jobs_that_no_compiled_call_covers(kernels: str, threads: int) -> None:
    layers = [
        {"type": "dense", "units": 33},
        {"type": "batch_normalization"},
        {"type": "tanh"},
        {"type": "dropout", "rate": 0.2},
        {"type": "dense", "units": 3},
    ]
    made = rig(classes(100, features=8), kernels, layers=layers, clip={"norm": 1.0})
    assert_same_bits(made, threads, compiled=False)


def shares(made: Rig, threads: int) -> Any:
    from distbp.exchange.compiled_steps import shares_of_units

    network, job = made.blueprint.network(), made.blueprint.job
    return shares_of_units(network, job.batch_size // made.shards, network.decays, threads)


WIDE = [
    {"type": "dense", "units": 256, "activation": "relu"},
    {"type": "dense", "units": 128, "activation": "tanh"},
    {"type": "dense", "units": 3},
]
LIKE_WIDE = {"layers": WIDE, "regularization": {"l2": 0.01}, "optimizer": {"type": "adam"}}


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("kernels", ["numba", "fma", "mkl"])
@pytest.mark.parametrize(("batch", "shards"), [(128, 2), (72, 3), (64, 8)])
def test_gradients_that_are_never_written_out(batch: int, shards: int, kernels: str, threads: int) -> None:
    made = rig(classes(5 * batch, features=784), kernels, batch_size=batch, shards=shards, **LIKE_WIDE)
    assert shares(made, min(threads, shards)) is not None
    assert_same_bits(made, threads, steps=12)


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("kernels", ["fma", "amx"])
@pytest.mark.parametrize("batch", [256, 600])  # slices of 128 rows, in parts, and of 300
def test_large_products_of_our_own(batch: int, kernels: str, threads: int) -> None:
    made = rig(classes(3 * batch, features=784), kernels, batch_size=batch, shards=2, **LIKE_WIDE)
    assert_same_bits(made, threads, steps=6)


@pytest.mark.parametrize("threads", [1, 2, 3, 5])
def test_each_parameter_is_updated_by_one_thread(threads: int) -> None:
    made = rig(classes(640, features=784), batch_size=128, shards=8, **LIKE_WIDE)
    updated = np.zeros(made.blueprint.network().parameter_count, np.int64)
    loads = []
    for share in shares(made, threads):
        for _, _, _, start, stop, _ in share.parts:
            updated[start:stop] += 1
        loads.append((share.parts[:, 4] - share.parts[:, 3]).sum())
    assert (updated == 1).all()
    assert max(loads) <= 1.15 * sum(loads) / threads


def test_gradients_that_are_written_out() -> None:
    layers = [{"type": "dense", "units": 32, "activation": "relu"}, {"type": "dense", "units": 3}]
    many_rows = rig(classes(2000, features=16), batch_size=400, shards=2, layers=layers)
    assert shares(many_rows, 2) is None  # errors and inputs are more numbers than the gradient
    unequal = rig(classes(100, features=512), batch_size=16, shards=2, layers=layers)
    assert shares(unequal, 1) is not None
    assert shares(unequal, 2) is None  # of two parts the first is three times as large
    for one in (many_rows, unequal):
        assert_same_bits(one, 2, steps=12)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_step_that_is_not_finite_is_refused_before_the_update(bad: float) -> None:
    x, y = classes(100, features=8)
    made = rig((x.astype(np.float32), y))
    rows, _ = made.data.train(0)
    assert isinstance(rows, PreparedRows)
    third = made.data.sharding.order(3, made.data.sharding.dealt(3), 0)[2 * 4]
    poisoned = rows.inputs.copy()
    poisoned[third] = bad
    made.data.splits["train"] = PreparedRows(poisoned, rows.targets, None)  # type: ignore[index]
    with numerics.one_blas_thread(), np.errstate(all="ignore"):
        expected, stopped = team(made, 2), team(made, 2)
        expected.run(0, 2, PlateauState(), lambda: False)
        with pytest.raises(NotFiniteError):
            stopped.run(0, 6, PlateauState(), lambda: False)
        for one in (expected, stopped):
            one.close()
    assert stopped.server.step == 2
    assert stopped.server.vector.tobytes() == expected.server.vector.tobytes()


def test_an_interrupt_between_two_calls_leaves_no_thread_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    from distbp.exchange import fused_steps

    made = rig(classes(100, features=8))
    with numerics.one_blas_thread():
        interrupted = team(made, 2)
        train = fused_steps.train_steps
        main = threading.current_thread()

        def interrupt(*arguments: Any) -> int:
            if threading.current_thread() is main:
                raise KeyboardInterrupt
            return int(train(*arguments))

        monkeypatch.setattr(fused_steps, "train_steps", interrupt)
        before = interrupted.server.vector.copy()
        with pytest.raises(KeyboardInterrupt):
            interrupted.run(0, 6, PlateauState(), lambda: False)
        monkeypatch.undo()
        assert interrupted._fused.run(0, 6, PlateauState()) == 0  # left to worker and server
        interrupted.close()  # returns: its threads have ended
    assert interrupted.server.step == 0
    assert interrupted.server.vector.tobytes() == before.tobytes()
