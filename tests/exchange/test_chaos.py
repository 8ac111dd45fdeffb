"""Whatever happens to trainer, server, workers and messages: the run ends with the same bits."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from functools import cache
from pathlib import Path

import chaos
import pytest
from chaos import DATA, DENSE, Chaos, Schedule, actors, drive, job_of, schedule_of
from leftovers import GRACE_S, wait_for_end

from distbp import resume, train
from distbp.run.result import Result

QUICK, ALL = 25, 410
COMPILED_QUICK, COMPILED_ALL = 3, 60  # where the rounds of the server are compiled
QUICK_KILLS, ALL_KILLS = 2, 30  # of the trainer
Expected = dict[int, tuple[Result, bytes]]  # optimizer -> its run, and its metrics.jsonl
TESTS = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No compiled kernels to load in hundreds of short runs."""
    monkeypatch.setenv("DISTBP_KERNELS", "numpy")
    yield


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Expected:
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DISTBP_KERNELS", "numpy")
        for optimizer in range(len(chaos.OPTIMIZERS)):
            path = tmp_path_factory.mktemp("undisturbed") / "run"
            result = train(job_of(optimizer), data=DATA, output=path, workers=0)
            found[optimizer] = result, (path / "metrics.jsonl").read_bytes()
    return found


def assert_same(result: Result, expected: tuple[Result, bytes]) -> None:
    assert result.params_sha256 == expected[0].params_sha256
    assert result.steps == expected[0].steps
    assert result.metrics == expected[0].metrics
    assert (result.path / "metrics.jsonl").read_bytes() == expected[1]


def assert_nothing_is_left() -> None:
    for pid in actors():
        wait_for_end(pid, GRACE_S)
    assert actors() == {}


def run_of(seed: int, path: Path, undisturbed: Expected) -> None:
    schedule: Schedule = schedule_of(seed)
    with closing(Chaos(schedule)) as made:
        result = drive(path / "run", job_of(schedule.optimizer), made)
    assert_same(result, undisturbed[schedule.optimizer])
    assert_nothing_is_left()


@pytest.mark.parametrize("seed", range(QUICK))
def test_quick(seed: int, tmp_path: Path, ray_here: None, undisturbed: Expected) -> None:
    run_of(seed, tmp_path, undisturbed)


def compiled_run_of(seed: int, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same where the server's rounds are compiled: dense layers, and kernels that are."""
    pytest.importorskip("numba")
    monkeypatch.setenv("DISTBP_KERNELS", "numba")
    schedule = schedule_of(seed)
    job = job_of(schedule.optimizer, DENSE)
    alone = train(job, data=DATA, output=path / "alone", workers=0)
    with closing(Chaos(schedule)) as made:
        result = drive(path / "run", job, made)
    assert_same(result, (alone, (path / "alone" / "metrics.jsonl").read_bytes()))
    assert_nothing_is_left()


@pytest.mark.parametrize("seed", range(COMPILED_QUICK))
def test_compiled_quick(seed: int, tmp_path: Path, ray_here: None, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled_run_of(seed, tmp_path, monkeypatch)


@pytest.mark.chaos
@pytest.mark.parametrize("seed", range(COMPILED_QUICK, COMPILED_QUICK + COMPILED_ALL))
def test_compiled_all(seed: int, tmp_path: Path, ray_here: None, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled_run_of(seed, tmp_path, monkeypatch)


@pytest.mark.chaos
@pytest.mark.parametrize("seed", range(QUICK, QUICK + ALL))
def test_all(seed: int, tmp_path: Path, ray_here: None, undisturbed: Expected) -> None:
    run_of(seed, tmp_path, undisturbed)


@cache
def trainer_program(optimizer: int, workers: int, path: str, address: str) -> str:
    return (
        "from chaos import DATA, job_of; from distbp import train\n"
        f"train(job_of({optimizer}), data=DATA, output={path!r}, workers={workers}, address={address!r})"
    )


def kill_of(seed: int, path: Path, undisturbed: Expected) -> None:
    """kill -9 of the trainer at a random moment, a frozen worker beside it; then resume."""
    import ray

    dice = random.Random(seed)
    optimizer, workers = dice.randrange(3), dice.randrange(1, 3)
    address = ray.get_runtime_context().gcs_address
    program = trainer_program(optimizer, workers, str(path / "run"), address)
    environment = {**os.environ, "PYTHONPATH": f"{TESTS}:{TESTS / 'exchange'}"}
    trainer = subprocess.Popen([sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE)
    try:
        trainer.wait(dice.uniform(1.0, 8.0))
    except subprocess.TimeoutExpired:
        trainer.kill()
    output, _ = trainer.communicate()
    assert output == b""
    assert_nothing_is_left()
    if (path / "run" / "job.yaml").exists():
        result = resume(path / "run", data=DATA, workers=workers)
    else:
        result = train(job_of(optimizer), data=DATA, output=path / "again", workers=workers)
    assert_same(result, undisturbed[optimizer])
    assert_nothing_is_left()


@pytest.mark.parametrize("seed", range(QUICK_KILLS))
def test_trainer_quick(seed: int, tmp_path: Path, ray_here: None, undisturbed: Expected) -> None:
    kill_of(seed, tmp_path, undisturbed)


@pytest.mark.chaos
@pytest.mark.parametrize("seed", range(QUICK_KILLS, QUICK_KILLS + ALL_KILLS))
def test_trainer_all(seed: int, tmp_path: Path, ray_here: None, undisturbed: Expected) -> None:
    kill_of(seed, tmp_path, undisturbed)
