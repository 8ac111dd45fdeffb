"""The dispatcher: what it decides, and what it does with a launcher that only pretends."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import ClassVar, Literal

import pytest
from distbp_service import policy
from distbp_service.dispatcher import Dispatcher, Limits, Sight, Verdict, judge
from distbp_service.launchers import ClusterAwayError, Handle, LaunchError, Start
from distbp_service.reports import End, Report
from distbp_service.store import Store
from distbp_service.store.queue import Working
from distbp_service.store.records import Attempt
from sqlalchemy.exc import OperationalError
from stores import Clock, submit


class Pretend:
    """A launcher whose runners are entries in a set."""

    wants: ClassVar[Literal["token", "claim"]] = "token"

    def __init__(self) -> None:
        self.living: set[str] = set()
        self.starts: list[Start] = []
        self.stopped: list[str] = []
        self.killed: list[str] = []
        self.refuses: LaunchError | None = None
        self.mute = False
        self.said = ""

    def handle(self, job_id: str, attempt: int) -> Handle:
        return {"name": f"{job_id}-{attempt}"}

    def start(self, start: Start) -> Handle:
        if self.refuses:
            raise self.refuses
        self.starts.append(start)
        handle = self.handle(start.job_id, start.attempt)
        self.living.add(handle["name"])
        return handle

    def alive(self, handle: Handle) -> bool:
        if self.mute:
            raise LaunchError("cannot tell")
        return handle["name"] in self.living

    def last_words(self, handle: Handle) -> str:
        return self.said

    def stop(self, handle: Handle) -> None:
        self.stopped.append(handle["name"])

    def kill(self, handle: Handle) -> None:
        if self.mute:
            raise LaunchError("cannot reach it")
        self.killed.append(handle["name"])
        self.living.discard(handle["name"])


class House:
    def __init__(self, store: Store, clock: Clock) -> None:
        self.store, self.clock, self.launcher = store, clock, Pretend()
        self.api_answers = True
        self.dispatcher = self.another()

    def another(self) -> Dispatcher:
        limits = Limits(slots=2)
        return Dispatcher(self.store, self.launcher, "http://api", limits, lambda: self.api_answers)

    def tick(self) -> None:
        self.dispatcher.tick()

    def state(self, job_id: str) -> str:
        return self.store.jobs.get("main", job_id).state

    def run(self, job_id: str, attempt: int = 1) -> None:
        event = {"kind": "attempt_started", "from_step": 0}
        self.store.runs.report(job_id, Report(attempt, 1, events=(event,)))


@pytest.fixture
def house(sqlite_store: Store, clock: Clock) -> House:
    return House(sqlite_store, clock)


def sight(state: str = "running", alive: bool | None = True, lease: float = 10, asked_s: float = 0) -> Sight:
    attempt = Attempt("job_x", 1, "running", 0.0, None, lease, 0, None, {"a": 1}, None, None)
    return Sight(Working(attempt, state), alive, asked_s)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("seen", "act", "code"),
    [
        (sight(), "leave", ""),
        (sight(alive=None), "leave", ""),
        (sight(alive=False), "lost", "runner_died"),
        (sight(lease=5), "kill", "runner_silent"),
        (sight(lease=5, alive=None), "kill", "runner_silent"),
        (sight("cancelling", asked_s=180), "leave", ""),
        (sight("cancelling", asked_s=181), "kill", "runner_deaf"),
    ],
)
def test_judgement(seen: Sight, act: str, code: str) -> None:
    verdict = judge(seen, 5.0, Limits())
    assert (verdict.act, verdict.code) == (act, code)
    assert bool(verdict.message) == (act != "leave")
    assert isinstance(verdict, Verdict)


def test_a_runner_that_was_not_started_yet_is_not_dead() -> None:
    attempt = Attempt("job_x", 1, "starting", 0.0, None, 10.0, 0, None, None, None, None)
    assert judge(Sight(Working(attempt, "starting"), False), 5.0, Limits()).act == "leave"


def test_it_starts_what_there_is_room_for(house: House) -> None:
    jobs = []
    for _ in range(3):
        house.clock.pass_(1)
        jobs.append(submit(house.store).id)
    house.tick()
    assert [start.job_id for start in house.launcher.starts] == jobs[:2]
    first = house.launcher.starts[0]
    assert house.store.runs.authenticate(first.secret) == (jobs[0], 1)
    house.tick()
    assert len(house.launcher.starts) == 2
    house.run(jobs[0])
    house.store.runs.report(jobs[0], Report(1, 2, end=End("completed", result={})))
    house.tick()
    assert [start.job_id for start in house.launcher.starts] == jobs


def test_a_dead_runner_is_noticed_at_once_and_followed_by_another(house: House) -> None:
    job_id = submit(house.store).id
    house.tick()
    house.run(job_id)
    house.launcher.living.clear()
    house.tick()
    assert house.state(job_id) == "recovering"
    house.clock.pass_(1)
    house.tick()
    assert [start.attempt for start in house.launcher.starts] == [1, 2]
    assert house.launcher.killed == []


def test_why_a_runner_could_not_start_is_in_the_error_of_its_job(house: House) -> None:
    job_id = submit(house.store).id
    house.launcher.said = "ModuleNotFoundError: No module named 'numpy'"
    message = "the runner's process ended without a report; its log ends with: " + house.launcher.said
    house.tick()
    house.launcher.living.clear()
    house.tick()
    assert house.store.jobs.get("main", job_id).reason == message
    for _ in range(policy.BUDGETS["lost"]):
        house.clock.pass_(policy.BACKOFF_MOST_S)
        house.tick()
        house.launcher.living.clear()
        house.tick()
    assert house.state(job_id) == "failed"
    assert house.store.jobs.get("main", job_id).error == {
        "class": "lost",
        "code": "runner_died",
        "message": message,
    }


def test_a_silent_runner_is_killed_before_another_starts(house: House) -> None:
    job_id = submit(house.store).id
    house.tick()
    house.run(job_id)
    house.clock.pass_(9)
    house.tick()
    assert house.state(job_id) == "running"
    house.clock.pass_(1)
    house.tick()
    assert house.launcher.killed == [f"{job_id}-1"]
    assert house.state(job_id) == "recovering"


def test_a_runner_that_nobody_can_reach_is_fenced(house: House) -> None:
    job_id = submit(house.store).id
    house.tick()
    house.run(job_id)
    house.launcher.mute = True
    house.clock.pass_(11)
    house.tick()
    assert house.state(job_id) == "recovering"


def test_silence_says_nothing_while_the_api_is_away(house: House) -> None:
    job_id = submit(house.store).id
    house.tick()
    house.run(job_id)
    house.api_answers = False
    for _ in range(10):
        house.clock.pass_(20)
        house.tick()
    assert house.state(job_id) == "running"
    house.api_answers = True
    house.tick()
    for seconds in (15, 14):
        house.clock.pass_(seconds)
        house.tick()
    assert house.state(job_id) == "running"
    house.clock.pass_(1)
    house.tick()
    assert house.state(job_id) == "recovering"


def test_another_dispatcher_goes_on_where_one_was_killed(house: House) -> None:
    job_id = submit(house.store).id
    house.tick()
    house.run(job_id)
    house.clock.pass_(3600)  # nobody listened meanwhile
    house.dispatcher = house.another()
    house.tick()
    assert house.state(job_id) == "running"
    assert len(house.launcher.starts) == 1
    house.launcher.living.clear()
    house.tick()
    assert house.state(job_id) == "recovering"


def test_silence_says_nothing_after_a_time_in_which_nobody_looked(house: House) -> None:
    """A machine that slept, a process that was stopped, a clock that was set."""
    job_id = submit(house.store).id
    house.tick()
    house.run(job_id)
    house.clock.pass_(3600)
    house.tick()
    assert house.state(job_id) == "running"
    assert house.launcher.killed == []
    for seconds in (15, 15):  # and who is silent then is lost
        house.clock.pass_(seconds)
        house.tick()
    assert house.launcher.killed == [f"{job_id}-1"]


def test_a_dispatcher_killed_between_lease_and_start_costs_a_wait_only(house: House) -> None:
    job_id = submit(house.store).id
    house.store.queue.lease(2, 30)  # and here it was killed
    house.tick()
    for seconds in (15, 15):
        house.clock.pass_(seconds)
        house.tick()
    assert house.state(job_id) == "recovering"
    house.clock.pass_(1)
    house.tick()
    assert [start.attempt for start in house.launcher.starts] == [2]


@pytest.mark.parametrize(("ask", "end"), [("cancel", "cancelled"), ("pause", "paused")])
def test_a_runner_that_does_not_obey_is_killed(house: House, ask: str, end: str) -> None:
    job_id = submit(house.store).id
    house.tick()
    house.run(job_id)
    getattr(house.store.jobs, ask)("main", job_id)
    for _ in range(25):
        house.tick()
        if house.state(job_id) == end:
            break
        house.store.runs.heartbeat(job_id, 1)
        house.clock.pass_(9)
    assert house.launcher.killed == [f"{job_id}-1"]
    assert house.state(job_id) == end


def test_what_cannot_be_started_is_tried_again(house: House) -> None:
    job_id = submit(house.store).id
    house.launcher.refuses = LaunchError("no room")
    house.tick()
    job = house.store.jobs.get("main", job_id)
    assert (job.state, job.reason, job.failures) == ("recovering", "no room", {"launch": 1})
    house.launcher.refuses = None
    house.clock.pass_(1)
    house.tick()
    assert house.state(job_id) == "starting"


def test_a_cluster_that_stays_away_fails_no_job(house: House) -> None:
    job_id = submit(house.store).id
    house.launcher.refuses = ClusterAwayError("the Ray cluster cannot be reached")
    for _ in range(40):
        house.tick()
        assert house.state(job_id) == "recovering"
        house.clock.pass_(60)
    house.launcher.refuses = None
    house.tick()
    assert house.state(job_id) == "starting"


def test_runners_are_asked_to_leave_when_the_machine_shuts_down(house: House) -> None:
    job_id = submit(house.store).id
    house.tick()
    house.run(job_id)
    house.dispatcher.stop()
    assert house.dispatcher.stop_runners() == 1
    assert house.launcher.stopped == [f"{job_id}-1"]
    house.store.runs.report(job_id, Report(1, 2, end=End("interrupted")))
    assert house.state(job_id) == "queued"
    house.tick()  # it is stopped: it starts nothing
    assert len(house.launcher.starts) == 1


def test_the_loop_wakes_for_a_new_job_and_outlives_the_database(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ticked, work = threading.Semaphore(0), house.dispatcher.tick
    away: list[Callable[[], None]] = []

    def tick() -> None:
        ticked.release()
        if away:
            away.pop()()
        work()

    def lose() -> None:
        raise OperationalError("SELECT 1", {}, Exception("gone"))

    away.append(lose)
    monkeypatch.setattr(house.dispatcher, "tick", tick)
    thread = threading.Thread(target=house.dispatcher.run)
    thread.start()
    try:
        assert ticked.acquire(timeout=20)
        job_id = submit(house.store).id
        for _ in range(20):
            assert ticked.acquire(timeout=20)
            if house.launcher.starts:
                break
        assert [start.job_id for start in house.launcher.starts] == [job_id]
    finally:
        house.dispatcher.stop()
        thread.join(20)
    assert not thread.is_alive()
    assert "the database does not answer: gone" in caplog.text
