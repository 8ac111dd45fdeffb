"""A run on Ray that is audited, grown and shrunk while it trains, stopped, and verified."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from rigs import classes, make_job

from distbp import Control, train
from distbp.core.errors import Interrupted
from distbp.run import events
from distbp.run.run_directory import read_lines
from distbp.run.verify import verify_run

DATA = classes(4000)


def test_ray_imported_too_early_is_told_at_once() -> None:
    code = """
import ray
from distbp.core.errors import ExchangeError
from distbp.team.ray.session import RaySession
try:
    RaySession(1).wait()
except ExchangeError as error:
    print(error)
"""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.strip() == (
        "this program imported Ray before distbp started one, without token authentication, and Ray keeps"
        " what it was imported with. Train before the first `import ray`, or call ray.init() first: distbp"
        " joins that Ray"
    )


@pytest.mark.usefixtures("ray_here")
def test_workers_come_and_go_and_the_bits_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTBP_KERNELS", "numpy")
    from distbp.team.ray.recruiting import awaited_cpus  # imports Ray, which must not be before its session

    assert awaited_cpus() == 0.0
    control = Control()
    workers: list[int] = []

    def listen(event: events.Event) -> None:
        if isinstance(event, events.Started):
            control.scale(3)
        elif isinstance(event, events.TeamChanged) and event.reason.startswith("a worker joined; 3 go on"):
            workers.append(3)
            control.scale(1)
        elif isinstance(event, events.TeamChanged) and event.reason.endswith("was sent away; 1 go on"):
            workers.append(1)
            control.stop()

    job = make_job(
        [{"type": "dense", "units": 6}, {"type": "dropout", "rate": 0.2}, {"type": "dense", "units": 3}],
        audit=0.1,
        epochs=1_000_000,
        batch_size=16,
        optimizer={"type": "adam"},
        checkpoint={"every_steps": 250, "every_seconds": None, "keep_best": False},
    )
    run = tmp_path / "run"
    with pytest.raises(Interrupted, match=r"stopped by a call of stop\(\)"):
        train(job, data=DATA, output=run, workers=2, control=control, listener=listen)
    assert workers == [3, 1]
    told = [line["reason"] for line in read_lines(run / "events.jsonl") if line["event"] == "team_changed"]
    assert told[0] == "3 workers were asked for; there are 2 now"
    assert verify_run(run, data=DATA).equal
