"""The runner, against a store: reports that arrive once and in order, faults, orders that it obeys."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable, Mapping
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from distbp_service import policy, runner
from distbp_service.allotment import measured
from distbp_service.api.confine import slots_of
from distbp_service.error_classes import CLASSES, class_of, described
from distbp_service.errors import FencedError, OutOfOrderError, ServiceError
from distbp_service.launchers import LocalProcess
from distbp_service.reporter import Reporter
from distbp_service.reports import Answer, Assignment, End, Report
from distbp_service.spool import MOST_BYTES, Spool, left_over
from distbp_service.store import Store
from distbp_service.store.disk import DiskQuota
from distbp_service.transport import AwayError, HttpTransport, RefusedError, claim
from hypothesis import given
from hypothesis import strategies as st

import distbp
from distbp.core import errors, settings
from distbp.core.errors import StorageError
from distbp.core.interrupts import Control
from distbp.job import WorkerRange
from distbp.run.checkpoint import load_latest
from distbp.run.run_directory import METRICS, read_lines
from distbp.team.inline import InlineTeam
from distbp.team.maker import TeamMaker

DATA = {"format": "blobs", "samples": 96, "features": 3}
WORK = {
    "name": "line",
    "data": {"train": DATA, "validation": {**DATA, "samples": 32}},
    "model": {"layers": [{"type": "dense", "units": 3}]},
    "loss": "softmax_cross_entropy",
    "optimizer": {"type": "sgd", "learning_rate": 0.05},
    "batch_size": 16,
    "epochs": 6,
    "workers": 0,
    "shards": 2,
    "checkpoint": {"every_steps": 4},
}


class Direct:
    """A transport straight into the store. `fault`, called before and after every call, may raise."""

    def __init__(self, store: Store, job_id: str, attempt: int, quota: DiskQuota | None = None) -> None:
        self.store, self.job_id, self.attempt, self.quota = store, job_id, attempt, quota
        self.fault: Callable[[str, Any], None] = lambda when, what: None

    def assignment(self) -> Assignment:
        return self.store.runs.assignment(self.job_id, self.attempt, self.quota)

    def report(self, report: Report) -> Answer:
        return self._call(report, lambda: self.store.runs.report(self.job_id, report, quota=self.quota))

    def heartbeat(self, progress: Mapping[str, Any] | None, disk: int | None = None) -> Answer:
        return self._call(
            "heartbeat",
            lambda: self.store.runs.heartbeat(
                self.job_id, self.attempt, progress, disk=disk, quota=self.quota
            ),
        )

    def fetch_dataset(self, dataset_id: str, path: Path) -> None:
        raise NotImplementedError

    def _call(self, what: Any, call: Callable[[], Answer]) -> Answer:
        self.fault("before", what)
        answer = call()
        self.fault("after", what)
        return answer


def lease(store: Store, job: Mapping[str, Any] = WORK) -> tuple[str, int]:
    """A job that a dispatcher has leased: its id, and the attempt."""
    full = distbp.TrainingJob.from_mapping(job)
    submitted, _ = store.jobs.submit("main", full.to_mapping(), digest=full.digest)
    return submitted.id, again(store)


def again(store: Store) -> int:
    store.queue.requeue_due()
    found = store.queue.lease(1, 1000)
    assert found is not None
    return found.attempt


def never(reason: str) -> None:
    raise AssertionError(f"the attempt was over: {reason}")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> distbp.Result:
    job = distbp.TrainingJob.from_mapping(WORK)
    return distbp.train(job, output=tmp_path_factory.mktemp("local") / "run")


def same_bits(store: Store, job_id: str, undisturbed: distbp.Result) -> None:
    """The job completed as a local run does, and its metrics are those, each once."""
    job = store.jobs.get("main", job_id)
    assert job.state == "completed", job.error
    assert job.result is not None
    assert job.result["params_sha256"] == undisturbed.params_sha256
    lines = [m.data for m in store.journal.metrics(job_id)]
    assert lines == read_lines(undisturbed.path / METRICS)
    numbers = [event.number for event in store.journal.events(job_id, limit=1000)]
    assert numbers == list(range(1, job.event_count + 1))


@pytest.mark.usefixtures("pictures")
def test_a_job_completes_as_it_would_locally(
    sqlite_store: Store, tmp_path: Path, undisturbed: distbp.Result
) -> None:
    job_id, attempt = lease(sqlite_store)
    end = runner.run(job_id, attempt, tmp_path, Direct(sqlite_store, job_id, attempt), over=never)
    assert end.outcome == "completed"
    same_bits(sqlite_store, job_id, undisturbed)
    model = sqlite_store.models.of_job("main", job_id)
    assert model is not None
    assert distbp.load_model(tmp_path / model.path) is not None
    assert model.bytes > 0
    assert model.info["params_sha256"] == undisturbed.params_sha256
    kinds = [event.kind for event in sqlite_store.journal.events(job_id, limit=1000)]
    assert kinds.count("epoch_ended") == 6
    assert kinds.count("attempt_started") == 1
    told = str([e.data for e in sqlite_store.journal.events(job_id, limit=1000)])
    assert str(tmp_path) not in told
    assert not list(tmp_path.rglob("curves.svg"))  # nobody could fetch it
    log = "".join(piece.text for piece in sqlite_store.journal.logs(job_id, limit=1000))
    assert log.startswith("reading the data\n")
    log = "".join(piece.text for piece in sqlite_store.journal.logs(job_id, limit=1000))
    assert "training from step 0 of 36" in log
    assert log.endswith("completed\n")


@pytest.mark.parametrize("processors", ["1", "2"])
def test_several_networks(
    sqlite_store: Store, tmp_path: Path, processors: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Paused on the way, so that another attempt goes on."""
    work = {**WORK, "members": 3}
    local = distbp.train(distbp.TrainingJob.from_mapping(work), output=tmp_path / "local")
    monkeypatch.setattr(runner, "_within", lambda *_: (None, int(processors)))
    job_id, attempt = lease(sqlite_store, work)
    transport = Direct(sqlite_store, job_id, attempt)

    def pause(when: str, what: Any) -> None:
        told = isinstance(what, Report) and any(event["kind"] == "epoch_ended" for event in what.events)
        if told and when == "before" and sqlite_store.jobs.get("main", job_id).state == "running":
            sqlite_store.jobs.pause("main", job_id)

    transport.fault = pause
    if runner.run(job_id, attempt, tmp_path, transport, over=never).outcome == "interrupted":
        sqlite_store.jobs.resume("main", job_id)
        second = again(sqlite_store)
        runner.run(job_id, second, tmp_path, Direct(sqlite_store, job_id, second), over=never)
    same_bits(sqlite_store, job_id, local)
    model = sqlite_store.models.of_job("main", job_id)
    assert model is not None
    assert len(distbp.load_model(tmp_path / model.path).vectors) == 3


