"""Several teams on one service, as `distbp serve` starts it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from distbp_service.allotment import measured
from distbp_service.store import Store
from served import Served, serving

import distbp
from distbp.run.checkpoint import load_latest

ENDLESS: dict[str, Any] = {
    "data": {"train": {"format": "blobs", "samples": 64}},
    "model": {"layers": [{"type": "dense", "units": 3}]},
    "loss": "softmax_cross_entropy",
    "epochs": 10**9,
    "shards": 1,
    "checkpoint": {"every_seconds": None},
}


@contextmanager
def service_of(served: Served, project: str) -> Iterator[Any]:
    """The service as a token of the project sees it."""
    store = Store(f"sqlite:///{served.home / 'distbp.db'}")
    secret = store.tokens.create(project, ("read", "submit", "manage"))[1]
    store.close()
    with distbp.connect(served.url, secret) as service:
        yield service


def until(happened: Callable[[], Any], timeout_s: float = 60.0) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (found := happened()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found


def test_no_project_starves_another(tmp_path: Path) -> None:
    job = distbp.TrainingJob.from_mapping(ENDLESS)
    with (
        serving(tmp_path, "--slots", "2") as served,
        service_of(served, "a") as a,
        service_of(served, "b") as b,
    ):
        mine = [a.submit(job, priority=100) for _ in range(4)]
        until(lambda: [one.state for one in mine[:2]] == ["running", "running"])
        theirs = b.submit(job)
        found = theirs.status()
        assert found["reason"] == "needs 1 slot of 2, and none is free (in use: a 2); place 1 in line"
        with pytest.raises(distbp.JobError, match=r"workers: needs 1,024 slots, and the service has 2"):
            b.submit(job.replace(batch_size=4096, shards=1024, workers=1024))
        with pytest.raises(distbp.DistbpError, match="9 workers need 9 slots, and the service has 2"):
            theirs.scale(9)
        mine[0].cancel()
        until(lambda: mine[0].state == "cancelled")
        until(lambda: theirs.state == "running")
        assert [one.state for one in mine[1:]] == ["running", "queued", "queued"]
        for one in (theirs, *mine[1:]):
            one.cancel()
        until(lambda: all(one.state == "cancelled" for one in (theirs, *mine)))


def test_a_disk_quota_holds_against_a_checkpoint_at_every_step(tmp_path: Path) -> None:
    most = 10_000_000
    greedy = {"every_steps": 1, "keep_last": 1_000_000}
    wide = {"layers": [{"type": "dense", "units": 20_000}, {"type": "dense", "units": 3}]}
    job = distbp.TrainingJob.from_mapping({**ENDLESS, "model": wide, "checkpoint": greedy})
    served = Served(tmp_path)
    served.environment["DISTBP_SERVICE_PROJECT_BYTES"] = str(most)
    try:
        served.start("--slots", "2")
        with service_of(served, "a") as a:
            both = [a.submit(job) for _ in range(2)]
            latest = []
            for one in both:
                with pytest.raises(distbp.DistbpError, match="Delete jobs, models or datasets"):
                    one.wait(timeout_s=120)
                assert one.status()["attempt"] == 1
                latest.append(load_latest(served.home / "work" / one.id / "run" / "checkpoints"))
            found = [one for one in latest if one is not None]  # the first job may have taken all of it
            assert found and all(one.step > 0 and one.set_aside == () for one in found)
            assert sum(measured(served.home / "work" / one.id) for one in both) <= most
            for one in both:
                one.delete()
                assert not (served.home / "work" / one.id).exists()
    finally:
        served.stop()
