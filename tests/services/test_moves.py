"""Pause, scale and resume of jobs with Ray workers on a service, at random moments: while Ray starts, while
steps run, while Ray ends. No attempt is called failed, and the bits are those of an undisturbed run.

Run by `make faults`.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any

import pytest
from distbp_service import states
from mortal import House, until
from served import QUICK

import distbp
from distbp.core import settings
from distbp.run.run_directory import METRICS, read_lines

WORK: Mapping[str, Any] = {
    "name": "moved",
    "data": {"train": {"format": "blobs", "samples": 2048, "features": 8, "classes": 4}},
    "model": {
        "layers": [{"type": "dense", "units": 16, "activation": "tanh"}, {"type": "dense", "units": 4}]
    },
    "loss": "softmax_cross_entropy",
    "optimizer": {"type": "adam", "learning_rate": 0.01},
    "batch_size": 16,
    "epochs": 60,
    "shards": 4,
    "checkpoint": {"every_steps": 1000},
}
WAIT_S = 1200.0
PAUSE_S = 8.0  # at most, between two moves: long enough for a Ray to start, or to be half-way


@pytest.fixture
def undisturbed(tmp_path: Path) -> distbp.Result:
    with settings.environment(QUICK):
        job = distbp.TrainingJob.from_mapping(WORK)
        return distbp.train(job, workers=0, output=tmp_path / "undisturbed")


@pytest.mark.faults
def test_a_few_moves(tmp_path: Path, undisturbed: distbp.Result) -> None:
    prove(tmp_path, undisturbed, moves=2, seed=1, workers=[2])


@pytest.mark.faults
@pytest.mark.parametrize("seed", [1, 2])
def test_twenty_moves_at_random_moments(tmp_path: Path, undisturbed: distbp.Result, seed: int) -> None:
    prove(tmp_path, undisturbed, moves=20, seed=seed, workers=[1, 2])


def prove(folder: Path, undisturbed: distbp.Result, *, moves: int, seed: int, workers: list[int]) -> None:
    chance, jobs, made = Random(seed), list[str](), list[str]()
    with House(folder, slots=sum(workers) + 1) as house:
        going: list[str] = []
        while len(made) < moves or going:
            while len(made) < moves and len(going) < len(workers):
                more = {"workers": workers[len(jobs) % len(workers)]}
                going.append(house.ask("POST", "/v1/jobs", json={"job": {**WORK, **more}})["id"])
                jobs.append(going[-1])
            if len(made) < moves:
                threading.Event().wait(chance.uniform(0.0, PAUSE_S))
                made += move(house, chance.choice(going), chance)
            going = [job for job in going if state(house, job) not in states.TERMINAL]
            if len(made) >= moves:
                for job in going:
                    settle(house, job)
        print(f"moves: {made}")
        for job in jobs:
            check(house, job, undisturbed)


def move(house: House, job: str, chance: Random) -> list[str]:
    """One move of a user, whatever the job is about to do; none where it has ended meanwhile."""
    now = state(house, job)
    if now in states.TERMINAL:
        return []
    if now == "paused":
        house.ask("POST", f"/v1/jobs/{job}:resume")
        return [f"{now} resume"]
    if now != "pausing" and chance.random() < 0.5:
        return [f"{now} pause"] if asked(house, job, "pause") else []
    workers = chance.choice([0, 1, 2])
    return [f"{now} scale {workers}"] if asked(house, job, "scale", {"workers": workers}) else []


def asked(house: House, job: str, verb: str, body: Any = None) -> bool:
    """Asks for it; False where the job was quicker to end."""
    answer = house.ask("POST", f"/v1/jobs/{job}:{verb}", **({} if body is None else {"json": body}))
    assert "state" in answer or state(house, job) in states.TERMINAL, answer
    return "state" in answer


def settle(house: House, job: str) -> None:
    """To its end."""
    until(
        lambda: state(house, job) in {"paused", *states.TERMINAL} or going_on(house, job), house.story, WAIT_S
    )
    if state(house, job) == "paused":
        house.ask("POST", f"/v1/jobs/{job}:resume")
    until(lambda: state(house, job) in states.TERMINAL, house.story, WAIT_S)


def going_on(house: House, job: str) -> bool:
    return state(house, job) in ("queued", "starting", "running")


def state(house: House, job: str) -> str:
    return str(house.ask("GET", f"/v1/jobs/{job}")["state"])


def check(house: House, job: str, undisturbed: distbp.Result) -> None:
    found = house.ask("GET", f"/v1/jobs/{job}")
    assert found["state"] == "completed", (found["error"], found["attempts"], house.story())
    for attempt in found["attempts"]:
        ended = attempt["outcome"], attempt["error"]
        assert ended in (("interrupted", None), ("completed", None)), house.story()
    assert found["result"]["params_sha256"] == undisturbed.params_sha256
    rows = house.ask("GET", f"/v1/jobs/{job}/metrics?points=10000")["items"]
    assert [row["data"] for row in rows] == read_lines(undisturbed.path / METRICS)
    told = house.ask("GET", f"/v1/jobs/{job}/events?limit=1000")["items"]
    walked = [(event["data"]["from"], event["data"]["to"]) for event in told if event["kind"] == "state"]
    assert all(step in states.MOVES for step in walked[1:]), walked
    assert not [step for step in walked if "recovering" in step], walked
