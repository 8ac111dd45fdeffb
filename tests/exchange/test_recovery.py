"""Recovery, case by case: a lost server at every place, workers that cannot work, those that are refused."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import chaos
import pytest
from chaos import DATA, drive, job_of
from leftovers import MARK, wait_for_end
from rigs import classes, make_job, make_rig

from distbp import TrainingJob, train
from distbp.core.errors import FingerprintError, ServerLostError, WorkerLostError
from distbp.engine import numerics
from distbp.engine.evaluation import Evaluation
from distbp.optim.schedules import PlateauState
from distbp.run.result import Result
from distbp.team.base import Snapshot
from distbp.team.exchange.faults import FaultPlan
from distbp.team.exchange.shared_data import share_rows
from distbp.team.inline import InlineTeam
from distbp.team.membership import Options

TESTS = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("DISTBP_KERNELS", "numpy")
    yield


# A lost server, at every call of a team ---------------------------------------------------------------------


class Fragile:
    """A team whose server is lost at a chosen call of its life: "start", "run", "evaluate", "snapshot"."""

    exchange, workers = "fragile", 1

    def __init__(self, team: InlineTeam, lose: Callable[[str], None]) -> None:
        lose("start")
        self._team = team
        self._lose = lose

    def run(self, first: int, stop: int, plateau: PlateauState, stopping: Callable[[], bool]) -> int:
        self._lose("run")
        return self._team.run(first, stop, plateau, stopping)

    def evaluate(self, split: str) -> Evaluation:
        self._lose("evaluate")
        return self._team.evaluate(split)

    def snapshot(self, whole: bool = True) -> Snapshot:
        self._lose("snapshot")
        return self._team.snapshot(whole)

    def close(self) -> None:
        self._team.close()


class Losses:
    """Loses the server at the calls with these numbers. `teams`: the attempt and first step of each."""

    def __init__(self, numbers: set[int], call: str = "") -> None:
        self._numbers = numbers
        self._call = call
        self.calls = 0
        self.teams: list[tuple[int, int]] = []

    def __call__(self, blueprint: Any, data: Any, snapshot: Snapshot, attempt: int, changed: Any) -> Fragile:
        self.teams.append((attempt, snapshot.step))
        return Fragile(InlineTeam(blueprint, data, snapshot, attempt), self._lose)

    def _lose(self, call: str) -> None:
        if self._call in ("", call):
            self.calls += 1
            if self.calls in self._numbers:
                raise ServerLostError(f"the parameter server died ({call})")


def small(checkpoints: bool) -> TrainingJob:
    """Five epochs of three steps; plateau, patience and the best epoch are states that go back, too."""
    return make_job(
        chaos.LAYERS,
        batch_size=40,
        shards=3,
        epochs=5,
        optimizer=chaos.OPTIMIZERS[1],
        checkpoint={"every_steps": 2} if checkpoints else {"every_seconds": 1e6},
        early_stopping={"metric": "validation_loss", "patience": 3},
    )


def small_data() -> dict[str, Any]:
    return {"train": classes(110), "validation": classes(30, seed=1), "test": classes(20, seed=2)}


@pytest.mark.parametrize("checkpoints", [True, False])
def test_a_server_lost_at_any_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoints: bool
) -> None:
    monkeypatch.setattr("chaos.DATA", small_data())
    job = small(checkpoints)
    count = Losses(set())
    whole = drive(tmp_path / "whole", job, count)
    metrics = (tmp_path / "whole" / "metrics.jsonl").read_bytes()
    assert count.calls > 12
    for number in range(1, count.calls + 1):
        losses = Losses({number})
        result = drive(tmp_path / str(number), job, losses)
        assert (result.params_sha256, result.metrics) == (whole.params_sha256, whole.metrics)
        assert (tmp_path / str(number) / "metrics.jsonl").read_bytes() == metrics
        attempts = [attempt for attempt, _ in losses.teams]
        assert attempts == sorted(attempts) and 2 in attempts  # the higher one fences the lower
        assert result.attempt == 2
        assert "the parameter server died" in result.notes[0]
        assert "attempt 2 goes on from step" in result.notes[0]


def test_a_server_that_is_lost_again_and_again_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chaos.DATA", small_data())
    losses = Losses(set(range(1, 99)), "start")
    with pytest.raises(ServerLostError, match=r"the parameter server died \(start\)"):
        drive(tmp_path / "run", small(True), losses)
    assert len(losses.teams) == 5


def test_a_server_that_is_lost_often_but_gets_on_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chaos.DATA", small_data())
    losses = Losses(set(range(4, 99, 4)), "run")  # a new team takes up to three calls for an epoch
    result = drive(tmp_path / "run", small(True).replace(epochs=9), losses)
    assert result.attempt > 6


# On Ray -----------------------------------------------------------------------------------------------------


def team_of(options: Options, told: list[str] | None = None) -> Any:
    from distbp.team.ray.ray_team import RayTeam  # imports Ray: only within the session

    made = make_rig(make_job(shards=4, epochs=2), classes(64))
    names, memories = {}, []
    for name, rows in made.data.splits.items():
        memory, names[name] = share_rows(rows)  # type: ignore[arg-type]
        memories.append(memory)
    start = Snapshot(0, {"vector": made.start()})
    changed = (told if told is not None else []).append
    with numerics.one_blas_thread():
        team: Any = RayTeam(made.blueprint, made.data, start, 1, options, names, changed)
    team.memories = memories  # as long as it lives
    return team


def test_workers_that_fail_again_and_again_end_the_run_with_their_reason(
    ray_here: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distbp.team.ray.ray_team.LOST_IN_VAIN", 1)
    told: list[str] = []
    broken = FaultPlan(seed=1, drop="never")  # type: ignore[arg-type]  # fails when the worker first pushes
    team = team_of(Options(1, faults=broken), told)
    try:
        with pytest.raises(
            WorkerLostError,
            match=r"3 workers were lost one after the other, and no step was completed\. The last one failed:"
            r" .*TypeError.*Mend that",
        ):
            team.run(0, 8, PlateauState(), lambda: False)
    finally:
        team.close()
    assert any("worker 1 failed: " in line for line in told)


def test_a_worker_with_another_fingerprint_is_refused(
    ray_here: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For real: OPENBLAS_CORETYPE makes it compute with another processor's kernels."""
    if platform.machine() != "x86_64":
        pytest.skip("the name of another core type is known for x86-64 only")
    from distbp.team.ray.actors import WorkerProcess
    from distbp.team.ray.ray_team import RayTeam

    def other_worker(self: Any, where: Any) -> Any:
        environment = {"env_vars": {"OPENBLAS_CORETYPE": "Nehalem"}}
        actor = WorkerProcess.options(scheduling_strategy=where, runtime_env=environment).remote("auto")
        return actor, actor.begin.remote(self._sent)

    monkeypatch.setattr(RayTeam, "_new_worker", other_worker)
    with pytest.raises(
        FingerprintError,
        match=r"a worker on node \w+ would compute other bits \(.*blas: openblas .* here, openblas .* Nehalem"
        r" there.*\); it is refused\. To mend: .*OPENBLAS_CORETYPE",
    ):
        team_of(Options(1))


