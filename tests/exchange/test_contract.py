"""One contract over every team: the same steps, the same evaluations, the same bits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from functools import cache
from typing import Any

import numpy as np
import pytest
from local_team import LocalTeam, Pool, on_ray
from rigs import Rig, classes, make_job, make_rig

from distbp.core.arrays import Array
from distbp.engine import numerics
from distbp.engine.parameter_server import NotFiniteError
from distbp.optim.schedules import PlateauState
from distbp.team.base import Snapshot, Team
from distbp.team.exchange.faults import FaultPlan
from distbp.team.inline import InlineTeam

LAYERS = (
    {"type": "dense", "units": 6, "activation": "tanh"},
    {"type": "dropout", "rate": 0.25},
    {"type": "batch_normalization"},
    {"type": "dense", "units": 3},
)
STEPS = 12
PLATEAU = PlateauState()
FAULTS = FaultPlan(seed=3, drop=0.15, repeat=0.2, delay=0.2, reorder=0.15)
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {"type": "sgd", "learning_rate": 0.2},
    "momentum": {"type": "momentum", "learning_rate": 0.1, "momentum": 0.9},
    "adam": {"type": "adam", "learning_rate": 0.02},
}


@cache
def rig(optimizer: str = "adam", shards: int = 8) -> Rig:
    """Batches of 40, 40 and 30 rows; 12 steps are 4 epochs."""
    job = make_job(
        LAYERS, batch_size=40, shards=shards, optimizer=OPTIMIZERS[optimizer], clip={"norm": 0.7}, epochs=4
    )
    return make_rig(job, classes(110, weighted=True), {"validation": classes(37, seed=1)})


@pytest.fixture(autouse=True)
def as_in_training() -> Iterator[None]:
    with numerics.one_blas_thread(), numerics.quiet():
        yield


Make = Callable[..., Team]  # (rig, snapshot=fresh, attempt=1) -> team


def fresh(made: Rig) -> Snapshot:
    return Snapshot(0, {"vector": made.start()})


def inline(made: Rig, start: Snapshot | None = None, attempt: int = 1) -> Team:
    return InlineTeam(made.blueprint, made.data, start or fresh(made), attempt)


ROWS = ["inline", "processes-1", "processes-3", "processes-2-faults", "ray-2-faults"]


@pytest.fixture(params=ROWS)
def make(request: pytest.FixtureRequest) -> Make:
    kind, *rest = request.param.split("-")
    faults = FAULTS if "faults" in rest else None
    if kind == "inline":
        return inline
    workers = int(rest[0])
    if kind == "ray":
        request.getfixturevalue("ray_here")
        return lambda made, start=None, attempt=1: on_ray(
            made, workers, faults, start or fresh(made), attempt
        )
    pool: Pool = request.getfixturevalue("pool")
    return lambda made, start=None, attempt=1: LocalTeam(
        pool, made.blueprint, made.data, start or fresh(made), attempt, workers, faults
    )


def never() -> bool:
    return False


def trained(team: Team, first: int = 0, stop: int = STEPS) -> dict[str, Array]:
    assert team.run(first, stop, PLATEAU, never) == stop
    return dict(team.snapshot().arrays)


@cache
def undisturbed(optimizer: str = "adam", shards: int = 8) -> dict[str, Array]:
    with closing(inline(rig(optimizer, shards))) as team:
        return trained(team)


def assert_same(found: dict[str, Array], expected: dict[str, Array]) -> None:
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        assert found[name].tobytes() == array.tobytes(), name


def test_the_whole_contract(make: Make) -> None:
    """In one test, since a team is what takes time to start."""
    made = rig()
    with closing(make(made)) as team:
        assert team.snapshot().step == 0
        assert team.run(0, 5, PLATEAU, never) == 5
        half = team.snapshot()
        assert half.step == 5

        # A stop comes between two steps, and loses nothing.
        reached = 5
        for _ in range(3):
            before, reached = reached, team.run(reached, 9, PLATEAU, lambda: True)
            assert before <= reached <= 9
        assert team.snapshot().step == reached
        assert_same(trained(team, reached), undisturbed())
        with closing(inline(made)) as other:
            trained(other)
            expected = other.evaluate("validation")
            assert team.snapshot().health == other.snapshot().health
            report, epoch = team.snapshot(whole=False), other.snapshot()
            assert_same(dict(report.arrays), {"epoch_totals": epoch.arrays["epoch_totals"]})
            assert (report.step, report.health) == (epoch.step, epoch.health)
        assert team.evaluate("validation").sums.tobytes() == expected.sums.tobytes()
        assert team.evaluate("validation").sums.tobytes() == expected.sums.tobytes()
    team.close()  # fine again

    # A later attempt goes on from the snapshot of an earlier one.
    with closing(make(made, half, 2)) as team:
        assert team.snapshot().step == 5
        assert_same(trained(team, 5), undisturbed())


def test_what_is_not_finite_is_not_applied(make: Make) -> None:
    x, y = classes(64)
    x[40] = 3.4e38  # the sums of the first layer are beyond float32
    made = make_rig(make_job(shards=4, epochs=2), (x, y))
    bad = next(s for s in range(8) if any(40 in made.worker(made.start()).rows(s, k) for k in range(4)))
    with closing(make(made)) as team:
        with pytest.raises(NotFiniteError) as caught:
            team.run(0, 8, PLATEAU, never)
        assert caught.value.step == bad
        good = team.snapshot()
        assert good.step == bad
        assert np.isfinite(good.arrays["vector"]).all()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("workers", [0, 1, 2, 3, 5, 8])
def test_any_number_of_workers_gives_the_same_bits(optimizer: str, workers: int, pool: Pool) -> None:
    made = rig(optimizer)
    team = LocalTeam(pool, made.blueprint, made.data, fresh(made), 1, workers) if workers else inline(made)
    with closing(team):
        assert_same(trained(team), undisturbed(optimizer))


@pytest.mark.parametrize("shards", [1, 3, 7])
def test_any_number_of_shards(shards: int, pool: Pool) -> None:
    made = rig(shards=shards)
    with closing(LocalTeam(pool, made.blueprint, made.data, fresh(made), 1, 5, FAULTS)) as team:
        assert_same(trained(team), undisturbed(shards=shards))


@pytest.mark.slow
@pytest.mark.parametrize("faults", [None, FAULTS])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("workers", [1, 2, 3, 5, 8])
def test_any_number_of_workers_on_ray(
    optimizer: str, workers: int, faults: FaultPlan | None, ray_here: None
) -> None:
    made = rig(optimizer)
    with closing(on_ray(made, workers, faults, fresh(made), 1)) as team:
        assert_same(trained(team), undisturbed(optimizer))


def test_more_workers_than_shards_on_ray(ray_here: None) -> None:
    made = rig("momentum", 3)
    with closing(on_ray(made, 5, None, fresh(made), 1)) as team:
        assert team.workers == 5
        assert_same(trained(team), undisturbed("momentum", 3))
        assert team.exchange == "shared memory"