@given(st.lists(st.sampled_from(["", "before", "after"]), max_size=12))
def test_an_api_that_comes_and_goes_loses_and_doubles_nothing(faults: list[str]) -> None:
    """`before`: the request is lost. `after`: its answer is, so that it comes twice."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        spool = Spool(Path(folder) / "reports.jsonl", 1)
        kept: list[int] = []
        left = list(faults)

        class Flaky(Direct):
            def report(self, report: Report) -> Answer:
                now = left.pop() if left else ""
                if now == "before":
                    raise AwayError("lost")
                if report.seq - report.joins == len(kept):
                    kept.extend(int(number) for number in report.log)
                if now == "after":
                    raise AwayError("lost")
                return Answer(len(kept))

        reporter = Reporter(Flaky(None, "", 1), spool, lambda a: None, never)  # type: ignore[arg-type]
        for number in range(5):
            spool.append(log=str(number))
            reporter.speak()
        for _ in range(len(faults) + 5):
            reporter.speak()
        assert kept == [0, 1, 2, 3, 4]
        assert spool.next() is None
        spool.close()


def test_reports_carry_the_progress(tmp_path: Path) -> None:
    """Where there is always a report to send, no heartbeat has its turn."""
    spool, sent = Spool(tmp_path / "r", 1), []

    class Takes(Direct):
        def report(self, report: Report) -> Answer:
            sent.append(report.progress)
            return Answer(report.seq)

    reporter = Reporter(Takes(None, "", 1), spool, lambda a: None, never)  # type: ignore[arg-type]
    spool.append(log="x")
    reporter.progress = {"step": 7, "total_steps": 9}
    assert reporter.speak()
    assert sent == [{"step": 7, "total_steps": 9}]
    spool.close()


def test_what_comes_while_a_report_travels_goes_as_one(sqlite_store: Store, tmp_path: Path) -> None:
    """Short epochs: sixty a second, where the service takes thirty reports."""
    job_id, attempt = lease(sqlite_store)
    spool, told = Spool(tmp_path / "r", attempt), threading.Event()
    transport = Direct(sqlite_store, job_id, attempt)
    joins: list[int] = []

    def slow(when: str, what: Any) -> None:
        if isinstance(what, Report) and when == "before":
            joins.append(what.joins)
            told.wait(60)

    transport.fault = slow
    reporter = Reporter(transport, spool, lambda a: None, never)
    spool.append(events=({"kind": "attempt_started", "from_step": 0},))
    reporter.start()
    for number in range(1, 101):
        spool.append(events=({"kind": "epoch_ended"},), metrics=({"step": number},), log=f"{number}\n")
    told.set()
    spool.append(end=End("interrupted"))
    reporter.finish()
    spool.close()
    assert sum(joins) == 102
    assert len(joins) <= 4
    kinds = [event.kind for event in sqlite_store.journal.events(job_id, limit=1000)]
    assert kinds.count("epoch_ended") == 100
    assert [row.step for row in sqlite_store.journal.metrics(job_id)] == list(range(1, 101))
    log = "".join(piece.text for piece in sqlite_store.journal.logs(job_id))
    assert log == "".join(f"{number}\n" for number in range(1, 101))


def test_reports_that_travel_as_one_have_a_size_and_stay_together(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "r", 1)
    for text in ("a", "b", "x" * MOST_BYTES, "c"):
        spool.append(log=text)
    first = spool.next()
    assert first is not None
    assert (first.log, first.seq, first.joins) == ("ab", 2, 2)
    spool.append(log="d")
    assert spool.next() == first  # its answer may have been lost
    spool.acknowledge(2)
    sizes = []
    while (report := spool.next()) is not None:
        sizes.append((len(report.log), report.seq, report.joins))
        spool.acknowledge(report.seq)
    assert sizes == [(MOST_BYTES, 3, 1), (2, 5, 2)]
    spool.close()


def test_waits_grow_while_the_api_is_away_and_end_with_it(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "r", 1)
    now = [0.0]
    beats: list[object] = []

    class Away(Direct):
        away = True

        def heartbeat(self, progress: object, disk: int | None = None) -> Answer:
            if self.away:
                raise AwayError("gone")
            beats.append(progress)
            return Answer(0)

    transport = Away(None, "", 1)  # type: ignore[arg-type]
    reporter = Reporter(transport, spool, lambda a: None, never, clock=lambda: now[0])
    waits = []
    for _ in range(8):
        assert not reporter.speak()
        waits.append(reporter.backoff_s())
    assert waits == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    transport.away = False
    reporter.progress = {"step": 1}
    assert reporter.speak()
    assert reporter.backoff_s() == 0
    assert not reporter.speak()  # once a second is enough
    now[0] += 1.0
    assert reporter.speak()
    assert beats == [{"step": 1}] * 2
    spool.close()


@pytest.mark.parametrize(
    "error", [FencedError("attempt 2 has begun"), RefusedError("no"), OutOfOrderError("x", 9)]
)
def test_what_the_service_will_not_take_ends_the_attempt(tmp_path: Path, error: ServiceError) -> None:
    spool = Spool(tmp_path / "r", 1)
    reasons: list[str] = []

    class Refusing(Direct):
        def report(self, report: Report) -> Answer:
            raise error

    reporter = Reporter(Refusing(None, "", 1), spool, lambda a: None, reasons.append)  # type: ignore[arg-type]
    spool.append(log="x")
    assert not reporter.speak()
    assert reasons == [str(error)]
    spool.close()


class Killed(BaseException):
    """Stands for kill -9: nothing is said or written any more."""


@pytest.mark.parametrize("fatal", [4, 6, 9])
def test_a_successor_goes_on_where_a_runner_was_killed(
    sqlite_store: Store,
    tmp_path: Path,
    undisturbed: distbp.Result,
    monkeypatch: pytest.MonkeyPatch,
    fatal: int,
) -> None:
    job_id, attempt = lease(sqlite_store)
    append, count = Spool.append, [0]

    def die(self: Spool, **what: Any) -> Report:
        report = append(self, **what)
        count[0] += 1
        if count[0] == fatal:
            raise Killed
        return report

    away = Direct(sqlite_store, job_id, attempt)

    def unreachable(when: str, what: object) -> None:
        if isinstance(what, Report) and what.seq >= fatal - 1:
            raise AwayError("the network, too")

    away.fault = unreachable
    with monkeypatch.context() as patch:
        patch.setattr(Spool, "append", die)
        with pytest.raises(Killed):
            runner.run(job_id, attempt, tmp_path, away, over=never)
    error = {"class": "lost", "code": "runner_died", "message": "gone"}
    assert sqlite_store.queue.lost(job_id, attempt, error) is not None
    sqlite_store.db.clock.pass_(1)  # type: ignore[attr-defined]
    second = again(sqlite_store)
    end = runner.run(job_id, second, tmp_path, Direct(sqlite_store, job_id, second), over=never)
    assert end.outcome == "completed"
    same_bits(sqlite_store, job_id, undisturbed)
    found = sqlite_store.journal.events(job_id, limit=1000)
    late = [event for event in found if event.kind == "late"]
    assert late  # what the first attempt had no time to report
    assert {event.data["of_attempt"] for event in late} == {1}
    assert not (tmp_path / job_id / "reports-1.jsonl").exists()


def test_a_successor_of_one_that_had_finished_tells_what_it_had_not(
    sqlite_store: Store, tmp_path: Path, undisturbed: distbp.Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id, attempt = lease(sqlite_store)
    append = Spool.append

    def die(self: Spool, **what: Any) -> Report:
        if what.get("end") is not None:
            raise Killed
        return append(self, **what)

    away = Direct(sqlite_store, job_id, attempt)

    def unreachable(when: str, what: object) -> None:
        if isinstance(what, Report) and what.seq >= 4:
            raise AwayError("the network, too")

    away.fault = unreachable
    with monkeypatch.context() as patch:
        patch.setattr(Spool, "append", die)
        with pytest.raises(Killed):
            runner.run(job_id, attempt, tmp_path, away, over=never)
    assert sqlite_store.queue.lost(job_id, attempt, {"class": "lost", "code": "x", "message": "gone"})
    sqlite_store.db.clock.pass_(1)  # type: ignore[attr-defined]
    second = again(sqlite_store)
    assert len(sqlite_store.journal.metrics(job_id)) < len(read_lines(undisturbed.path / METRICS))
    runner.run(job_id, second, tmp_path, Direct(sqlite_store, job_id, second), over=never)
    same_bits(sqlite_store, job_id, undisturbed)


@pytest.mark.parametrize(("ask", "end"), [("pause", "paused"), ("cancel", "cancelled")])
def test_orders_of_the_user_are_obeyed(
    sqlite_store: Store, tmp_path: Path, undisturbed: distbp.Result, ask: str, end: str
) -> None:
    job_id, attempt = lease(sqlite_store)
    transport = Direct(sqlite_store, job_id, attempt)
    heard = threading.Event()

    def order(when: str, what: object) -> None:
        if when == "before" and isinstance(what, Report) and what.metrics:
            getattr(sqlite_store.jobs, ask)("main", job_id)
        asked = sqlite_store.jobs.get("main", job_id).state not in ("starting", "running")
        heard.set() if when == "after" and asked else None

    transport.fault = order
    # Epochs are quicker than orders here, so training waits for the first one.
    with _slow_epochs(heard):
        assert runner.run(job_id, attempt, tmp_path, transport, over=never).outcome == "interrupted"
    assert sqlite_store.jobs.get("main", job_id).state == end
    if ask == "pause":
        sqlite_store.jobs.resume("main", job_id)
        second = again(sqlite_store)
        runner.run(job_id, second, tmp_path, Direct(sqlite_store, job_id, second), over=never)
        same_bits(sqlite_store, job_id, undisturbed)


class Pair(InlineTeam):
    """Stands for two workers: real ones take seconds to start (see test_moves.py)."""

    workers = 2  # type: ignore[assignment]


def test_scaling_goes_on_within_the_attempt(
    sqlite_store: Store, tmp_path: Path, undisturbed: distbp.Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it trains: no stop, no checkpoint for it, no other attempt."""

    def on_ray(self: TeamMaker, blueprint: Any, data: Any, start: Any, attempt: int, *_: Any) -> Pair:
        return Pair(blueprint, data, start, attempt)

    monkeypatch.setattr(TeamMaker, "_on_ray", on_ray)
    job_id, attempt = lease(sqlite_store)
    transport = Direct(sqlite_store, job_id, attempt)
    heard = threading.Event()

    def scale(when: str, what: object) -> None:
        if when == "before" and isinstance(what, Report) and what.metrics and not heard.is_set():
            sqlite_store.jobs.scale("main", job_id, 2)
        if when == "after" and sqlite_store.jobs.get("main", job_id).workers == 2:
            heard.set()

    transport.fault = scale
    with _slow_epochs(heard):
        runner.run(job_id, attempt, tmp_path, transport, over=never)
    same_bits(sqlite_store, job_id, undisturbed)
    found = sqlite_store.journal.events(job_id, limit=1000)
    assert [e.kind for e in found].count("attempt_started") == 1
    told = [e.data["reason"] for e in found if e.kind == "team_changed"]
    assert told == ["2 workers were asked for; there are 2 now"]
    job = sqlite_store.jobs.get("main", job_id)
    assert job.result is not None and job.result["workers"] == 2


