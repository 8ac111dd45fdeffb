"""`distbp plan`: measured constants make sense, and the words follow the numbers. Speeds are not tested
here."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from rigs import classes, make_job, make_rig

from distbp.cli import main as cli
from distbp.core import settings
from distbp.core.errors import ExchangeError
from distbp.engine import numerics
from distbp.run.plan import calibrate
from distbp.run.plan.plan import JobPlan, describe, draw_speedups, plan_job, predict, predict_apart
from distbp.run.plan.speed_model import Layout, Machine, Work

FLOAT = np.dtype(np.float32)
QUICK_S = 0.02
JOB = make_job(batch_size=16, epochs=3)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTBP_KERNELS", "numpy")


def made_plan(work: Work, machine: Machine, layout: Layout = Layout()) -> JobPlan:  # noqa: B008 - frozen
    return JobPlan("made", 1000, 64, 5000, work, machine, layout, *predict(work, machine, layout))


WORK = Work(shards=64, shard_s=2e-3, bytes=4_000_000, update_s=1e-3)
MACHINE = Machine(cores=8)


def test_networks_that_train_apart() -> None:
    """Ten networks, a step of each 129 ms alone on a core: eight at a time here, all on two nodes."""
    here, nodes = predict_apart(WORK, MACHINE, 10)
    assert [(step.workers, round(step.total_s, 6)) for step in here] == [
        (n, round(0.129 / (n or 8), 6)) for n in (0, 1, 2, 3, 4, 6, 8)
    ]
    assert [(n, step.workers, round(step.total_s, 6)) for n, step in nodes] == [(2, 10, 0.0129)]
    found = JobPlan("made", 1000, 64, 5000, WORK, MACHINE, Layout(), here, nodes, 10)
    lines = describe(found).splitlines()
    assert lines[0] == "made: 10 networks of 1,000 parameters, batches of 64 in 64 shards, 5,000 steps"
    assert lines[-2:] == [
        "best on this machine: workers: 0 (inline); the whole job takes about 80.6 s without evaluation",
        "the networks train side by side, each on one worker: more than 10 workers share its shards among"
        " the CPUs of one node",
    ]
    assert (found.to_json()["most_nodes"], found.to_json()["best_workers"]) == (2, 0)


# Measuring ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("workers", "threads"), [(1, 1), (2, 1), (2, 2)])
def test_an_exchange_between_processes(workers: int, threads: int) -> None:
    times = calibrate.exchange_times(5_000, FLOAT, workers, QUICK_S, threads)
    assert len(times) >= 3 and all(0 < t < 10 for t in times)


def test_a_helper_that_ends_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(*arguments: Any) -> subprocess.Popen[bytes]:
        return subprocess.Popen(["true"])

    monkeypatch.setattr(calibrate, "_start_helper", start)
    with pytest.raises(ExchangeError, match="a process that measures the exchange ended by itself"):
        calibrate.exchange_times(10, FLOAT, 1, QUICK_S)


def test_measuring_a_job_trains_nothing() -> None:
    rig = make_rig(JOB, classes(70))
    with numerics.one_blas_thread():
        work = calibrate.measure_work(rig.blueprint, rig.data, QUICK_S)
    assert (work.shards, work.bytes) == (4, rig.start().nbytes)
    assert 0 < work.shard_s < 1 and 0 < work.update_s < 1 and work.jitter >= 0
    assert work.inline_s is not None and 0 < work.inline_s < 1


def test_a_job_too_short_to_measure_inline() -> None:
    rig = make_rig(make_job(batch_size=16, epochs=None, max_steps=2), classes(70))
    with numerics.one_blas_thread():
        work = calibrate.measure_work(rig.blueprint, rig.data, QUICK_S)
    assert work.inline_s is None
    assert predict(work, MACHINE, Layout())[0][0].total_s == work.shards * work.shard_s + work.update_s


def test_repeat_measures_at_least_three_times() -> None:
    calls: list[None] = []
    times = calibrate.repeat(lambda: calls.append(None), 0.0)
    assert len(times) == 3 and len(calls) == 4


# Predicting --------------------------------------------------------------------------------------------


@pytest.mark.heavy
def test_a_plan_from_arrays() -> None:
    found = plan_job(JOB, data=classes(70), bandwidth_gbits=25, latency_ms=0.5, seconds=QUICK_S)
    assert (found.total_steps, found.batch_size, found.work.shards) == (15, 16, 4)
    assert (found.machine.bandwidth, found.machine.latency_s) == (25e9 / 8, 0.5e-3)
    assert found.machine.cores == settings.processors()
    several = plan_job(JOB.replace(members=3), data=classes(70), seconds=QUICK_S)
    assert (several.total_steps, several.networks, several.best.workers) == (45, 3, 0)
    json.dumps(found.to_json(), allow_nan=False)


def test_the_words_of_a_plan() -> None:
    lines = describe(made_plan(WORK, MACHINE)).splitlines()
    assert lines[0] == "made: 1,000 parameters, batches of 64 in 64 shards, 5,000 steps"
    assert lines[1] == (
        "measured on this machine (8 CPUs): a shard 2 ms, an update 1 ms, a wake-up 60 us, joining two"
        " sums 280 us"
    )
    rows = [line.split() for line in lines[4 : lines.index("", 4)]]
    assert [row[0] for row in rows] == ["inline", "1", "2", "3", "4", "6", "8", "16", "32", "64"]
    assert rows[0] == ["inline", "129", "ms", "496", "1.00", "compute"]
    # 8 workers: 8 shards of 2 ms, 60 us and 8 of 8 us, 7 joins of 0.28 ms, 1 ms of update: 19.1 ms of 129.
    after = lines[lines.index("", 4) + 1 :]
    assert after[0] == (
        "best on this machine: workers: 8, 6.76 times inline; the whole job takes about 100 s without"
        " evaluation"  # 5 of them are the start of Ray
    )
    # 4 MB there and back take 6.4 ms, the call 1.5, the other node's joins 2; four shards fewer save 8.
    assert after[1] == "a second node like this one, over 10 Gbit/s and 0.1 ms, makes no step shorter"
    faster = describe(made_plan(WORK, replace(MACHINE, bandwidth=1e10))).splitlines()
    assert faster[-1].startswith("with nodes like this one over 80 Gbit/s and 0.1 ms: up to ")


def test_a_job_with_few_shards() -> None:
    text = describe(made_plan(replace(WORK, shards=4), MACHINE))
    assert "more than 4 workers can do nothing for this job: it has as many shards." in text
    assert "nodes" not in text


def test_a_small_job_is_computed_inline() -> None:
    small = Work(shards=64, shard_s=1e-6, bytes=4_000, update_s=1e-6)
    found = made_plan(small, MACHINE)
    assert found.best.workers == 0
    text = describe(found)
    assert "best on this machine: workers: 0 (inline)" in text
    assert "a second node like this one, over 10 Gbit/s and 0.1 ms, makes no step shorter" in text


def test_workers_that_do_not_repay_the_start_of_ray_are_not_advised() -> None:
    """Two workers would halve a step, of a job that takes three seconds in all."""
    found = made_plan(
        replace(WORK, shards=2, shard_s=3e-4, update_s=1e-6, bytes=4_000), replace(MACHINE, cores=2)
    )
    assert found.here[0].total_s * found.total_steps == pytest.approx(3.0, rel=0.1)
    assert found.best.workers == 0
    text = describe(found)
    assert "best on this machine: workers: 0 (inline); the whole job takes about 3" in text
    assert "2 workers would make a step 1." in text
    assert "times as fast, but starting Ray takes some 5 s: too little to gain" in text


def test_ranges_are_named_where_they_help() -> None:
    text = describe(made_plan(replace(WORK, shard_s=20e-3, shards=512), MACHINE))
    assert "servers: 2 would move that to " in text


def test_one_node_has_one_link() -> None:
    many = made_plan(WORK, MACHINE, Layout(servers=8))
    assert many.here == made_plan(WORK, MACHINE).here
    assert many.nodes != made_plan(WORK, MACHINE).nodes


def test_the_picture(tmp_path: Path) -> None:
    found = made_plan(WORK, MACHINE)
    for name in ("a.svg", "b.svg"):
        draw_speedups(found, tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert b"<svg" in (tmp_path / "a.svg").read_bytes()


# The command -------------------------------------------------------------------------------------------

TEXT = """
name: blobs
data: {train: {format: blobs, samples: 200, seed: 1}}
model: {layers: [{type: dense, units: 3}]}
loss: softmax_cross_entropy
shards: 4
"""


def run(*words: str | Path) -> Any:
    return CliRunner().invoke(cli.group, [str(word) for word in words])


@pytest.mark.heavy
def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_job, "__kwdefaults__", {**(plan_job.__kwdefaults__ or {}), "seconds": QUICK_S})
    path = tmp_path / "job.yaml"
    path.write_text(TEXT)
    done = run("plan", path, "--picture", tmp_path / "plan.svg")
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("blobs: 9 parameters, batches of 32 in 4 shards, 70 steps\n")
    assert "best on this machine: workers: " in done.stdout
    assert (tmp_path / "plan.svg").exists()
    told = json.loads(run("plan", path, "--json", "--bandwidth", "100").stdout)
    assert told["machine"]["bandwidth"] == 100e9 / 8
    assert [step["workers"] for step in told["here"]][:2] == [0, 1]


def test_what_the_command_refuses(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(TEXT)
    assert run("plan", path, "--picture", "plan.pdf").exit_code == 2
    assert run("plan", path, "--bandwidth", "0").exit_code == 2
    path.write_text("model: {layers: [{type: dense, units: 3}]}\nloss: mse\n")
    refused = run("plan", path)
    assert refused.exit_code == 2
    assert "data.train: is required on the command line" in refused.stderr
