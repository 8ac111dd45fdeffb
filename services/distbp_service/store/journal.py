"""Events, metrics and logs of a job: reading them, and the functions by which other modules write them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from sqlalchemy import Connection, Table, delete, insert, select, update

from distbp.client.names import JOB_ID, State
from distbp_service import states
from distbp_service.errors import NotFoundError
from distbp_service.states import Actor
from distbp_service.store.database import MOST, Database
from distbp_service.store.records import Event, Job, LogText, Metric
from distbp_service.store.schema import events, jobs, logs, metrics, projects

T = TypeVar("T", Event, Metric, LogText)
_HIGHEST = 2**63 - 1  # the largest integer in a database


class Journal:
    """Reads the journal of a job. Projects are not checked here: call `Jobs.get` first."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def events(self, job_id: str, *, after: int = 0, limit: int = 100) -> tuple[Event, ...]:
        """The events with a number above `after`, oldest first."""
        return self._after(events, Event, "number", job_id, after, limit)

    def metrics(
        self, job_id: str, *, start: int = 0, stop: int | None = None, points: int | None = None
    ) -> tuple[Metric, ...]:
        """The metrics of the steps `start` to `stop` (None: the last), both included, in the order of steps.
        points (at least 2): the most to return, evenly spread, with the first and the last; None: all."""
        where = [metrics.c.job_id == job_id, metrics.c.step >= min(start, _HIGHEST)]
        if stop is not None:
            where.append(metrics.c.step <= min(stop, _HIGHEST))
        query = select(metrics).where(*where).order_by(metrics.c.step)
        with self._db.read() as conn:
            if points is not None:
                steps = (
                    conn.execute(select(metrics.c.step).where(*where).order_by(metrics.c.step))
                    .scalars()
                    .all()
                )
                if len(steps) > points:
                    last = len(steps) - 1
                    kept = [steps[round(i * last / max(points - 1, 1))] for i in range(points)]
                    query = query.where(metrics.c.step.in_(kept))
            return tuple(Metric.of(row) for row in conn.execute(query))

    def metrics_after(self, job_id: str, serial: int = 0, *, limit: int = 100) -> tuple[Metric, ...]:
        """The metrics with a serial above `serial`, in the order of writing, for streams."""
        return self._after(metrics, Metric, "serial", job_id, serial, limit)

    def logs(self, job_id: str, *, after: int = 0, limit: int = 100) -> tuple[LogText, ...]:
        """The pieces of log with a number above `after`, oldest first."""
        return self._after(logs, LogText, "number", job_id, after, limit)

    def _after(
        self, table: Table, kind: type[T], counts: str, job_id: str, after: int, limit: int
    ) -> tuple[T, ...]:
        """The rows whose number in the column `counts` is above `after`, in the order of that number."""
        number = table.c[counts]
        query = select(table).where(table.c.job_id == job_id, number > min(after, _HIGHEST))
        with self._db.read() as conn:
            return tuple(map(kind.of, conn.execute(query.order_by(number).limit(min(limit, MOST)))))


# Writing: within a transaction, on a job that `lock_job` has locked. ----------------------------------------


def lock_job(conn: Connection, job_id: str, project: str | None = None) -> Job:
    """Returns the job and locks it until the transaction ends. project: None for callers that serve all
    projects. Raises NotFoundError."""
    return find_job(conn, job_id, project, locked=True)


def find_job(conn: Connection, job_id: str, project: str | None, *, locked: bool = False) -> Job:
    """Returns a job; see `lock_job`. Raises NotFoundError."""
    if not re.fullmatch(JOB_ID, job_id):
        raise NotFoundError("there is no job with such an id; job ids look like job_01j9ze3k8xq2v5w7y0ab")
    query = select(jobs).where(jobs.c.id == job_id)
    if project is not None:
        query = query.where(jobs.c.project == project)
    row = conn.execute(query.with_for_update() if locked else query).one_or_none()
    if row is None:
        raise NotFoundError(f"there is no job {job_id}")
    return Job.of(row)