def test_orders_are_handed_on_once() -> None:
    control = Control()
    orders = runner.RunnerOrders(control)
    for workers in (None, 2, 2, 3):
        orders.hear(Answer(0, workers=workers))
    assert (control.asked(), control.asked(), control.stopping) == (3, None, False)
    orders.hear(Answer(0, "pause", 3))
    orders.hear(Answer(0, "cancel", 3))
    assert control.stopped_by == "a request to pause"


class _slow_epochs:  # noqa: N801 - reads as a verb
    """Training waits after its first epoch until `heard` (and the order that follows from it) is there."""

    def __init__(self, heard: threading.Event) -> None:
        self.patch = pytest.MonkeyPatch()
        self.heard = heard

    def __enter__(self) -> None:
        from distbp_service import telling

        append, heard = Spool.append, self.heard

        def slow(spool: Spool, **what: Any) -> Report:
            report = append(spool, **what)
            if what.get("metrics"):
                assert heard.wait(20)
            return report

        self.patch.setattr(telling.Spool, "append", slow)

    def __exit__(self, *error: object) -> None:
        self.patch.undo()


def test_a_disk_quota_holds_and_the_last_checkpoint_is_intact(sqlite_store: Store, tmp_path: Path) -> None:
    greedy = {"every_steps": 1, "keep_last": 1_000_000}
    job_id, attempt = lease(sqlite_store, {**WORK, "epochs": 10_000, "checkpoint": greedy})
    quota = DiskQuota(project=600_000, job=10**9)
    end = runner.run(job_id, attempt, tmp_path, Direct(sqlite_store, job_id, attempt, quota), over=never)
    assert end.outcome == "failed" and end.error is not None
    assert (end.error["class"], end.error["code"]) == ("user", "quota")
    assert "What was stored before is intact. Delete jobs, models or datasets" in end.error["message"]
    job = sqlite_store.jobs.get("main", job_id)
    assert job.state == "failed"  # and is not tried again
    filled = measured(tmp_path / job_id)
    assert 300_000 < filled <= quota.project
    assert job.disk_bytes <= quota.project
    latest = load_latest(tmp_path / job_id / "run" / "checkpoints")
    assert latest is not None and latest.set_aside == () and latest.step > 10


