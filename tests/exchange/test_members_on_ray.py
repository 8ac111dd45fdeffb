"""Several networks of one job side by side, each in one worker: the same bits as in one process."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from leftovers import wait_for_end
from rigs import DATA, STATEFUL_JOB, files_of, make_job

from distbp import Result, resume, train
from distbp.core.errors import Interrupted, NumericsError, ServerLostError
from distbp.core.interrupts import Control
from distbp.run import events
from distbp.run.members_told import MembersTold
from distbp.run.run_directory import read_lines
from distbp.run.trainer import BARREN_ATTEMPTS
from distbp.run.verify import verify_run

pytestmark = pytest.mark.usefixtures("ray_here")
JOB = STATEFUL_JOB.replace(members=3)
ENDLESS = JOB.replace(epochs=1_000_000, early_stopping=None, checkpoint={"every_seconds": None})
WAIT_S = 120.0  # for other threads, where the machine is busy


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTBP_KERNELS", "numpy")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Result:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DISTBP_KERNELS", "numpy")
        return train(JOB, data=DATA, output=tmp_path_factory.mktemp("whole") / "run")


def reasons(path: Path) -> list[str]:
    return [line["reason"] for line in read_lines(path / "events.jsonl") if line["event"] == "team_changed"]


class Workers:
    """Of the teams that were made: (number of the network, process, CPUs), in order. `first`: is called when
    a team is to make its first steps."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, first: Callable[[], Any] = lambda: None) -> None:
        from distbp.team.ray import apart  # imports Ray: only within the session

        monkeypatch.setattr(apart, "FROZEN_S", 3.0)
        self.lent: list[tuple[int, int, int]] = []
        workers = self

        class Seen(apart.ApartTeam):
            def __init__(self, *given: Any) -> None:
                self._waits = True
                super().__init__(*given)

            def _begin(self, snapshot: Any) -> None:
                super()._begin(snapshot)
                assert self.worker is not None
                workers.lent.append((self._number, self.worker.place.pid, self.worker.cpus))

            def run(self, *given: Any) -> int:
                if self._waits:
                    self._waits = False
                    first()
                return super().run(*given)

        monkeypatch.setattr(apart, "ApartTeam", Seen)

    def process(self, number: int) -> int:
        """That has a network now."""
        return next(pid for network, pid, _ in reversed(self.lent) if network == number)


