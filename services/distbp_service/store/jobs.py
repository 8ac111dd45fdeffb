"""A project's calls on its jobs: submit, list, get, cancel, pause, resume, scale, delete."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select

from distbp.client.names import STATES, State
from distbp_service import states
from distbp_service.errors import BadValueError, ConflictError, NotFoundError
from distbp_service.policy import Room, slots_for, turns
from distbp_service.states import TERMINAL
from distbp_service.store.database import Database, clean, page_of
from distbp_service.store.disk import disk_bytes
from distbp_service.store.journal import add_events, change, find_job, lock_job, move, settle_disk
from distbp_service.store.line import heads, read_room, usage
from distbp_service.store.records import Attempt, Job, Page, Pulse, new_id
from distbp_service.store.schema import attempts, events, idempotency_keys, jobs, logs, metrics, projects


class Jobs:
    """Every method takes the project of the caller. It raises NotFoundError for jobs of other projects."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def submit(
        self,
        project: str,
        job: Mapping[str, Any],
        *,
        digest: str,
        submitted_by: str | None = None,
        key: str | None = None,
        body_sha256: str = "",
        priority: int = 0,
        slots: int = 1,
        slots_most: int | None = None,
        deadline_s: float | None = None,
        most_waiting: int | None = None,
        most_disk: int | None = None,
    ) -> tuple[Job, bool]:
        """Queues a job (TrainingJob.to_mapping()). Returns its record, and whether it is new.

        key, body_sha256: of the request. A repeated key returns the first job; with another body it raises
        ConflictError. slots: the fewest that the job runs with. slots_most: the most that it takes if they
        are free (None: `slots`). deadline_s: seconds from now after which the job fails if it has not ended.
        most_waiting: the most jobs of the project that have not ended. most_disk: the most bytes of the
        project. Raises ConflictError if the project has reached one of the two.
        """
        db = self._db
        now = db.clock()
        job_id = new_id("job_", now)
        with db.write() as conn:
            if key is not None:
                claim = {
                    "project": project,
                    "key": clean(key, "Idempotency-Key"),
                    "body_sha256": body_sha256,
                    "job_id": job_id,
                    "created_at": now,
                }
                if not db.insert_new(conn, idempotency_keys, claim):
                    row = conn.execute(
                        select(idempotency_keys).where(
                            idempotency_keys.c.project == project, idempotency_keys.c.key == key
                        )
                    ).one()
                    if row.body_sha256 != body_sha256:
                        raise ConflictError(
                            "this Idempotency-Key was used for another job; use a new key for a new job",
                            "Idempotency-Key",
                        )
                    return _again(conn, project, row.job_id), False
            if most_waiting is not None:
                waiting = conn.execute(
                    select(func.count())
                    .select_from(jobs)
                    .where(jobs.c.project == project, jobs.c.state.not_in(TERMINAL))
                ).scalar_one()
                if waiting >= most_waiting:
                    raise ConflictError(
                        f"the project has {waiting} jobs that have not ended, and may have {most_waiting};"
                        " wait for some, or cancel them"
                    )
            if most_disk is not None and (filled := disk_bytes(conn, project)) >= most_disk:
                raise ConflictError(
                    f"the project fills {filled:,} bytes of disk, and may fill {most_disk:,}; delete jobs,"
                    " models or datasets"
                )
            db.insert_new(conn, projects, {"name": project, "created_at": now, "disk_bytes": 0})
            row_values = {
                "id": job_id,
                "project": project,
                "name": str(job.get("name", "job")),
                "state": "queued",
                "job": dict(job),
                "digest": digest,
                "priority": priority,
                "slots": slots,
                "slots_most": max(slots, slots_most or slots),
                "slots_held": 0,
                "disk_bytes": 0,
                "disk_granted": 0,
                "submitted_by": submitted_by,
                "created_at": now,
                "updated_at": now,
                "queued_at": now,
                "deadline_at": None if deadline_s is None else now + deadline_s,
                "attempt": 0,
                "failures": {},
                "failed_step": 0,
                "step": 0,
                "event_count": 0,
                "metric_count": 0,
                "log_count": 0,
            }
            conn.execute(insert(jobs), [row_values])
            found = find_job(conn, job_id, project)
            told = {"kind": "state", "from": None, "to": "queued", "by": "user", "reason": "submitted"}
            return add_events(conn, db, found, [told]), True

    def get(self, project: str, job_id: str) -> Job:
        with self._db.read() as conn:
            return find_job(conn, job_id, project)

    def page(
        self,
        project: str,
        *,
        states: Collection[State] = (),
        name: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page[Job]:
        """The project's jobs, newest first. states: empty for all. name: a part of the name, in upper or
        lower case. cursor: as the previous page gave it. Raises BadValueError for a bad cursor."""
        query = select(jobs).where(jobs.c.project == project)
        if states:
            query = query.where(jobs.c.state.in_(states))
        if name:
            wanted = clean(name, "name").lower()
            query = query.where(func.lower(jobs.c.name).contains(wanted, autoescape=True))
        rows, more = page_of(self._db, query, jobs.c.id, cursor, limit, newest_first=True)
        return Page(tuple(map(Job.of, rows)), more)

    def attempts(self, project: str, job_id: str) -> tuple[Attempt, ...]:
        """The attempts of a job, oldest first."""
        with self._db.read() as conn:
            find_job(conn, job_id, project)
            rows = conn.execute(
                select(attempts).where(attempts.c.job_id == job_id).order_by(attempts.c.attempt)
            )
            return tuple(Attempt.of(row) for row in rows)

    def pulses(self, job_ids: Collection[str]) -> dict[str, Pulse]:
        """The pulses of the jobs that exist, by id, from one query. Streams use it to notice writes of other
        processes (see also `Store.listen`)."""
        columns = [jobs.c[name] for name in Pulse.__dataclass_fields__]
        with self._db.read() as conn:
            rows = conn.execute(select(*columns).where(jobs.c.id.in_(job_ids)))
            return {row.id: Pulse.of(row) for row in rows}

    def counts(self, project: str | None = None) -> dict[str, int]:
        """The number of jobs in each state, 0 included. project: None for all projects."""
        query = select(jobs.c.state, func.count().label("number")).group_by(jobs.c.state)
        if project is not None:
            query = query.where(jobs.c.project == project)
        with self._db.read() as conn:
            found = {row.state: row.number for row in conn.execute(query)}
        return {state: found.get(state, 0) for state in STATES}

    def cancel(self, project: str, job_id: str, reason: str | None = None) -> Job:
        """Cancels a job. If a runner works on it, the runner is told to stop first. May be repeated. Raises
        ConflictError if the job has ended."""
        return self._ask(project, job_id, states.after_cancel, reason or "cancelled by the user")

    def pause(self, project: str, job_id: str, reason: str | None = None) -> Job:
        """Pauses a job. If a runner works on it, the runner leaves a checkpoint first. May be repeated."""
        return self._ask(project, job_id, states.after_pause, reason or "paused by the user")

    def resume(self, project: str, job_id: str, reason: str | None = None) -> Job:
        """Queues a paused job again; it goes on from its last checkpoint. May be repeated."""
        return self._ask(project, job_id, states.after_resume, reason or "resumed by the user")

    def scale(self, project: str, job_id: str, workers: int, reason: str | None = None) -> Job:
        """Gives a job `workers` workers from now on. Its result stays the same to the bit.

        Raises BadValueError if that needs more slots than a job can ever have, and ConflictError if the job
        has ended, or if it runs and the slots are not free.
        """
        with self._db.write() as conn:
            self._db.lock_all(conn)  # this may take slots, as a dispatcher does
            job = lock_job(conn, job_id, project)
            slots = slots_for(workers, int(job.job.get("servers", 1)))
            if job.ended:
                raise ConflictError(f"the job has ended ({job.state}) and cannot be scaled")
            room = read_room(conn)
            if room is not None:
                _check_room(conn, job, workers, slots, room)
            held = {"slots_held": slots} if job.active else {}
            job = change(conn, self._db, job, workers=workers, slots=slots, slots_most=slots, **held)
            told = {} if reason is None else {"reason": reason}
            return add_events(conn, self._db, job, [{"kind": "scaled", "workers": workers, **told}])

    def delete(self, project: str, job_id: str) -> Job:
        """Deletes the records of a job that has ended, except its model's. Returns the deleted job; the
        caller removes its files. Raises ConflictError if the job has not ended."""
        with self._db.write() as conn:
            job = lock_job(conn, job_id, project)
            if not job.ended:
                raise ConflictError(f"the job is {job.state}; cancel it before you delete it")
            for table in (events, metrics, logs, attempts):
                conn.execute(delete(table).where(table.c.job_id == job_id))
            conn.execute(delete(jobs).where(jobs.c.id == job_id))
            settle_disk(conn, project, -job.disk_bytes)
            conn.info["touched"].add(job_id)
            return job

    def _ask(self, project: str, job_id: str, where: Any, reason: str) -> Job:
        with self._db.write() as conn:
            job = lock_job(conn, job_id, project)
            to: State = where(job.state)
            return job if to == job.state else move(conn, self._db, job, to, "user", reason)


def _check_room(conn: Connection, job: Job, workers: int, slots: int, room: Room) -> None:
    """Raises BadValueError or ConflictError if a job may not be scaled to `workers`, which need `slots`."""
    if slots > room.widest:
        whose = "the service has" if room.widest == room.slots else "a project may have"
        raise BadValueError(
            f"{workers:,} workers need {slots:,} slots, and {whose} {room.widest:,}; ask for fewer", "workers"
        )
    more = slots - job.slots_held
    if not job.active or more <= 0:
        return
    used = usage(conn)
    free = room.slots - sum(one.slots for one in used.values())
    own = room.project_slots - used[job.project].slots
    others = [h for h in turns(heads(conn, used, room.widest), room) if h.project != job.project]
    if more > min(free, own) or others:
        why = "jobs of other projects wait for slots" if others else f"{max(0, min(free, own)):,} are free"
        raise ConflictError(
            f"the job has {job.slots_held:,} slots and would need {more:,} more, but {why}; ask for fewer, or"
            " pause it, scale it and resume it, and it waits for its turn",
            "workers",
        )


def _again(conn: Connection, project: str, job_id: str) -> Job:
    try:
        return find_job(conn, job_id, project)
    except NotFoundError:
        raise ConflictError(
            "the job of this Idempotency-Key was deleted; use a new key for a new job", "Idempotency-Key"
        ) from None