@pytest.mark.parametrize(
    ("slots", "workers", "scaled", "used"),
    [
        (0, "auto", None, (None, 1)),  # a service that does not say
        (1, "auto", None, (None, 1)),
        (2, 0, None, (0, 2)),
        (2, 8, None, (2, 2)),  # never more processes than slots
        (2, 1, 3, (3, 3)),  # for which the service has made room
        (1, 4, 0, (0, 1)),
        (3, {"min": 1, "max": 8}, None, ({"min": 1, "max": 3}, 3)),
        (9, {"min": 2, "max": 4}, None, ({"min": 2, "max": 4}, 4)),
    ],
)
def test_a_runner_uses_no_more_than_its_slots(
    slots: int, workers: Any, scaled: int | None, used: tuple[Any, int]
) -> None:
    job = distbp.TrainingJob.from_mapping({**WORK, "workers": workers, "shards": 16})
    found, processors = runner._within(slots, job, scaled)
    assert (found.model_dump() if isinstance(found, WorkerRange) else found, processors) == used


@pytest.mark.parametrize(
    ("workers", "servers", "least", "most"),
    [(2, 1, 2, 2), (1, 64, 64, 64), (0, 64, 1, 1), ("auto", 9, 1, 1), ({"min": 1, "max": 4}, 3, 3, 6)],
)
def test_a_server_takes_a_slot_as_a_worker_does(workers: Any, servers: int, least: int, most: int) -> None:
    job = distbp.TrainingJob.from_mapping({**WORK, "workers": workers, "shards": 16, "servers": servers})
    assert slots_of(job) == (least, most)
    found, _ = runner._within(most, job, None)
    widest = found.max if isinstance(found, WorkerRange) else found
    assert widest == (workers["max"] if isinstance(workers, dict) else None if workers == "auto" else workers)


