"""A runner's calls: get the assignment, report, send heartbeats. Calls of an attempt that is over are fenced.

The attempt of a call comes from the runner's token (`authenticate`), never from the request alone.
"""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, select, update

from distbp_service import states
from distbp_service.errors import FencedError, NotFoundError, OutOfOrderError
from distbp_service.reports import Answer, Assignment, Report
from distbp_service.store.database import Database, sha256
from distbp_service.store.disk import DiskQuota, grant
from distbp_service.store.endings import end_attempt
from distbp_service.store.journal import (
    add_events,
    add_log,
    add_metrics,
    change,
    lock_job,
    move,
    rewind_metrics,
)
from distbp_service.store.records import Attempt, Job
from distbp_service.store.schema import attempts, jobs, models

_TOKEN = re.compile(r"dbr_(job_[0-9a-z]{20})_([1-9][0-9]{0,8})_([A-Za-z0-9_-]{43})")
_ALL_STEPS = 2**63 - 1
MODEL = "model:"  # the prefix of a job's `init`: model:mdl_...
LEASE_S = 10.0  # a runner sends a report or a heartbeat every second


class Runs:
    def __init__(self, db: Database) -> None:
        self._db = db

    def authenticate(self, text: str) -> tuple[str, int] | None:
        """(job id, attempt) of a runner token; None if the token is not valid. The token stays valid after
        the attempt's end, so that a repeated report is answered again; all other calls are then fenced."""
        match = _TOKEN.fullmatch(text)
        if match is None:
            return None
        job_id, attempt = match[1], int(match[2])
        with self._db.read() as conn:
            known = conn.execute(
                select(attempts.c.token_sha256).where(
                    attempts.c.job_id == job_id, attempts.c.attempt == attempt
                )
            ).scalar_one_or_none()
        if known is None or not hmac.compare_digest(known, sha256(match[3])):
            return None
        return job_id, attempt

    def claim(self, job_id: str, attempt: int, code: str) -> str:
        """Exchanges a claim code for the runner token. Raises FencedError if the code is wrong, was used or
        has expired."""
        secret = secrets.token_urlsafe(32)
        mine = (
            attempts.c.job_id == job_id,
            attempts.c.attempt == attempt,
            attempts.c.state != "ended",
            attempts.c.claim_sha256 == sha256(code),
            attempts.c.claim_expires_at > self._db.clock(),
        )
        with self._db.write() as conn:
            values = {"claim_sha256": None, "token_sha256": sha256(secret)}
            if conn.execute(update(attempts).where(*mine).values(values)).rowcount == 0:
                raise FencedError("the claim code is wrong, was used, or has expired")
        return f"dbr_{job_id}_{attempt}_{secret}"

    def assignment(self, job_id: str, attempt: int, quota: DiskQuota | None = None) -> Assignment:
        """The task of the attempt. quota: of the disk; None: no limit. Raises FencedError."""
        with self._db.write() as conn:
            job = lock_job(conn, job_id)
            _current(conn, job, attempt)
            if quota is not None:
                job = grant(conn, self._db, job, job.disk_bytes, quota)
            rows = conn.execute(
                select(attempts.c.attempt, attempts.c.last_seq).where(
                    attempts.c.job_id == job_id, attempts.c.attempt < attempt
                )
            )
            received = {str(number): int(last) for number, last in rows}
            model = str(job.job.get("init") or "").removeprefix(MODEL)
            mine = (models.c.id == model, models.c.project == job.project)
            init = conn.execute(select(models.c.path).where(*mine)).scalar_one_or_none()
        disk = None if quota is None else job.disk_granted
        return Assignment(job_id, attempt, job.job, job.workers, received, init, job.slots_held, disk)

    def check(self, job_id: str, attempt: int) -> Job:
        """The job of an attempt that has not ended. Raises FencedError."""
        with self._db.read() as conn:
            job = _job(conn, job_id)
            _current(conn, job, attempt)
        return job

    def heartbeat(
        self,
        job_id: str,
        attempt: int,
        progress: Mapping[str, Any] | None = None,
        lease_s: float = LEASE_S,
        *,
        disk: int | None = None,
        quota: DiskQuota | None = None,
    ) -> Answer:
        """Extends the lease of the runner and returns the answer for it. disk: the bytes in the job's folder.
        Raises FencedError."""
        with self._db.write() as conn:
            job = lock_job(conn, job_id)
            found = _current(conn, job, attempt)
            self._extend(conn, job, lease_s)
            if progress is not None and progress != job.progress:
                job = change(conn, self._db, job, progress=dict(progress))
            job = self._measured(conn, job, disk, quota)
        return _answer(job, found.last_seq, quota)

    def report(
        self, job_id: str, report: Report, lease_s: float = LEASE_S, *, quota: DiskQuota | None = None
    ) -> Answer:
        """Stores a report, whole or not at all. A repeated report is answered but not stored again.

        Raises FencedError if the attempt has ended or is not the current one, and OutOfOrderError if an
        earlier report is missing.
        """
        with self._db.write() as conn:
            job = lock_job(conn, job_id)
            found = _attempt(conn, job, report.attempt)
            if report.seq <= found.last_seq:
                return _answer(job, found.last_seq, quota)
            if found.state == "ended":
                raise _fenced(job, report.attempt)
            first = report.seq - report.joins + 1
            if first != found.last_seq + 1:
                raise OutOfOrderError(
                    f"report {first} came before report {found.last_seq + 1}", found.last_seq + 1
                )
            job = self._store(conn, job, found, report)
            job = self._measured(conn, job, report.disk, quota)
            values = {"last_seq": report.seq}
            conn.execute(update(attempts).where(*_mine(job)).values(values))
            if report.end is None:
                self._extend(conn, job, lease_s)
            else:
                job = end_attempt(
                    conn,
                    self._db,
                    job,
                    report.end.outcome,
                    "runner",
                    error=report.end.error,
                    result=report.end.result,
                    model=report.end.model,
                )
        return _answer(job, report.seq, quota)

    def _measured(self, conn: Connection, job: Job, disk: int | None, quota: DiskQuota | None) -> Job:
        if disk is None:
            return job
        if quota is None:
            return change(conn, self._db, job, disk_bytes=disk)
        return grant(conn, self._db, job, disk, quota)

    def _store(self, conn: Connection, job: Job, found: Attempt, report: Report) -> Job:
        db = self._db
        # Before an attempt begins to train, all metrics that it reports are those of earlier attempts.
        settled = _ALL_STEPS if found.from_step is None else found.from_step
        for entry in report.events:
            if entry["kind"] == "attempt_started":
                settled = int(entry["from_step"])
                rewind_metrics(conn, job, settled)
                values = {"state": "running", "from_step": settled}
                conn.execute(update(attempts).where(*_mine(job)).values(values))
                if job.state == "starting":
                    job = move(conn, db, job, "running", "runner")
        job = add_events(conn, db, job, report.events)
        job = add_metrics(conn, db, job, report.metrics, settled)
        if report.log:
            job = add_log(conn, db, job, report.log)
        if report.progress is not None:
            job = change(conn, db, job, progress=dict(report.progress))
        return job

    def _extend(self, conn: Connection, job: Job, lease_s: float) -> None:
        until = self._db.clock() + lease_s
        conn.execute(update(attempts).where(*_mine(job)).values(lease_expires_at=until))


