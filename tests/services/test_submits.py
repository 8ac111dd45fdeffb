"""Submits from many clients while the API is killed and started again: each becomes one job, once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

import httpx
import pytest
from mortal import House, until
from postgres import postgresql_server

CLIENTS = 20
FEW, MANY = 10, 50  # submits of each client: in `make test`, in `make faults`
JOB = {
    "data": {"train": {"format": "blobs"}},
    "model": {"layers": [{"type": "dense", "units": 3}]},
    "loss": "softmax_cross_entropy",
}


@pytest.fixture
def house(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[House]:
    if request.param == "sqlite":
        with House(tmp_path, names=("api",)) as made:
            yield made
    else:
        with postgresql_server() as database, House(tmp_path, names=("api",), database=database) as made:
            yield made


class Counting:
    """How many submits were answered, for the one who waits for a number of them."""

    def __init__(self) -> None:
        self._count, self._changed = 0, threading.Condition()

    def one_more(self) -> None:
        with self._changed:
            self._count += 1
            self._changed.notify_all()

    def wait_for(self, count: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self._count >= count, 120), self._count


def client(house: House, keys: list[str], counting: Counting) -> list[str]:
    """Submits one job for each key, one after the other; sends again what was not answered, as everybody may
    who gives a key. Returns the ids of the jobs."""
    ids: list[str] = []
    with httpx.Client(base_url=house.url, trust_env=False, timeout=20) as http:
        for number, key in enumerate(keys):
            job = {**JOB, "name": f"job {key}"}

            def sent(key: str = key, job: object = job) -> bool:
                headers = {"Authorization": f"Bearer {house.token}", "Idempotency-Key": key}
                try:
                    answer = http.post("/v1/jobs", json={"job": job}, headers=headers)
                except httpx.TransportError:
                    return False
                if answer.status_code in (429, 503):
                    return False
                assert answer.status_code == 202, answer.text
                ids.append(answer.json()["id"])
                return True

            until(sent, house.story)
            counting.one_more()
            assert len(ids) == number + 1
    return ids


def submit_all(house: House, keys: Callable[[int, int], str], each: int, kills: int, seed: int) -> list[str]:
    """The ids that the clients got for `each` submits of theirs, while the API was killed `kills` times."""
    chance, counting = Random(seed), Counting()
    moments = sorted(chance.sample(range(CLIENTS * each * 9 // 10), kills))
    with ThreadPoolExecutor(CLIENTS) as pool:
        clients = [
            pool.submit(client, house, [keys(number, n) for n in range(each)], counting)
            for number in range(CLIENTS)
        ]
        for moment in moments:
            counting.wait_for(moment)
            until(lambda: house.kill("api", chance, chance.uniform(0.0, 0.3)), house.story)
        return [job_id for one in clients for job_id in one.result(120)]


def listed(house: House) -> list[str]:
    """The names of all jobs."""
    names: list[str] = []
    cursor = ""
    while True:
        page = house.ask("GET", f"/v1/jobs?limit=400{cursor}")
        names += [job["name"] for job in page["items"]]
        if page["cursor"] is None:
            return names
        cursor = f"&cursor={page['cursor']}"


def rows(first: str, other: str) -> pytest.MarkDecorator:
    """A few submits to one kind of database in `make test`; many, to both, in `make faults`."""
    many = [pytest.param(kind, MANY, marks=pytest.mark.faults) for kind in (first, other)]
    return pytest.mark.parametrize(("house", "each"), [(first, FEW), *many], indirect=["house"])


@rows("sqlite", "postgresql")
def test_every_submit_is_a_job(house: House, each: int) -> None:
    ids = submit_all(house, lambda number, n: f"{number}-{n}", each, kills=3, seed=5)
    assert len(ids) == len(set(ids)) == CLIENTS * each
    assert sorted(listed(house)) == sorted(f"job {n}-{m}" for n in range(CLIENTS) for m in range(each))


@rows("postgresql", "sqlite")
def test_the_same_key_again_and_again_is_one_job(house: House, each: int) -> None:
    ids = submit_all(house, lambda number, n: "same", each, kills=2, seed=6)
    assert len(ids) == CLIENTS * each
    assert len(set(ids)) == 1
    assert listed(house) == ["job same"]