def settle_disk(conn: Connection, project: str, more: int) -> None:
    """Adds `more` bytes to the disk use of the project's jobs that do not run."""
    if more:
        total = projects.c.disk_bytes + more
        conn.execute(update(projects).where(projects.c.name == project).values(disk_bytes=total))


def change(conn: Connection, db: Database, job: Job, **values: Any) -> Job:
    """Writes `values` into the row of `job`."""
    values = {**values, "updated_at": db.clock()}
    conn.execute(update(jobs).where(jobs.c.id == job.id).values(values))
    conn.info["touched"].add(job.id)
    return replace(job, **values)


def move(
    conn: Connection, db: Database, job: Job, to: State, by: Actor, reason: str | None = None, **values: Any
) -> Job:
    """Moves the job to another state and appends an event about it. Raises ConflictError if `by` may not."""
    states.check(job.state, to, by)
    told: dict[str, Any] = {"kind": "state", "from": job.state, "to": to, "by": by, "reason": reason}
    now = db.clock()
    if to in states.TERMINAL:
        values["finished_at"] = now
    if to == "queued":
        values["queued_at"] = now
    if to != "recovering":
        values["not_before"] = None
    if to not in states.ACTIVE:
        values |= {"slots_held": 0, "disk_granted": 0}
    if job.active != (to in states.ACTIVE):
        settle_disk(conn, job.project, job.disk_bytes if job.active else -job.disk_bytes)
    if values.get("error"):
        told["error"] = values["error"]
    job = change(conn, db, job, state=to, reason=reason, **values)
    return add_events(conn, db, job, [told])


def add_events(conn: Connection, db: Database, job: Job, found: Iterable[Mapping[str, Any]]) -> Job:
    """Appends events ({kind, ...}), numbered without gaps."""
    rows = []
    for number, entry in enumerate(found, job.event_count + 1):
        data = {key: value for key, value in entry.items() if key not in ("kind", "at")}
        at = entry.get("at", db.clock())
        rows.append(
            {
                "job_id": job.id,
                "number": number,
                "at": float(at),
                "attempt": job.attempt,
                "kind": str(entry["kind"]),
                "data": data,
            }
        )
    if not rows:
        return job
    conn.execute(insert(events), rows)
    return change(conn, db, job, event_count=job.event_count + len(rows))


def rewind_metrics(conn: Connection, job: Job, step: int) -> None:
    """Deletes the metrics of all steps above `step`."""
    conn.execute(delete(metrics).where(metrics.c.job_id == job.id, metrics.c.step > step))


def add_metrics(
    conn: Connection, db: Database, job: Job, found: Iterable[Mapping[str, Any]], settled: int
) -> Job:
    """Adds lines of metrics.jsonl. Up to the step `settled` a line is added only if its step has none: an
    earlier attempt has reported the others. Above it a line replaces that of the same step."""
    same: dict[str, Any] = {"job_id": job.id, "attempt": job.attempt}
    filled: list[dict[str, Any]] = []
    newer: list[dict[str, Any]] = []
    serial, furthest = job.metric_count, job.step
    for line in found:
        serial, step = serial + 1, int(line["step"])
        rows = filled if step <= settled else newer
        rows.append({**same, "step": step, "serial": serial, "data": dict(line)})
        furthest = max(furthest, step)
    insertion, keys = db.insert(metrics), [metrics.c.job_id, metrics.c.step]
    fresh = {name: insertion.excluded[name] for name in ("serial", "attempt", "data")}
    if filled:
        conn.execute(insertion.on_conflict_do_nothing(index_elements=keys), filled)
    if newer:
        conn.execute(insertion.on_conflict_do_update(index_elements=keys, set_=fresh), newer)
    return change(conn, db, job, metric_count=serial, step=furthest) if serial > job.metric_count else job


def add_log(conn: Connection, db: Database, job: Job, text: str) -> Job:
    number = job.log_count + 1
    row = {
        "job_id": job.id,
        "number": number,
        "at": db.clock(),
        "attempt": job.attempt,
        "text": _printable(text),
    }
    conn.execute(insert(logs), [row])
    return change(conn, db, job, log_count=number)


def _printable(text: str) -> str:
    """The text with replacements for the characters that PostgreSQL refuses: NUL and unpaired surrogates."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
