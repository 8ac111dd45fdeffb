"""The table of moves; and a model of a job's life that Hypothesis plays against both stores."""

from __future__ import annotations

import itertools
import math
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import pytest
from distbp_service import policy, states
from distbp_service.errors import ConflictError, FencedError, OutOfOrderError
from distbp_service.reports import End, Report
from distbp_service.store import Store
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from stores import BACKENDS, Clock, database_without_rows, submit

from distbp.client.names import STATES, State

ALL = tuple(itertools.product(STATES, STATES, ("user", "dispatcher", "runner")))


def test_terminal_states_are_left_by_nobody() -> None:
    assert not [move for move in states.MOVES if move[0] in states.TERMINAL]


def test_every_state_is_reached_and_every_other_one_is_left() -> None:
    assert {to for _, to in states.MOVES} == set(STATES)
    assert {start for start, _ in states.MOVES} == set(STATES) - states.TERMINAL


def test_only_runners_complete_and_only_dispatchers_start() -> None:
    for (_, to), actors in states.MOVES.items():
        if to in ("completed", "running"):
            assert actors == {"runner"}
        if to == "starting":
            assert actors == {"dispatcher"}


def test_check_agrees_with_the_table() -> None:
    for state, to, by in ALL:
        legal = by in states.MOVES.get((state, to), ())
        if legal:
            states.check(state, to, by)
            continue
        says = rf"a job that is {state} cannot become {to} \(asked by the {by}\)"
        with pytest.raises(ConflictError, match=says):
            states.check(state, to, by)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("where", [states.after_cancel, states.after_pause, states.after_resume])
def test_what_users_ask_for_is_legal_and_can_be_asked_twice(
    state: State, where: Callable[[State], State]
) -> None:
    try:
        to = where(state)
    except ConflictError as error:
        assert "the job" in str(error)
        return
    if to != state:
        states.check(state, to, "user")
    if to != "queued" or where is states.after_resume:
        assert where(to) == to


@pytest.mark.parametrize("state", sorted(states.ACTIVE))
@pytest.mark.parametrize("outcome", ["completed", "interrupted", "failed"])
@pytest.mark.parametrize("kind", [None, *policy.BUDGETS])
@pytest.mark.parametrize("spent", [0, 100])
def test_every_end_of_an_attempt_is_a_legal_move(
    state: State, outcome: policy.Outcome, kind: str | None, spent: int
) -> None:
    failures = dict.fromkeys(policy.BUDGETS, spent)
    ending = policy.after_attempt(state, outcome, kind, failures)
    states.check(state, ending.state, "runner")
    if outcome == "failed":
        states.check(state, ending.state, "dispatcher")