def _mine(job: Job) -> tuple[Any, ...]:
    return attempts.c.job_id == job.id, attempts.c.attempt == job.attempt


def _job(conn: Connection, job_id: str) -> Job:
    row = conn.execute(select(jobs).where(jobs.c.id == job_id)).one_or_none()
    if row is None:
        raise NotFoundError(f"there is no job {job_id}")
    return Job.of(row)


def _attempt(conn: Connection, job: Job, attempt: int) -> Attempt:
    """The row of the job's current attempt. Raises FencedError if that is not `attempt`."""
    row = conn.execute(
        select(attempts).where(attempts.c.job_id == job.id, attempts.c.attempt == attempt)
    ).one_or_none()
    if row is None or attempt != job.attempt:
        raise _fenced(job, attempt)
    return Attempt.of(row)


def _current(conn: Connection, job: Job, attempt: int) -> Attempt:
    found = _attempt(conn, job, attempt)
    if found.state == "ended":
        raise _fenced(job, attempt)
    return found


def _fenced(job: Job, attempt: int) -> FencedError:
    now = f"attempt {job.attempt} has begun" if job.attempt != attempt else f"the job is {job.state}"
    return FencedError(f"attempt {attempt} of {job.id} is over: {now}. Stop")


def _answer(job: Job, received: int, quota: DiskQuota | None) -> Answer:
    disk = None if quota is None else job.disk_granted
    return Answer(received, states.command_for(job.state), job.workers, disk)
