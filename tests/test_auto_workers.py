"""`workers: auto` tries ways, keeps the fastest, says so, and leaves Ray where workers are not worth it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from rigs import Rig, classes, make_job, make_rig

from distbp.engine.parameter_server import NO_PLATEAU
from distbp.optim.schedules import PlateauState
from distbp.run.plan import speed_model
from distbp.run.plan.plan import JobPlan, predict
from distbp.run.plan.speed_model import Layout, Work
from distbp.team import auto as auto_workers
from distbp.team.auto import MEASURE_S, REPAY_S, AutoTeam, candidates, choose
from distbp.team.base import Snapshot
from distbp.team.inline import InlineTeam

LAYERS = ({"type": "dense", "units": 3},)
LONG = 100_000  # epochs, for which another way may repay its start


class Machine:
    """A clock that goes on with every step, by what a step takes there: number of workers -> seconds."""

    def __init__(self, seconds: dict[int, float]) -> None:
        self.now = 0.0
        self.seconds = seconds

    def clock(self) -> float:
        return self.now

    def team(self, of: int) -> type[InlineTeam]:
        machine = self

        class Timed(InlineTeam):
            workers = of

            def run(self, first: int, stop: int, plateau: PlateauState, stopping: Callable[[], bool]) -> int:
                for step in range(first, stop):
                    if stopping():
                        return step
                    super().run(step, step + 1, plateau, lambda: False)
                    machine.now += machine.seconds[of]
                return stop

            def scale(self, workers: int) -> str | None:
                return f"{self.workers} stay"

        return Timed


@pytest.fixture
def rig() -> Rig:
    return make_rig(make_job(LAYERS, batch_size=16, epochs=LONG, shards=2), classes(64))


class House:
    """An AutoTeam on a machine; what it said, and how often it left Ray."""

    def __init__(self, rig: Rig, seconds: dict[int, float], monkeypatch: pytest.MonkeyPatch) -> None:
        self.machine = Machine(seconds)
        self.said: list[str] = []
        self.left = 0
        monkeypatch.setattr(auto_workers, "InlineTeam", self.machine.team(0))
        monkeypatch.setattr(auto_workers.settings, "processors", lambda: 2)
        start = Snapshot(0, {"vector": rig.blueprint.network().initialize(0)})

        def on_ray(
            blueprint: Any, data: Any, snapshot: Snapshot, attempt: int, changed: Any, workers: int
        ) -> Any:
            return self.machine.team(workers)(blueprint, data, snapshot, attempt)

        self.team = AutoTeam(
            rig.blueprint, rig.data, start, 1, on_ray, self.said.append, self.leave,
            clock=self.machine.clock,
        )  # fmt: skip

    def leave(self) -> None:
        self.left += 1

    def train(self, stop: int) -> None:
        step = 0
        while step < stop:
            step = self.team.run(step, stop, NO_PLATEAU, lambda: False)


def test_workers_that_are_faster_stay(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    house = House(rig, {0: 0.01, 2: 0.006}, monkeypatch)
    house.train(400)
    assert house.team.workers == 2
    assert house.said == ["workers: auto chose 2 (steps a second: 0 workers 100, 2 workers 167)"]
    assert house.left == 0


def test_workers_that_are_hardly_faster_are_sent_away_and_ray_is_left(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = House(rig, {0: 0.01, 2: 0.0098}, monkeypatch)
    house.train(400)
    assert house.team.workers == 0
    assert house.said[0].startswith("workers: auto chose 0 (steps a second: 0 workers 100, 2 workers 102")
    assert house.left == 1


def test_what_is_left_must_repay_the_start_of_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    short = make_rig(make_job(LAYERS, batch_size=16, epochs=100, shards=2), classes(64))
    house = House(short, {0: 0.01}, monkeypatch)
    house.train(int(MEASURE_S / 0.01) + 10)
    assert house.team.workers == 0
    assert "s are left, too few to repay the start of other processes" in house.said[0]


def test_the_bits_are_those_of_one_way(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    house = House(rig, {0: 0.01, 2: 0.006}, monkeypatch)
    house.train(200)
    alone = InlineTeam(
        rig.blueprint, rig.data, Snapshot(0, {"vector": rig.blueprint.network().initialize(0)})
    )
    alone.run(0, 200, NO_PLATEAU, lambda: False)
    for name, values in alone.snapshot().arrays.items():
        np.testing.assert_array_equal(house.team.snapshot().arrays[name], values)


@pytest.mark.parametrize("epochs", [500, 20_000])
@pytest.mark.parametrize("shard_s", [2e-5, 1e-3, 5e-3])
def test_a_plan_advises_what_auto_chooses(
    shard_s: float, epochs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a machine that is as fast as was predicted."""
    rig = make_rig(make_job(LAYERS, batch_size=16, epochs=epochs, shards=2), classes(64))
    work, machine, layout = Work(2, shard_s, 4_000, 1e-6), speed_model.Machine(cores=2), Layout()
    total = rig.blueprint.total_steps
    plan = JobPlan("made", 1000, 16, total, work, machine, layout, *predict(work, machine, layout))
    house = House(rig, {step.workers: step.total_s for step in plan.here}, monkeypatch)
    step = 0
    while not house.said and step < total:
        step = house.team.run(step, total, NO_PLATEAU, lambda: False)
    assert house.team.workers == plan.best.workers
    assert plan.best.workers == (2 if shard_s > 2e-5 and shard_s * 2 * 4 * epochs > REPAY_S else 0)


def test_who_asks_for_a_number_gets_it(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    house = House(rig, {0: 0.01, 2: 0.006}, monkeypatch)
    assert house.team.scale(2) is None
    house.train(100)
    assert house.team.workers == 2 and house.said == []
    assert house.team.scale(1) == "2 stay"  # the team decides then
    assert house.team.scale(0) is None
    assert house.team.workers == 0


@pytest.mark.parametrize(
    ("cpus", "shards", "found"),
    [(1, 8, []), (2, 8, [2]), (8, 8, [8, 4]), (8, 1, []), (4, 3, [3]), (16, 6, [6, 3])],
)
def test_candidates(cpus: int, shards: int, found: list[int]) -> None:
    assert candidates(cpus, shards) == found


@pytest.mark.parametrize(
    ("speeds", "steps", "best"),
    [
        ({0: 100.0}, 10_000, 0),
        ({0: 100.0, 2: 104.0}, 10_000, 0),
        ({0: 100.0, 2: 120.0, 4: 130.0}, 10_000, 4),
        ({0: 100.0, 2: 120.0, 4: 1300.0}, 1_500, 0),  # 15 s are left: Ray's start would not be repaid
        ({0: 100.0, 2: 120.0, 4: 1300.0}, 1_501, 4),
    ],
)
def test_the_choice(speeds: dict[int, float], steps: int, best: int) -> None:
    assert choose(speeds, steps) == best