def test_threads_are_no_more_than_slots(
    sqlite_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def train(*_: object, **__: object) -> distbp.Result:
        seen.append(settings.processors())
        raise StorageError("enough")

    monkeypatch.setattr(runner, "train", train)
    job_id, attempt = lease(sqlite_store)
    runner.run(job_id, attempt, tmp_path, Direct(sqlite_store, job_id, attempt), over=never)
    assert seen == [1]
    assert settings.get("DISTBP_PROCESSORS") == settings.SETTINGS["DISTBP_PROCESSORS"].default


def test_a_fault_of_the_user_ends_the_job_with_every_fault(sqlite_store: Store, tmp_path: Path) -> None:
    job_id, attempt = lease(
        sqlite_store, {**WORK, "data": {"train": {"format": "npz", "path": "absent.npz"}}}
    )
    end = runner.run(job_id, attempt, tmp_path, Direct(sqlite_store, job_id, attempt), over=never)
    assert end.outcome == "failed"
    job = sqlite_store.jobs.get("main", job_id)
    assert job.state == "failed"
    assert job.error is not None
    assert (job.error["class"], job.error["code"]) == ("user", "data")
    assert "absent.npz" in job.error["message"]


def test_an_error_nobody_foresaw_is_tried_once_more(
    sqlite_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(runner, "train", broken)
    job_id, attempt = lease(sqlite_store)
    for state in ("recovering", "failed"):
        runner.run(job_id, attempt, tmp_path, Direct(sqlite_store, job_id, attempt), over=never)
        assert sqlite_store.jobs.get("main", job_id).state == state
        if state == "recovering":
            sqlite_store.db.clock.pass_(5)  # type: ignore[attr-defined]
            attempt = again(sqlite_store)
    job = sqlite_store.jobs.get("main", job_id)
    assert job.error == {
        "class": "internal",
        "code": "zero_division",
        "message": "ZeroDivisionError: division by zero",
    }
    log = "".join(piece.text for piece in sqlite_store.journal.logs(job_id))
    assert "Traceback" in log  # for whoever has to mend it


def test_every_error_has_a_class() -> None:
    def subclasses(kind: type) -> set[type]:
        return {kind}.union(*(subclasses(sub) for sub in kind.__subclasses__()))

    mapped = tuple(kind for kind, _ in CLASSES)
    ours = {kind for kind in subclasses(errors.DistbpError) if kind.__module__ == "distbp.core.errors"}
    of_clients = {
        errors.RemoteError,
        errors.UnreachableError,
        errors.JobFailedError,
        errors.JobCancelledError,
    }
    unmapped = {k for k in ours if not issubclass(k, mapped)}
    assert unmapped == {errors.DistbpError, errors.Interrupted} | of_clients
    assert {name for _, name in CLASSES} <= set(policy.BUDGETS)
    for number, (kind, _) in enumerate(CLASSES):
        assert not any(issubclass(kind, above) for above, _ in CLASSES[:number]), kind
    assert class_of(errors.HostileFileError("x")) == "user"
    assert class_of(errors.ServerLostError("x")) == "infrastructure"
    assert class_of(errors.StorageError("disk full")) == "infrastructure"
    assert class_of(errors.CheckpointError("x")) == "internal"
    faulty = described(errors.JobError([errors.Fault("epochs", "must be at least 1")]))
    assert faulty["faults"] == [{"path": "epochs", "message": "must be at least 1"}]
    full = errors.StorageError("disk full: could not write /srv/work/job_1/run/x; see /srv/works")
    said = described(full, Path("/srv/work"))["message"]
    assert said == "disk full: could not write job_1/run/x; see /srv/works"  # not where the volume lies


# Spool ------------------------------------------------------------------------------------------------------


def test_a_spool_survives_its_process(tmp_path: Path) -> None:
    path = tmp_path / "reports.jsonl"
    spool = Spool(path, 1)
    for number in range(3):
        spool.append(log=str(number), end=End("interrupted") if number == 2 else None)
    spool.close()
    with open(path, "ab") as file:
        file.write(b'{"attempt": 1, "seq": 4, "lo')  # killed in the middle
    assert [report.log for report in left_over(path, 1)] == ["1", "2"]
    assert left_over(path, 0)[2].end == End("interrupted")
    assert left_over(tmp_path / "absent", 0) == []
    with pytest.raises(StorageError):
        Spool(path, 1)


def test_a_full_disk_leaves_whole_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(tmp_path / "r", 1)
    spool.append(log="first")
    write = os.write

    def full(fd: int, data: bytes) -> int:
        write(fd, data[:5])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(StorageError, match="disk full"):
            spool.append(log="second")
    assert spool.append(log="third").seq == 2
    spool.close()
    assert [report.log for report in left_over(tmp_path / "r", 0)] == ["first", "third"]


# HTTP -------------------------------------------------------------------------------------------------------


def _answering(status: int, body: object) -> httpx.Client:
    handler = httpx.MockTransport(lambda request: httpx.Response(status, json=body))
    return httpx.Client(base_url="http://api", transport=handler)


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (503, {"code": "unavailable", "message": "later"}, AwayError),
        (500, {}, AwayError),
        (429, {"code": "rate"}, AwayError),
        (409, {"code": "fenced", "message": "stop"}, FencedError),
        (401, {}, FencedError),
        (404, {}, FencedError),
        (409, {"code": "out_of_order", "expected": 4}, OutOfOrderError),
        (422, {"code": "invalid"}, RefusedError),
    ],
)
def test_answers_become_errors(status: int, body: object, kind: type[ServiceError]) -> None:
    with _answering(status, body) as client, pytest.raises(kind):
        HttpTransport(client, "job_x", 1, "token").heartbeat(None)


