"""The dispatcher: from the queue to runners, and back when they are lost.

It decides with pure functions of what it sees, and remembers nothing: kill it, and the next one goes on. The
queue's order, retries and backoff are in `policy`; that an older attempt cannot write is the store's doing.
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
    """slots: room for all jobs that run; project_slots, project_jobs: the most of it that one project may
    have. memory_bytes: of the machine of the runners; None: not known. start_s: for a runner to be heard the
    first time; after that the store's lease counts. stop_s: for a runner to end after its job was paused or
    cancelled. claim_s: how long a claim code is good. poll_s: between two looks at the store."""

    slots: int = 1
    project_slots: int = 10**9
    project_jobs: int = 10**9
    memory_bytes: int | None = None
    start_s: float = 30.0
    stop_s: float = 180.0  # a Ray that starts, or ends, on a busy machine takes its time
    claim_s: float = 600.0
    poll_s: float = 0.5

    @property
    def room(self) -> Room:
        return Room(self.slots, self.project_slots, self.project_jobs)


@dataclass(frozen=True)
class Sight:
    """What is seen of an attempt. alive: of its process; None: nobody can tell. asked_s: for how long its job
    has been pausing or being cancelled."""

    working: Working
    alive: bool | None
    asked_s: float = 0.0


@dataclass(frozen=True)
class Verdict:
    """What to do about it. `code` and `message` are of the error, where the attempt is lost."""

    act: Literal["leave", "lost", "kill"] = "leave"
    code: str = ""
    message: str = ""


def judge(sight: Sight, now: float, limits: Limits) -> Verdict:
    """What to do about an attempt: leave it, note that it is lost, or kill it (and note that)."""
    attempt = sight.working.attempt
    if sight.alive is False and attempt.handle is not None:
        return Verdict("lost", "runner_died", "the runner's process ended without a word")
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
    """Call `tick` now and then, or `run` in a thread.

    api_answers: whether runners can reach the API; while they cannot, silence says nothing about them.
    sign: called in every round, as a sign of life. Where two rounds lie far apart by the clock (the machine
    slept, this process was stopped, the clock was set), silence says nothing either.
    """

    store: Store
    launcher: Launcher
    api_url: str
    limits: Limits = field(default_factory=Limits)
    api_answers: Callable[[], bool] = lambda: True
    sign: Callable[[], None] = lambda: None
    _asked_since: dict[tuple[str, int], float] = field(default_factory=dict)
    _deaf: bool = True  # until the first look: who knows how long nobody has listened
    _heard_at: float = 0.0
    _wake: threading.Event = field(default_factory=threading.Event)
    _stopped: bool = False

    def run(self) -> None:
        """Until `stop`. Outlives the database, the cluster and what else fails: each round looks anew."""
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
                    self._deaf = True  # nor could runners report
                except Exception as error:
                    failures += 1
                    if failures == 1:
                        foreseen = isinstance(error, OSError)  # no files or processes left, say
                        log.error("this round failed: %s; trying again", error, exc_info=not foreseen)
                    self._deaf = True
                self._wake.wait(min(self.limits.poll_s * 2 ** min(failures, 5), 10.0))
        finally:
            silence()

    def announce(self) -> None:
        """Says what there is to give; call it before the API takes jobs."""
        self.store.queue.announce(self.limits.room, self.limits.memory_bytes)

    def stop(self) -> None:
        """Ends `run` after the tick in progress. Runners go on."""
        self._stopped = True
        self._wake.set()

    def stop_runners(self) -> int:
        """Asks every runner to leave a checkpoint and end; says how many there are. Their jobs are queued
        again when they have. For a machine that shuts down: after `stop`."""
        working = self.store.queue.working()
        for one in working:
            try:
                self.launcher.stop(self._handle(one))
            except LaunchError as error:
                log.warning("%s: %s", one.attempt.job_id, error)
        return len(working)

    def tick(self) -> None:
        """Looks once at everything: lost runners, retries and deadlines that are due, room for more."""
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
        asked = {_key(one) for one in working if one.state in ("pausing", "cancelling")}
        self._asked_since = {key: self._asked_since.get(key, now) for key in asked}
        for one in working:
            since = self._asked_since.get(_key(one), now)
            verdict = judge(Sight(one, self._alive(one), now - since), now, self.limits)
            if verdict.act != "leave":
                self._give_up(one, verdict, now)

    def _alive(self, one: Working) -> bool | None:
        try:
            return self.launcher.alive(self._handle(one))
        except LaunchError:
            return None

    def _handle(self, one: Working) -> Handle:
        attempt = one.attempt
        return attempt.handle or self.launcher.handle(attempt.job_id, attempt.attempt)

    def _give_up(self, one: Working, verdict: Verdict, now: float) -> None:
        attempt = one.attempt
        if verdict.act == "kill":
            try:
                self.launcher.kill(self._handle(one))
            except LaunchError as error:
                # It cannot be reached, so it cannot be killed; it is fenced, and ends when it hears of that.
                log.warning("%s, attempt %d: %s", attempt.job_id, attempt.attempt, error)
        said = self.launcher.last_words(self._handle(one)) if verdict.code == "runner_died" else ""
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
            pass  # it was quicker to end than we to write down that it had begun


def _key(one: Working) -> tuple[str, int]:
    return one.attempt.job_id, one.attempt.attempt
