"""A dispatcher's calls, for all projects: lease jobs, watch attempts, give up on them, queue jobs again.

All of its state is in the store, so a new dispatcher can replace one that was killed. Two at the same time do
no harm.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, and_, insert, select, update

from distbp.client.names import State
from distbp_service.errors import FencedError
from distbp_service.policy import Room, Usage, choose
from distbp_service.states import TERMINAL
from distbp_service.store.database import Database, sha256
from distbp_service.store.endings import end_attempt, fail_overdue
from distbp_service.store.journal import add_events, lock_job, move
from distbp_service.store.line import heads, read_room, usage
from distbp_service.store.records import Attempt, Job, Lease
from distbp_service.store.schema import attempts, jobs, projects
from distbp_service.store.schema import room as room_table

BATCH = 100  # jobs handled by one call of `requeue_due` and `overdue`


@dataclass(frozen=True)
class Working:
    """An attempt that has not ended, and the state of its job."""

    attempt: Attempt
    state: State


class Queue:
    def __init__(self, db: Database) -> None:
        self._db = db

    def announce(self, room: Room, memory_bytes: int | None = None) -> None:
        """Records the slots for all jobs. The API uses them to say whether a job can ever start, and why it
        waits. memory_bytes: of the machine on which runners run; None: not known."""
        values = {**asdict(room), "memory_bytes": memory_bytes}
        with self._db.write() as conn:
            self._db.insert_new(conn, room_table, {"number": 1, **values})
            conn.execute(update(room_table).values(values))

    def room(self) -> Room | None:
        """The room that the dispatcher announced; None if none has run yet."""
        with self._db.read() as conn:
            return read_room(conn)

    def memory_bytes(self) -> int | None:
        """The memory of the machine on which runners run; None if it is not known."""
        with self._db.read() as conn:
            found: int | None = conn.execute(select(room_table.c.memory_bytes)).scalar_one_or_none()
        return found

    def lease(self, room: Room | int, lease_s: float) -> Lease | None:
        """Leases the next job (see `policy.choose`) for a new attempt; None if no job waits or fits. room:
        the limits for all jobs, or just the number of slots. lease_s: how long the lease lasts."""
        db = self._db
        room = Room(room) if isinstance(room, int) else room
        with db.write() as conn:
            db.lock_all(conn)  # the room is counted and taken by one dispatcher at a time
            used = usage(conn)
            free = room.slots - sum(one.slots for one in used.values())
            chosen = choose(heads(conn, used, room.widest), room, free)
            if chosen is None:
                return None
            head, slots = chosen
            job = lock_job(conn, head.job_id)
            if job.state != "queued":  # its user has just paused or cancelled it
                return None
            now = db.clock()
            attempt, expires = job.attempt + 1, now + lease_s
            row = {
                "job_id": job.id,
                "attempt": attempt,
                "state": "starting",
                "started_at": now,
                "lease_expires_at": expires,
                "last_seq": 0,
            }
            conn.execute(insert(attempts), [row])
            conn.execute(update(projects).where(projects.c.name == job.project).values(served_at=now))
            started = job.started_at if job.started_at is not None else now
            job = move(
                conn,
                db,
                job,
                "starting",
                "dispatcher",
                None,
                attempt=attempt,
                started_at=started,
                progress=None,
                slots_held=slots,
            )
        return Lease(job, attempt, expires)

    def issue_token(self, job_id: str, attempt: int) -> str:
        """Makes the runner token of an attempt: `dbr_<job>_<attempt>_<secret>`. An earlier token of the same
        attempt becomes invalid. Raises FencedError."""
        secret = secrets.token_urlsafe(32)
        self._write_attempt(job_id, attempt, token_sha256=sha256(secret))
        return f"dbr_{job_id}_{attempt}_{secret}"

    def issue_claim(self, job_id: str, attempt: int, valid_s: float) -> str:
        """Makes a code that `Runs.claim` exchanges for the runner token, once, within `valid_s` seconds.
        Raises FencedError."""
        code = secrets.token_urlsafe(32)
        until = self._db.clock() + valid_s
        self._write_attempt(job_id, attempt, claim_sha256=sha256(code), claim_expires_at=until)
        return code

    def started(self, job_id: str, attempt: int, handle: Mapping[str, Any]) -> None:
        """Stores the handle by which the launcher finds the runner again. Raises FencedError."""
        self._write_attempt(job_id, attempt, handle=dict(handle))

    def working(self) -> tuple[Working, ...]:
        """Every attempt that has not ended, oldest first."""
        query = (
            select(attempts, jobs.c.state.label("job_state"))
            .join(jobs, and_(jobs.c.id == attempts.c.job_id, jobs.c.attempt == attempts.c.attempt))
            .where(attempts.c.state.in_(("starting", "running")))
            .order_by(attempts.c.started_at, attempts.c.job_id)
        )
        with self._db.read() as conn:
            return tuple(Working(Attempt.of(row), row.job_state) for row in conn.execute(query))

    def lost(
        self, job_id: str, attempt: int, error: Mapping[str, Any], *, expired_before: float | None = None
    ) -> Job | None:
        """Ends an attempt whose runner is gone or could not be started. Its job recovers, pauses, is
        cancelled or fails. error: {class, code, message}. expired_before: does nothing if the lease ends
        after this time.

        Returns the job; None if the attempt has ended meanwhile or its lease was extended.
        """
        with self._db.write() as conn:
            job = lock_job(conn, job_id)
            found = _attempt(conn, job_id, attempt)
            if job.attempt != attempt or found.state == "ended":
                return None
            if expired_before is not None and found.lease_expires_at > expired_before:
                return None
            return end_attempt(conn, self._db, job, "failed", "dispatcher", error=error)

    def extend_leases(self, lease_s: float) -> None:
        """Extends every lease to at least `lease_s` seconds from now, because runners could not report."""
        until = self._db.clock() + lease_s
        late = (attempts.c.state.in_(("starting", "running")), attempts.c.lease_expires_at < until)
        with self._db.write() as conn:
            conn.execute(update(attempts).where(*late).values(lease_expires_at=until))

    def requeue_due(self) -> tuple[Job, ...]:
        """Queues jobs again that have waited long enough after a failure."""
        due = select(jobs.c.id).where(jobs.c.state == "recovering", jobs.c.not_before <= self._db.clock())
        return self._each(
            due, "recovering", lambda conn, job: move(conn, self._db, job, "queued", "dispatcher")
        )

    def overdue(self) -> tuple[Job, ...]:
        """Fails jobs that are past their deadline, or tells their runners to stop."""
        now = self._db.clock()
        due = select(jobs.c.id).where(jobs.c.deadline_at <= now, jobs.c.state.not_in(TERMINAL))
        return self._each(due, None, lambda conn, job: fail_overdue(conn, self._db, job))

    def used(self) -> dict[str, Usage]:
        """The usage of every project, by name."""
        with self._db.read() as conn:
            return usage(conn)

    def _each(self, query: Any, state: State | None, act: Any) -> tuple[Job, ...]:
        with self._db.read() as conn:
            ids = conn.execute(query.order_by(jobs.c.id).limit(BATCH)).scalars().all()
        done = []
        for job_id in ids:
            with self._db.write() as conn:
                job = lock_job(conn, job_id)
                if (state is None and not job.ended) or job.state == state:
                    done.append(act(conn, job))
        return tuple(done)

    def _write_attempt(self, job_id: str, attempt: int, **values: Any) -> None:
        mine = (attempts.c.job_id == job_id, attempts.c.attempt == attempt, attempts.c.state != "ended")
        with self._db.write() as conn:
            if conn.execute(update(attempts).where(*mine).values(values)).rowcount == 0:
                raise FencedError(f"attempt {attempt} of {job_id} has ended")

    def note(self, job_id: str, event: Mapping[str, Any]) -> None:
        """Appends an event of the dispatcher to the job."""
        with self._db.write() as conn:
            add_events(conn, self._db, lock_job(conn, job_id), [event])


def _attempt(conn: Connection, job_id: str, attempt: int) -> Attempt:
    row = conn.execute(
        select(attempts).where(attempts.c.job_id == job_id, attempts.c.attempt == attempt)
    ).one_or_none()
    if row is None:
        raise FencedError(f"{job_id} has no attempt {attempt}")
    return Attempt.of(row)