class JobLife(RuleBasedStateMachine):
    """One job, whatever its user, the dispatcher and its runners do to it. `make` opens an empty store."""

    make: ClassVar[Callable[[Clock], Store]]

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.store = self.make(self.clock)
        self.id = submit(self.store).id
        self.state: State = "queued"
        self.attempt = 0
        self.seq = 0
        self.ended = True  # the current attempt
        self.metrics: dict[int, int] = {}  # step: attempt that reported it
        self.settled = 0.0  # up to this step the attempt only fills in what earlier ones could not report
        self.workers: int | None = None  # what the job was scaled to

    def teardown(self) -> None:
        self.store.close()

    def _moved(self, to: State, by: states.Actor) -> None:
        if to != self.state:
            states.check(self.state, to, by)
        self.state = to

    @rule(ask=st.sampled_from(["cancel", "pause", "resume"]))
    def user_asks(self, ask: str) -> None:
        call = getattr(self.store.jobs, ask)
        try:
            to = getattr(states, f"after_{ask}")(self.state)
        except ConflictError as error:
            with pytest.raises(ConflictError) as found:
                call("main", self.id)
            assert str(found.value) == str(error)
            return
        assert call("main", self.id).state == to
        self._moved(to, "user")

    @rule(workers=st.integers(1, 2))
    def user_scales(self, workers: int) -> None:
        if self.state in states.TERMINAL:
            with pytest.raises(ConflictError, match=r"has ended .* and cannot be scaled"):
                self.store.jobs.scale("main", self.id, workers)
            return
        assert self.store.jobs.scale("main", self.id, workers).state == self.state
        self.workers = workers

    @rule(slots=st.integers(0, 2))
    def dispatcher_leases(self, slots: int) -> None:
        lease = self.store.queue.lease(slots, 30)
        if self.state != "queued" or slots == 0:
            assert lease is None
            return
        assert lease is not None
        self.attempt += 1
        assert lease.attempt == self.attempt
        assert self.store.runs.assignment(self.id, self.attempt).workers == self.workers
        # Before it begins to train, it can only tell what earlier ones have measured.
        self.seq, self.ended, self.settled = 0, False, math.inf
        self._moved("starting", "dispatcher")

    @precondition(lambda self: not self.ended and self.state in ("starting", "running"))
    @rule(step=st.integers(0, 5))
    def runner_starts_training(self, step: int) -> None:
        self.seq += 1
        event = {"kind": "attempt_started", "from_step": step}
        self.store.runs.report(self.id, Report(self.attempt, self.seq, events=(event,)))
        self.metrics = {s: a for s, a in self.metrics.items() if s <= step}
        self.settled = step
        self._moved("running", "runner")

    @precondition(lambda self: not self.ended)
    @rule(steps=st.lists(st.integers(1, 9), max_size=3, unique=True))
    def runner_reports(self, steps: list[int]) -> None:
        self.seq += 1
        lines = tuple({"step": step, "by": self.attempt} for step in steps)
        answer = self.store.runs.report(self.id, Report(self.attempt, self.seq, metrics=lines, log="x\n"))
        told = (self.seq, states.command_for(self.state), self.workers)
        assert (answer.received, answer.command, answer.workers) == told
        for step in steps:
            if step > self.settled or step not in self.metrics:
                self.metrics[step] = self.attempt

    @precondition(lambda self: self.seq > 0)
    @rule()
    def runner_repeats_itself(self) -> None:
        # Even its last report, when the attempt has ended.
        answer = self.store.runs.report(self.id, Report(self.attempt, self.seq, log="again"))
        assert answer.received == self.seq

    @precondition(lambda self: not self.ended)
    @rule()
    def runner_skips_a_report(self) -> None:
        with pytest.raises(OutOfOrderError, match="came before"):
            self.store.runs.report(self.id, Report(self.attempt, self.seq + 2))

    @precondition(lambda self: self.attempt > 0)
    @rule()
    def older_attempt_speaks(self) -> None:
        late = self.attempt if self.ended else self.attempt - 1
        report = Report(late, self.seq + 1 if self.ended else 1, metrics=({"step": 1, "by": -1},))
        with pytest.raises(FencedError, match="Stop"):
            self.store.runs.report(self.id, report)
        with pytest.raises(FencedError, match="Stop"):
            self.store.runs.heartbeat(self.id, late)

    @precondition(lambda self: not self.ended)
    @rule(
        outcome=st.sampled_from(["completed", "interrupted", "failed"]),
        kind=st.sampled_from([*policy.BUDGETS]),
    )
    def runner_ends(self, outcome: policy.Outcome, kind: str) -> None:
        self.seq += 1
        error = {"class": kind, "code": "x", "message": "m"} if outcome == "failed" else None
        before = self.store.jobs.get("main", self.id)
        self.store.runs.report(self.id, Report(self.attempt, self.seq, end=End(outcome, error=error)))
        self._ended(before, outcome, kind, "runner")

    @precondition(lambda self: not self.ended)
    @rule()
    def runner_obeys(self) -> None:
        """It hears what it is told, and ends with a checkpoint where that is a pause or a cancel: no attempt
        of a job that is paused, scaled and resumed is called failed."""
        answer = self.store.runs.heartbeat(self.id, self.attempt)
        assert (answer.command, answer.workers) == (states.command_for(self.state), self.workers)
        if answer.command is None:
            return
        self.runner_ends("interrupted", "user")
        assert self.state == {"pause": "paused", "cancel": "cancelled"}[answer.command]
        last = self.store.jobs.attempts("main", self.id)[-1]
        assert (last.outcome, last.error) == ("interrupted", None)

    @precondition(lambda self: not self.ended)
    @rule()
    def lease_runs_out(self) -> None:
        self.clock.pass_(31)
        before = self.store.jobs.get("main", self.id)
        error = {"class": "lost", "code": "lost", "message": "gone"}
        assert self.store.queue.lost(self.id, self.attempt, error, expired_before=self.clock()) is not None
        assert self.store.queue.lost(self.id, self.attempt, error) is None
        self._ended(before, "failed", "lost", "dispatcher")

    def _ended(self, before: object, outcome: policy.Outcome, kind: str, by: states.Actor) -> None:
        failures, step, failed_step = (getattr(before, n) for n in ("failures", "step", "failed_step"))
        progressed = step > failed_step
        self._moved(
            policy.after_attempt(self.state, outcome, kind, failures, progressed=progressed).state, by
        )
        self.ended = True

    @rule(seconds=st.sampled_from([0.5, 61.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.pass_(seconds)
        if not self.ended:
            self.store.runs.heartbeat(self.id, self.attempt)
        not_before = self.store.jobs.get("main", self.id).not_before
        queued = self.store.queue.requeue_due()
        if self.state == "recovering" and not_before is not None and not_before <= self.clock():
            assert [job.id for job in queued] == [self.id]
            self._moved("queued", "dispatcher")
        else:
            assert queued == ()

    @invariant()
    def store_and_model_agree(self) -> None:
        job = self.store.jobs.get("main", self.id)
        assert (job.state, job.attempt) == (self.state, self.attempt)
        assert (job.finished_at is not None) == (job.state in states.TERMINAL)
        assert [w.attempt.attempt for w in self.store.queue.working()] == (
            [] if self.ended else [self.attempt]
        )
        assert job.active == (not self.ended)
        found = self.store.journal.events(self.id, limit=1000)
        assert (
            [event.number for event in found]
            == list(range(1, len(found) + 1))
            == list(range(1, job.event_count + 1))
        )
        moves = [(e.data["from"], e.data["to"]) for e in found if e.kind == "state"]
        assert all(move in states.MOVES for move in moves[1:])
        assert all(one[1] == two[0] for one, two in itertools.pairwise(moves))
        assert {m.step: m.data["by"] for m in self.store.journal.metrics(self.id)} == self.metrics


@pytest.fixture(params=BACKENDS)
def life(request: pytest.FixtureRequest) -> Iterator[type[JobLife]]:
    folder = Path(tempfile.mkdtemp())

    class Life(JobLife):
        @staticmethod
        def make(clock: Clock) -> Store:
            shutil.rmtree(folder)
            folder.mkdir()
            return Store(
                database_without_rows(request.param, request.getfixturevalue, folder),
                clock=clock,
                pool_size=1,
            )

    yield Life
    shutil.rmtree(folder)


def test_a_job_lives_as_the_model_says(life: type[JobLife]) -> None:
    run_state_machine_as_test(life, settings=settings(max_examples=6, stateful_step_count=25, deadline=None))


@pytest.mark.heavy
def test_an_attempt_that_never_trained_only_fills_in(life: type[JobLife]) -> None:
    """Some seeds found that the model did not know it."""
    job = life()
    try:
        job.dispatcher_leases(1)
        job.runner_starts_training(0)
        job.runner_reports([1])
        job.lease_runs_out()
        job.time_passes(61.0)
        job.dispatcher_leases(1)
        job.older_attempt_speaks()
        job.runner_reports([1, 2])
        assert job.metrics == {1: 1, 2: 2}
        job.store_and_model_agree()
    finally:
        job.teardown()