@pytest.mark.parametrize(
    ("workers", "cpus"),
    [(1, {1}), (3, {1}), (6, {2}), ({"min": 1, "max": 2}, {1}), ("auto", set())],
)
def test_one_model_with_any_number_of_workers(
    workers: Any, cpus: set[int], whole: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = Workers(monkeypatch)
    found = train(JOB.replace(workers=workers), data=DATA, output=tmp_path / "run")
    assert found.params_sha256 == whole.params_sha256
    assert files_of(found.path) == files_of(whole.path)
    assert found.metrics == whole.metrics
    assert {each for _, _, each in seen.lent} == cpus
    for _, pid, _ in seen.lent:
        assert wait_for_end(pid, WAIT_S)
    if isinstance(workers, int):
        assert len({pid for _, pid, _ in seen.lent}) <= min(workers, 3)
        assert (found.workers, found.exchange) == (workers, "inline")


def test_networks_that_measure_on_folds_of_their_own(tmp_path: Path) -> None:
    job = JOB.replace(early_stopping={"patience": 2, "fold": "each"}, class_weight="balanced")
    alone = train(job, data=DATA, output=tmp_path / "alone")
    shared = train(job, data=DATA, output=tmp_path / "shared", workers=2)
    assert files_of(shared.path) == files_of(alone.path)
    assert (shared.exchange, shared.metrics) == ("inline", alone.metrics)


@pytest.mark.slow
def test_compiled_kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISTBP_KERNELS")
    job = JOB.replace(members=1, restarts=2)
    alone = train(job, data=DATA, output=tmp_path / "alone")
    shared = train(job, data=DATA, output=tmp_path / "shared", workers=4)
    assert (shared.params_sha256, shared.metrics) == (alone.params_sha256, alone.metrics)


def test_as_many_train_at_a_time_as_there_are_workers(
    whole: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two networks meet before their first steps, each in a process of its own; the third has to wait."""
    met = threading.Barrier(2)
    meetings = iter([met.wait, met.wait])
    seen = Workers(monkeypatch, lambda: next(meetings, lambda _: 0)(WAIT_S))
    found = train(JOB, data=DATA, output=tmp_path / "run", workers=2)
    assert [number for number, _, _ in sorted(seen.lent[:2])] == [0, 1]
    assert len({pid for _, pid, _ in seen.lent}) == 2
    assert files_of(found.path) == files_of(whole.path)
    assert "3 networks of different seeds are trained, 2 at a time" in found.notes


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_lost_worker(
    number: signal.Signals, whole: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its network goes on from a checkpoint, in another process; the other network hears nothing of it."""
    seen = Workers(monkeypatch)
    lost: list[int] = []

    def harm(event: events.Event) -> None:
        if isinstance(event, events.EpochEnded) and (event.member, event.epoch) == (1, 2) and not lost:
            lost.append(seen.process(1))
            os.kill(lost[0], number)

    found = train(JOB, data=DATA, output=tmp_path / "run", workers=2, listener=harm)
    assert files_of(found.path) == files_of(whole.path)
    assert found.attempt == 2
    assert seen.process(1) not in lost
    (told,) = [reason for reason in reasons(found.path) if "which had network 1, " in reason]
    assert ("died" if number == signal.SIGKILL else "gave no sign of life for 3 s") in told
    assert "; attempt 2 goes on from step " in told


def test_workers_that_are_lost_again_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = Workers(monkeypatch, lambda: os.kill(seen.process(0), signal.SIGKILL))
    with pytest.raises(ServerLostError, match="worker 5, which had network 0, died"):
        train(JOB, data=DATA, output=tmp_path / "run", workers=1)
    assert [number for number, _, _ in seen.lent] == [0] * BARREN_ATTEMPTS


@pytest.mark.parametrize("later", [0, 3])
def test_a_stopped_run_goes_on_with_another_number_of_workers(
    later: int, whole: Result, tmp_path: Path
) -> None:
    control, path = Control(), tmp_path / "run"

    def listen(event: events.Event) -> None:
        if isinstance(event, events.EpochEnded) and event.epoch == 2:
            control.stop("the test")

    with pytest.raises(Interrupted, match=rf"Go on with: distbp resume {path}$"):
        train(JOB, data=DATA, output=path, workers=2, control=control, listener=listen)
    assert files_of(resume(path, data=DATA, workers=later).path) == files_of(whole.path)


def test_networks_come_and_go_with_the_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One at a time grows into free CPUs; one worker again: two networks pause where they are, and their
    workers end; two CPUs for each of three: all move; then a stop."""
    seen, control, path = Workers(monkeypatch), Control(), tmp_path / "run"
    trained: set[int | None] = set()
    paused: list[int] = []
    asked: list[int] = []

    def listen(event: events.Event) -> None:
        if isinstance(event, events.EpochEnded):
            trained.add(event.member)
        told = isinstance(event, events.TeamChanged) and event.reason
        if not asked and len(trained) == 3:
            asked.append(1)
            control.scale(1)
        elif told and "leaves its worker" in told and asked == [1]:
            paused.append(seen.process(int(told.split()[1])))
            if len(paused) == 2:
                for process in paused:
                    assert wait_for_end(process, WAIT_S)
                asked.append(6)
                control.scale(6)
        elif len([one for one in seen.lent if one[2] == 2]) == 3:
            control.stop()

    job = ENDLESS.replace(workers={"min": 1, "max": 3})
    with pytest.raises(Interrupted):
        train(job, data=DATA, output=path, control=control, listener=listen)
    assert asked == [1, 6]
    told = reasons(path)
    assert "1 worker was asked for; there is 1 now" in told
    assert "6 workers were asked for; there are 6 now" in told
    assert "network 2 leaves its worker, and waits for its turn" in told
    assert "network 1 goes on, on another worker" in told
    assert all(verify_run(path / "members" / str(number), data=DATA).equal for number in range(3))


def test_no_worker_is_too_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is waited for is told with all that the networks tell, one thing at a time."""
    control, path = Control(), tmp_path / "run"
    waited: list[str] = []
    monkeypatch.setattr(MembersTold, "waiting", lambda self, what: waited.append(what))

    def listen(event: events.Event) -> None:
        if isinstance(event, events.Started):
            control.scale(0)
        elif isinstance(event, events.TeamChanged):
            control.stop()

    with pytest.raises(Interrupted):
        train(ENDLESS, data=DATA, output=path, workers=1, control=control, listener=listen)
    (told,) = reasons(path)
    assert told == "0 workers were asked for, but this is not possible: the networks need at least one worker"
    assert waited == ["starting Ray, which takes some seconds"]


def test_networks_that_diverge_at_the_same_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is diagnosed in this process, which has not computed before."""
    monkeypatch.delenv("DISTBP_KERNELS")
    job = make_job(({"type": "dense", "units": 1},), loss="mse", members=3, epochs=40, batch_size=8, shards=1)
    x = np.random.default_rng(0).normal(size=(40, 2))
    job = job.replace(optimizer={"type": "sgd", "learning_rate": 1e30})
    with pytest.raises(NumericsError, match="step"):
        train(job, data=(x, x @ [1.0, 2.0]), output=tmp_path / "run", workers=3)
    assert not (tmp_path / "run/result.json").exists()