def test_a_dataset_that_arrives_damaged_is_refused(tmp_path: Path) -> None:
    with _answering(200, {}) as client:
        transport = HttpTransport(client, "job_x", 1, "token")
        with pytest.raises(errors.DataError, match="arrived damaged; upload it again"):
            transport.fetch_dataset("ds_" + "0" * 64, tmp_path / "data")
    assert list(tmp_path.iterdir()) == []


def _serve(store: Store) -> ThreadingHTTPServer:
    """The API's runner routes, as small as can be: for a runner in a process of its own."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(lambda job, attempt: store.runs.assignment(job, attempt).to_json())

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.path == "/v1/runner/claims":
                self._send(200, {"token": store.runs.claim(body["job"], body["attempt"], body["code"])})
            elif self.path.endswith("/reports"):
                self._answer(lambda job, attempt: store.runs.report(job, Report.from_json(body)).to_json())
            else:
                self._answer(lambda job, n: store.runs.heartbeat(job, n, body["progress"]).to_json())

        def _answer(self, call: Callable[[str, int], dict[str, Any]]) -> None:
            who = store.runs.authenticate(self.headers["Authorization"].removeprefix("Bearer "))
            if who is None:
                self._send(401, {"code": "unauthorized"})
                return
            try:
                self._send(200, call(*who))
            except ServiceError as error:
                self._send(error.status, {"code": error.code, "message": str(error)})

        def _send(self, status: int, body: object) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def test_a_runner_process_leaves_a_checkpoint_on_sigterm_and_ends_when_fenced(
    sqlite_store: Store, tmp_path: Path
) -> None:
    store = sqlite_store
    job_id, attempt = lease(store, {**WORK, "epochs": 100_000, "checkpoint": {"every_steps": 10_000}})
    started = [threading.Event(), threading.Event()]
    silence = store.listen(partial(_mark, store, job_id, started))
    server = _serve(store)
    url = f"http://127.0.0.1:{server.server_address[1]}"
    launcher = LocalProcess(tmp_path)
    try:
        from distbp_service.launchers import Start

        handle = launcher.start(Start(job_id, attempt, url, store.queue.issue_token(job_id, attempt)))
        assert started[0].wait(60), (tmp_path / job_id / "runner-1.log").read_text()
        launcher.stop(handle)
        _wait(launcher, handle)
        assert store.jobs.get("main", job_id).state == "queued"
        assert list((tmp_path / job_id / "run" / "checkpoints").iterdir())
        # The next one is fenced while it trains: it ends at its next word, with nothing more said.
        second = again(store)
        handle = launcher.start(Start(job_id, second, url, store.queue.issue_token(job_id, second)))
        assert started[1].wait(60), (tmp_path / job_id / "runner-2.log").read_text()
        store.queue.lost(job_id, second, {"class": "lost", "code": "x", "message": "m"})
        _wait(launcher, handle)
        log = (tmp_path / job_id / "runner-2.log").read_text()
        assert "attempt 2" in log
        assert "Stop" in log
        assert store.jobs.get("main", job_id).state == "recovering"
    finally:
        for number in (1, 2):
            launcher.kill(launcher.handle(job_id, number))
        silence()
        server.shutdown()
        server.server_close()


def _mark(store: Store, job_id: str, started: list[threading.Event], touched: frozenset[str]) -> None:
    if store.jobs.get("main", job_id).state == "running":
        started[store.jobs.get("main", job_id).attempt - 1].set()


def _wait(launcher: LocalProcess, handle: Any) -> None:
    """Until the runner has ended by itself."""
    for child in list(launcher._children.values()):
        child.wait(60)
    assert not launcher.alive(handle)


def test_claims_go_over_http(sqlite_store: Store) -> None:
    job_id, attempt = lease(sqlite_store)
    code = sqlite_store.queue.issue_claim(job_id, attempt, 60)
    server = _serve(sqlite_store)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{server.server_address[1]}", trust_env=False) as client:
            token = claim(client, job_id, attempt, code)
            assert HttpTransport(client, job_id, attempt, token).assignment().job["name"] == "line"
            with pytest.raises(FencedError):
                HttpTransport(client, job_id, attempt, token[:-2] + "xx").assignment()
    finally:
        server.shutdown()
        server.server_close()


def test_sigterm_before_training_is_kept(sqlite_store: Store, tmp_path: Path) -> None:
    job_id, attempt = lease(sqlite_store)

    class Early(Direct):
        def assignment(self) -> Assignment:
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGTERM)
            return super().assignment()

    end = runner.run(job_id, attempt, tmp_path, Early(sqlite_store, job_id, attempt), over=never)
    assert end.outcome == "interrupted"
    assert sqlite_store.jobs.get("main", job_id).state == "queued"


def test_a_job_begins_with_a_model_of_the_service(sqlite_store: Store, tmp_path: Path) -> None:
    """To the bits of a local run; also when it is taken up again, and not when the model is gone."""
    first, attempt = lease(sqlite_store)
    runner.run(first, attempt, tmp_path, Direct(sqlite_store, first, attempt), over=never)
    model = sqlite_store.models.of_job("main", first)
    assert model is not None
    tuned = {**WORK, "seed": 3, "init": f"model:{model.id}", "init_keeps": ["preparation", "optimizer"]}
    local = distbp.TrainingJob.from_mapping({**tuned, "init": str(tmp_path / model.path)})
    expected = distbp.train(local, output=tmp_path / "local")
    second, attempt = lease(sqlite_store, tuned)
    transport = Direct(sqlite_store, second, attempt)
    runner.run(second, attempt, tmp_path, transport, over=never)
    done = sqlite_store.jobs.get("main", second)
    assert done.state == "completed" and done.result is not None
    assert done.result["params_sha256"] == expected.params_sha256
    assert "note: init: 1 layers (12 values) are those of the model of 'line'" in "".join(
        part.text for part in sqlite_store.journal.logs(second)
    )
    third, attempt = lease(sqlite_store, tuned)
    sqlite_store.models.delete("main", model.id)
    runner.run(third, attempt, tmp_path, Direct(sqlite_store, third, attempt), over=never)
    failed = sqlite_store.jobs.get("main", third)
    assert failed.state == "failed" and failed.error is not None
    assert f"init: model:{model.id}: the model was deleted; begin with another" in failed.error["message"]
