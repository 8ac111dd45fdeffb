"""Workers on Ray that are lent out one by one."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from leftovers import wait_for_end
from rigs import Rig, classes, make_job, make_rig

from distbp.core.errors import ExchangeError, FingerprintError
from distbp.engine import numerics
from distbp.optim.schedules import PlateauState
from distbp.team.base import Snapshot
from distbp.team.ray.hosting import Hosting
from distbp.team.training_turns import TrainingTurns

pytestmark = pytest.mark.usefixtures("ray_here")
WAIT_S = 60.0
CPUS = 10  # that the tests' Ray has


@pytest.fixture(scope="module")
def rig() -> Rig:
    return make_rig(make_job(shards=1), classes(20))


@pytest.fixture
def make_pool(rig: Rig) -> Iterator[Callable[..., Any]]:
    from distbp.team.ray.worker_pool import WorkerPool  # imports Ray: only within the session

    made: list[WorkerPool] = []

    def make(networks: int, workers: int, **limits: Any) -> WorkerPool:
        """All networks have entered that may."""
        turns = TrainingTurns(networks, workers)
        made.append(WorkerPool(turns, workers, rig.data, {}, **limits))
        for number in range(turns.at_a_time):
            assert turns.enter(number, 0)
        return made[0]

    yield make
    for pool in made:
        pool.close()


def take(
    pool: Any,
    rig: Rig,
    check: Callable[[], None] = lambda: None,
    told: Callable[[str], None] = lambda text: None,
) -> Any:
    with numerics.one_blas_thread():
        return pool.take(rig.blueprint, check, told)


def assert_ended(*workers: Any) -> None:
    for worker in workers:
        assert wait_for_end(worker.place.pid, WAIT_S)


def test_a_worker_is_kept_for_a_network_that_waits(make_pool: Callable[..., Any], rig: Rig) -> None:
    pool = make_pool(3, 2)
    first, second = take(pool, rig), take(pool, rig)
    pool.give_back(first)
    pool.turns.end(0)
    assert pool.turns.enter(2, 0)
    pool.grow()
    assert take(pool, rig) is first
    pool.give_back(second)  # nobody waits
    assert_ended(second)


def test_workers_that_are_too_many_end(make_pool: Callable[..., Any], rig: Rig) -> None:
    """Two of three networks pause; the first one goes on."""
    pool = make_pool(3, 3)
    kept, second, third = (take(pool, rig) for _ in range(3))
    pool.scale(1)
    for number, worker in ((1, second), (2, third)):
        assert pool.turns.over(number)
        pool.give_back(worker)
        pool.turns.pause(number)
    assert_ended(second, third)
    pool.give_back(kept)
    pool.turns.end(0)
    assert pool.turns.enter(1, 0)
    assert take(pool, rig) is kept


def test_a_free_worker_ends_once_fewer_may_train(make_pool: Callable[..., Any], rig: Rig) -> None:
    pool = make_pool(3, 2)
    first, second = take(pool, rig), take(pool, rig)
    pool.give_back(first)
    pool.turns.end(0)
    pool.scale(1)
    assert_ended(first)
    pool.give_back(second)
    assert take(pool, rig) is second


def test_a_free_worker_ends_once_fewer_networks_are_left(make_pool: Callable[..., Any], rig: Rig) -> None:
    """As where the worker that was started for a network came at the same time as a free one."""
    pool = make_pool(3, 2)
    first, second = take(pool, rig), take(pool, rig)
    pool.give_back(first)
    for number in (0, 2):
        pool.turns.end(number)
    pool.grow()
    assert_ended(first)
    pool.give_back(second)


def test_who_waits_for_room_gets_what_comes_back(make_pool: Callable[..., Any], rig: Rig) -> None:
    """No network waits for its turn: the second one has it, and no CPU. So long as others work, it waits."""
    pool = make_pool(2, 2)
    first = take(pool, rig)
    pool.cpus = 1000  # there is no such room
    looks = iter(range(3))

    def check() -> None:
        if next(looks, None) is None:
            pool.cpus = 1
            pool.give_back(first)

    assert take(pool, rig, check) is first


def test_the_time_to_start_counts_from_when_no_other_works(
    make_pool: Callable[..., Any], rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    from distbp.team.ray import worker_pool

    now = 0.0
    monkeypatch.setattr(worker_pool, "time", SimpleNamespace(monotonic=lambda: now))
    pool = make_pool(2, 2)
    first = take(pool, rig)
    pool.cpus = 1000
    lost_at: list[float] = []

    def check() -> None:
        nonlocal now
        now += worker_pool.START_S / 4
        if now >= 2 * worker_pool.START_S and not lost_at:
            lost_at.append(now)
            pool.lose(first)

    with pytest.raises(
        ExchangeError,
        match=r"no worker of 1,000 CPUs could be started within 120 s: the cluster has \d+ CPUs free\. Ask"
        r" for fewer workers, or add CPUs",
    ):
        take(pool, rig, check)
    assert now - lost_at[0] >= worker_pool.START_S


def test_what_was_asked_for_counts_while_free_cpus_are_looked_at(
    make_pool: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from distbp.team.ray import worker_pool

    monkeypatch.setattr(worker_pool, "GROW_S", 0.0)
    pool = make_pool(3, 1, least=1, most=3)
    pool.grow()
    assert pool.turns.at_a_time == 3

    def asked_meanwhile() -> float:
        pool.scale(1)
        return 0.0

    monkeypatch.setattr(worker_pool, "awaited_cpus", asked_meanwhile)
    pool.grow()
    assert pool.turns.at_a_time == 1
    pool.grow()
    assert pool.turns.at_a_time == 1


def test_a_node_that_would_compute_other_bits_is_avoided(
    make_pool: Callable[..., Any], rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This cluster has no other node, so the error is raised."""
    if platform.machine() != "x86_64":
        pytest.skip("the name of another core type is known for x86-64 only")
    from distbp.team.ray import head_start
    from distbp.team.ray.actors import WorkerProcess

    def other_worker(early: None, where: Any, kernels: str, cpus: int) -> Any:
        other = {"env_vars": {"OPENBLAS_CORETYPE": "Nehalem"}}
        return WorkerProcess.options(scheduling_strategy=where, runtime_env=other).remote(kernels)

    monkeypatch.setattr(head_start, "worker", other_worker)
    told: list[str] = []
    with pytest.raises(FingerprintError, match=r"a worker on node \w+ would compute other bits \(.* Nehalem"):
        take(make_pool(1, 1), rig, told=told.append)
    assert not told


def test_a_call_to_stop_that_comes_late_does_not_undo_the_next(rig: Rig) -> None:
    rows: Any = dict(rig.data.splits)
    hosting = Hosting(rig.blueprint, Snapshot(0, {"vector": rig.start()}), 1, rows, 1)
    hosting.stop_soon(2)
    hosting.stop_soon(1)
    assert hosting.run(2, 0, 3, PlateauState()) == ("trained", 0)
    assert hosting.run(3, 0, 3, PlateauState()) == ("trained", 3)
    hosting.close()


def test_what_is_asked_for_again_is_nothing_new(make_pool: Callable[..., Any]) -> None:
    pool = make_pool(3, 1)
    assert [pool.scale(workers) for workers in (1, 1, 11, 11, 1)] == [True, False, True, False, True]


def test_a_cluster_with_fewer_cpus_than_workers() -> None:
    from distbp.team.ray.recruiting import tell_of_cpus

    told: list[str] = []
    for workers in (CPUS, CPUS + 1):
        tell_of_cpus(workers, told.append)
    assert told == ["the cluster has 10 CPUs for 11 workers; the rest join when more come"]