def test_a_server_with_another_fingerprint_is_refused(
    ray_here: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(numerics, "fingerprint", lambda kernels: {"numpy": "1.0", "blas": "other"})
    with pytest.raises(
        FingerprintError, match=r"the parameter server would compute other bits \(numpy: 1\.0 here, .* there"
    ):
        team_of(Options(1))


# The trainer's end, with a Ray of its own -------------------------------------------------------------------

MINE = "RECOVERY_TEST"


def processes(value: str) -> dict[int, str]:
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if f"{MINE}={value}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                found[int(entry.name)] = (entry / "cmdline").read_bytes().decode(errors="replace")
    return found


def of_workers(found: dict[int, str]) -> list[int]:
    return [pid for pid, name in found.items() if name.startswith("ray::WorkerActor")]


def test_a_killed_trainer_leaves_no_process_not_even_frozen_ones(tmp_path: Path) -> None:
    value = uuid.uuid4().hex
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_") and k != MARK}
    environment |= {"PYTHONPATH": f"{TESTS}:{TESTS / 'exchange'}", MINE: value}
    program = (
        "from chaos import DATA, job_of; from distbp import train\n"
        "job = job_of(0).model_copy(update={'max_steps': 10**8, 'early_stopping': None})\n"
        f"train(job, data=DATA, output={str(tmp_path / 'run')!r}, workers=2)"
    )
    trainer = subprocess.Popen(
        [sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        checkpoints = tmp_path / "run" / "checkpoints"
        until = time.monotonic() + 120
        while time.monotonic() < until and trainer.poll() is None:  # steps are made
            if checkpoints.is_dir() and any(checkpoints.iterdir()):
                break
            with suppress(subprocess.TimeoutExpired):
                trainer.wait(0.2)
        assert trainer.poll() is None, trainer.communicate()
        first, second = sorted(of_workers(processes(value)))
        os.kill(first, signal.SIGKILL)
        wait_for_end(first, 60)
        os.kill(second, signal.SIGSTOP)
    finally:
        trainer.kill()
        output = trainer.communicate()
    assert output == (b"", b"")  # nor does Ray write about the worker into the command's output
    # Two of Ray's own agents look for a minute for the rest before they end; no need to wait.
    agents = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")
    for pid, name in processes(value).items():
        if not name.startswith(agents):
            wait_for_end(pid, 20)
    left = processes(value)
    for pid in left:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert [name for name in left.values() if not name.startswith(agents)] == []


def test_training_again_in_one_session(
    ray_here: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The public way in, on a Ray that is there already."""
    results: list[Result] = [
        train(job_of(0), data=DATA, output=tmp_path / str(workers), workers=workers) for workers in (0, 2)
    ]
    assert results[0].params_sha256 == results[1].params_sha256
    assert results[0].metrics == results[1].metrics
    assert results[1].workers == 2
