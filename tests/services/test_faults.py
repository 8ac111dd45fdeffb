"""kill -9 of any part of the service, at random points of jobs that run: every job ends as it would have,
with the same bits; metrics and events have no gap and no duplicate; no attempt overlaps another.

A few jobs in `make test`; twenty, and a Ray cluster, in `make faults`.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import pytest
from followers import Followers
from mortal import House, until
from postgres import postgresql_server
from served import QUICK

import distbp
from distbp.core import settings
from distbp.run.run_directory import METRICS, read_lines

ROWS = {"format": "blobs", "samples": 8192, "features": 8, "classes": 4}
WORK: Mapping[str, Any] = {
    "name": "digits",
    "data": {"train": ROWS, "validation": {**ROWS, "samples": 64}},
    "model": {
        "layers": [{"type": "dense", "units": 16, "activation": "tanh"}, {"type": "dense", "units": 4}]
    },
    "loss": "softmax_cross_entropy",
    "optimizer": {"type": "momentum", "learning_rate": 0.05},
    "batch_size": 16,
    "workers": 0,
    "shards": 4,
    "checkpoint": {"every_steps": 1000},
}
Local = Callable[[Mapping[str, Any]], distbp.Result]
DIVERGES = {"optimizer": {"type": "sgd", "learning_rate": 1e30}, "loss": "mse"}


@dataclass(frozen=True)
class Planned:
    """A job, what its user does to it while it runs ("" or a verb of the API), and how it must end."""

    changes: Mapping[str, Any]
    does: str = ""
    ends: str = "completed"


@pytest.fixture
def local(tmp_path_factory: pytest.TempPathFactory) -> Local:
    """Trains a job in this process; each once."""
    known: dict[str, distbp.Result] = {}

    def train(job: Mapping[str, Any]) -> distbp.Result:
        full = distbp.TrainingJob.from_mapping(job)
        if full.digest not in known:
            with settings.environment(QUICK):
                known[full.digest] = distbp.train(
                    full, workers=0, output=tmp_path_factory.mktemp("local") / "run"
                )
        return known[full.digest]

    return train


@pytest.fixture
def ray_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="ray-"))  # not below pytest's: sockets want short paths
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def test_parts_are_killed_while_jobs_run(tmp_path: Path, local: Local) -> None:
    plans = [Planned({"epochs": 30}), Planned({"epochs": 30}, "pause")]
    faults = ["runner", "api", "database", "dispatcher"]
    with postgresql_server() as database, House(tmp_path, slots=3, database=database) as house:
        prove(house, plans, local, faults=faults, seed=1, pause_s=1.0)


def twenty(seed: int, many: int) -> list[Planned]:
    """Twenty jobs, five of which do not simply complete. many: the workers of two of them."""
    # A job may be through before its user speaks: long ones wait for them.
    plans = [
        Planned({"epochs": 400}, "cancel", "cancelled"),
        Planned({"epochs": 200}, "pause"),
        Planned({"epochs": 200, "seed": 2}, "pause"),
        Planned(DIVERGES, ends="failed"),
        Planned({"epochs": 12}, "scale"),
        Planned({"epochs": 8, "workers": many}),
        Planned({"epochs": 8, "workers": many}),
    ]
    plans += [Planned({"epochs": 40 + 20 * (n % 3), "seed": n % 2}) for n in range(20 - len(plans))]
    Random(seed).shuffle(plans)
    return plans


def shuffled(kinds: Sequence[str], seed: int) -> list[str]:
    found = list(kinds)
    Random(seed).shuffle(found)
    return found


@pytest.mark.faults
@pytest.mark.parametrize("seed", [1, 2])
def test_any_part_at_random_points_of_twenty_jobs(tmp_path: Path, local: Local, seed: int) -> None:
    kinds = shuffled(["runner"] * 14 + ["api"] * 5 + ["dispatcher"] * 5 + ["database"] * 4, seed)
    with postgresql_server() as database, House(tmp_path, slots=20, database=database) as house:
        prove(house, twenty(seed, 2), local, faults=kinds, seed=seed, pause_s=1.5)


@pytest.mark.faults
def test_any_part_at_random_points_of_twenty_jobs_with_sqlite(tmp_path: Path, local: Local) -> None:
    kinds = shuffled(["runner"] * 14 + ["api"] * 5 + ["dispatcher"] * 5, 3)
    with House(tmp_path, slots=20) as house:
        prove(house, twenty(3, 0), local, faults=kinds, seed=3, pause_s=1.5)


@pytest.mark.faults
def test_the_ray_head_and_all_else_at_random_points_of_twenty_jobs(
    tmp_path: Path, local: Local, ray_folder: Path
) -> None:
    pytest.importorskip("aiohttp_cors", reason="ray[default] is not installed: no Ray Jobs API")
    kinds = shuffled(["runner"] * 6 + ["ray"] * 4 + ["api"] * 3 + ["dispatcher"] * 3 + ["database"] * 2, 4)
    with (
        postgresql_server() as database,
        House(tmp_path, slots=8, database=database, ray=ray_folder) as house,
    ):
        prove(house, twenty(4, 2), local, faults=kinds, seed=4, pause_s=5.0)


def prove(
    house: House,
    plans: Sequence[Planned],
    local: Local,
    *,
    faults: Sequence[str],
    seed: int,
    pause_s: float,
    wait_s: float = 400.0,
) -> None:
    """Submits the jobs, kills parts in the order of `faults`, about `pause_s` apart, while jobs run; then
    checks everything."""
    jobs: list[str] = []
    wanted = []
    for plan in plans:
        wanted.append({**WORK, **plan.changes})
    for number, job in enumerate(wanted):
        key = {"Idempotency-Key": f"fault-{number}"}
        answer = house.ask("POST", "/v1/jobs", json={"job": job}, headers=key)
        jobs.append(answer["id"])
    followers = Followers(house.url, house.token, jobs)
    users = [
        threading.Thread(target=use, args=(house, job, plan.does), daemon=True)
        for job, plan in zip(jobs, plans, strict=True)
        if plan.does
    ]
    for user in users:
        user.start()
    done = disturb(house, faults, Random(seed), pause_s)
    until(lambda: ended(house), lambda: told(house, jobs), wait_s)
    followers.join(30)
    for user in users:
        user.join(60)
    assert set(done) == set(faults), f"only {done} came while jobs ran"
    for job, plan, work in zip(jobs, plans, wanted, strict=True):
        check(house, followers, job, plan, work, local)
    assert sum(stream.cuts for stream in followers.events.values()) > 0
    assert house.leaks() == []
    restarts = sum(len(attempts) - 1 for attempts in house.seen.values())
    print(f"faults: {len(done)}, further attempts: {restarts}")


def disturb(house: House, faults: Sequence[str], chance: Random, pause_s: float) -> list[str]:
    """Kills one after the other, at random times, as long as jobs run. Returns what was killed."""
    done = []
    wait = threading.Event()
    for what in faults:
        wait.wait(chance.uniform(0.2, 1.8) * pause_s)
        until(lambda: bool(house.runners()) or ended(house), house.story)
        if house.runners() and house.kill(what, chance, chance.uniform(0.0, 1.0)):
            done.append(what)
    return done


def ended(house: House) -> bool:
    page = house.ask("GET", "/v1/jobs?limit=100")
    return all(job["state"] in ("completed", "failed", "cancelled") for job in page["items"])


def told(house: House, jobs: Sequence[str]) -> str:
    """How the jobs are, for a test that fails."""
    found = [house.ask("GET", f"/v1/jobs/{job}") for job in jobs]
    lines = [
        f"{j['id']} {j['state']} {j['reason']}; {j['progress']}; {len(j['attempts'])} attempts" for j in found
    ]
    return "\n".join([*lines, house.story()])


def state(house: House, job: str) -> str:
    return str(house.ask("GET", f"/v1/jobs/{job}")["state"])


def use(house: House, job: str, does: str) -> None:
    """What a user does to a job that runs."""
    until(lambda: state(house, job) not in ("queued", "starting"), house.story)
    if does == "scale":
        house.ask("POST", f"/v1/jobs/{job}:scale", json={"workers": 1})
        return
    house.ask("POST", f"/v1/jobs/{job}:{does}")
    if does == "pause":
        until(lambda: state(house, job) in ("paused", "completed"), house.story)
        house.ask("POST", f"/v1/jobs/{job}:resume")


def check(
    house: House,
    followers: Followers,
    job: str,
    plan: Planned,
    work: Mapping[str, Any],
    local: Local,
) -> None:
    found = house.ask("GET", f"/v1/jobs/{job}")
    assert found["state"] == plan.ends, (plan, found["state"], found["error"], found["attempts"])
    # A client that followed saw every event once, whatever was killed.
    told = followers.events[job]
    assert told.numbers() == list(range(1, len(told.told) + 1))
    assert told.ended == followers.metrics[job].ended == {"state": plan.ends}
    page = house.ask("GET", f"/v1/jobs/{job}/events?limit=1000")
    assert [event for _, event in told.told] == page["items"]
    # An older attempt says nothing after a newer one has begun, and each ended before the next started.
    attempts = [event["attempt"] for event in page["items"]]
    assert attempts == sorted(attempts)
    lives = [(one["started_at"], one["ended_at"]) for one in found["attempts"]]
    assert [one["attempt"] for one in found["attempts"]] == list(range(1, len(lives) + 1))
    assert all(before[1] <= after[0] for before, after in pairwise(lives))
    # Its process may end a little after it has said that it is done; never one that was given up.
    for one in found["attempts"]:
        if one["attempt"] in house.outlived.get(job, ()):
            assert (one["error"] or {}).get("class") != "lost", (one, found["attempts"])
    assert followers.metrics[job].numbers() == sorted(set(followers.metrics[job].numbers()))
    if plan.ends == "completed":
        undisturbed = local(work)
        assert found["result"]["params_sha256"] == undisturbed.params_sha256
        rows = house.ask("GET", f"/v1/jobs/{job}/metrics?points=10000")["items"]
        assert [row["data"] for row in rows] == read_lines(undisturbed.path / METRICS)
        assert followers.metrics[job].metrics() == read_lines(undisturbed.path / METRICS)
