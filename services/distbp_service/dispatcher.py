"""The dispatcher starts runners for queued jobs, watches them, and queues the jobs of lost runners again.

It decides by pure functions of the store and the launcher, and keeps no state that matters. So a dispatcher
that was killed is replaced by starting another. The queue's order, retries and backoff are in `policy`. The
store refuses the writes of older attempts.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from sqlalchemy.exc import SQLAlchemyError

from distbp_service.errors import FencedError
from distbp_service.launchers import Handle, Launcher, LaunchError, Start
from distbp_service.policy import Room
from distbp_service.store import Lease, Store
from distbp_service.store.database import reason
from distbp_service.store.queue import Working

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Limits:
    """slots: for all running jobs together. project_slots, project_jobs: the most slots and running jobs of
    one project. memory_bytes: of the runners' machine; None: not known. start_s: the time in which a runner
    must report first; after that the store's lease counts. stop_s: the time in which a runner must end after
    its job was paused or cancelled. claim_s: how long a claim code is valid. poll_s: between two looks at the
    store."""

    slots: int = 1
    project_slots: int = 10**9
    project_jobs: int = 10**9
    memory_bytes: int | None = None
    start_s: float = 30.0
    stop_s: float = 180.0  # Ray may take long to start or end on a busy machine
    claim_s: float = 600.0
    poll_s: float = 0.5

    @property
    def room(self) -> Room:
        return Room(self.slots, self.project_slots, self.project_jobs)


@dataclass(frozen=True)
class Sight:
    """The observed facts about an attempt. alive: whether its process lives; None: not known. asked_s: for
    how long its job has been pausing or cancelling."""

    working: Working
    alive: bool | None
    asked_s: float = 0.0


@dataclass(frozen=True)
class Verdict:
    """The decision on an attempt. `code`, `message`: of the error, if the attempt is lost."""

    act: Literal["leave", "lost", "kill"] = "leave"
    code: str = ""
    message: str = ""


def judge(sight: Sight, now: float, limits: Limits) -> Verdict:
    """Decides on an attempt: leave it, record that it is lost, or kill it and record that."""
    attempt = sight.working.attempt
    if sight.alive is False and attempt.handle is not None:
        return Verdict("lost", "runner_died", "the runner's process ended without a report")
    if attempt.lease_expires_at <= now:
        heard = "nothing was heard from the runner in time"
        return Verdict("kill", "runner_silent", f"{heard}; its machine or network may be down")
    if sight.asked_s > limits.stop_s:
        return Verdict(
            "kill", "runner_deaf", f"the runner did not end within {limits.stop_s:g} s of being told to"
        )
    return Verdict()


@dataclass
class Dispatcher:
    """Call `tick` repeatedly, or `run` in a thread.

    api_answers: whether runners can reach the API; if they cannot, their silence does not count. sign: called
    in every round, as a sign of life. Silence does not count either if two rounds are far apart by the clock,
    because the machine slept, this process was stopped, or the clock was set.
    """

    store: Store
    launcher: Launcher
    api_url: str
    limits: Limits = field(default_factory=Limits)
    api_answers: Callable[[], bool] = lambda: True
    sign: Callable[[], None] = lambda: None
    _asked_since: dict[tuple[str, int], float] = field(default_factory=dict)
    _deaf: bool = True  # whether reports may have been missed; before the first round that is not known
    _heard_at: float = 0.0
    _wake: threading.Event = field(default_factory=threading.Event)
    _stopped: bool = False

    def run(self) -> None:
        """Works until `stop`; waits. Errors of the database, the cluster and others do not end it: the next
        round tries again."""
        silence = self.store.listen(lambda jobs: self._wake.set())
        failures = 0
        try:
            while not self._stopped:
                self._wake.clear()
                try:
                    self.tick()
                    self.sign()
                    failures = 0
                except SQLAlchemyError as error:
                    failures += 1
                    if failures == 1:
                        log.error("the database does not answer: %s", reason(error))
                    self._deaf = True  # runners could not report, either
                except Exception as error:
                    failures += 1
                    if failures == 1:
                        foreseen = isinstance(error, OSError)  # for example too many open files
                        log.error("this round failed: %s; trying again", error, exc_info=not foreseen)
                    self._deaf = True
                self._wake.wait(min(self.limits.poll_s * 2 ** min(failures, 5), 10.0))
        finally:
            silence()

    def announce(self) -> None:
        """Writes the limits to the store. Call it before the API takes jobs."""
        self.store.queue.announce(self.limits.room, self.limits.memory_bytes)

    def stop(self) -> None:
        """Ends `run` after the tick in progress. Runners go on."""
        self._stopped = True
        self._wake.set()

    def stop_runners(self) -> int:
        """Asks every runner to leave a checkpoint and end, and returns their number; does not wait. A job is
        queued again when its runner has ended. For a machine that shuts down; call it after `stop`."""
        working = self.store.queue.working()
        for each in working:
            try:
                self.launcher.stop(self._handle(each))
            except LaunchError as error:
                log.warning("%s: %s", each.attempt.job_id, error)
        return len(working)

    def tick(self) -> None:
        """Does one round: lost runners, deadlines and retries that are due, new runners for free slots."""
        self._hear()
        self.store.queue.overdue()
        self._watch()
        self.store.queue.requeue_due()
        while not self._stopped:
            lease = self.store.queue.lease(self.limits.room, self.limits.start_s)
            if lease is None:
                return
            self._start(lease)

    def _hear(self) -> None:
        answers, now = self.api_answers(), self.store.db.clock()
        absent = now - self._heard_at > self.limits.start_s / 2
        if self._deaf or absent or not answers:
            self.store.queue.extend_leases(self.limits.start_s)
        self._deaf, self._heard_at = not answers, now

    def _watch(self) -> None:
        now = self.store.db.clock()
        working = self.store.queue.working()
        asked = {_key(each) for each in working if each.state in ("pausing", "cancelling")}
        self._asked_since = {key: self._asked_since.get(key, now) for key in asked}
        for each in working:
            since = self._asked_since.get(_key(each), now)
            verdict = judge(Sight(each, self._alive(each), now - since), now, self.limits)
            if verdict.act != "leave":
                self._give_up(each, verdict, now)

    def _alive(self, working: Working) -> bool | None:
        try:
            return self.launcher.alive(self._handle(working))
        except LaunchError:
            return None

    def _handle(self, working: Working) -> Handle:
        attempt = working.attempt
        return attempt.handle or self.launcher.handle(attempt.job_id, attempt.attempt)

    def _give_up(self, working: Working, verdict: Verdict, now: float) -> None:
        attempt = working.attempt
        if verdict.act == "kill":
            try:
                self.launcher.kill(self._handle(working))
            except LaunchError as error:
                # A runner that cannot be reached is fenced, and ends when it can reach the API again.
                log.warning("%s, attempt %d: %s", attempt.job_id, attempt.attempt, error)
        said = self.launcher.last_words(self._handle(working)) if verdict.code == "runner_died" else ""
        message = verdict.message + (f"; its log ends with: {said}" if said else "")
        lost = {"class": "lost", "code": verdict.code, "message": message}
        expired = now if verdict.code == "runner_silent" else None
        if self.store.queue.lost(attempt.job_id, attempt.attempt, lost, expired_before=expired):
            log.info("%s, attempt %d: %s", attempt.job_id, attempt.attempt, message)

    def _start(self, lease: Lease) -> None:
        job_id, attempt = lease.job.id, lease.attempt
        queue = self.store.queue
        try:
            if self.launcher.wants == "token":
                secret = queue.issue_token(job_id, attempt)
            else:
                secret = queue.issue_claim(job_id, attempt, self.limits.claim_s)
            handle = self.launcher.start(Start(job_id, attempt, self.api_url, secret))
            queue.started(job_id, attempt, handle)
        except LaunchError as error:
            log.warning("%s, attempt %d: %s", job_id, attempt, error)
            queue.lost(job_id, attempt, {"class": error.code, "code": error.code, "message": str(error)})
        except FencedError:
            pass  # the runner has already ended


def _key(working: Working) -> tuple[str, int]:
    return working.attempt.job_id, working.attempt.attempt
