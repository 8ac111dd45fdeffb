"""Ends attempts, and moves their jobs to the next state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, update

from distbp_service.policy import BUDGETS, Outcome, after_attempt
from distbp_service.states import Actor
from distbp_service.store.database import Database
from distbp_service.store.journal import change, move
from distbp_service.store.records import Job, new_id
from distbp_service.store.schema import attempts, models

DEADLINE = "deadline"  # the code of the error of a job that ran out of time


def end_attempt(
    conn: Connection,
    db: Database,
    job: Job,
    outcome: Outcome,
    by: Actor,
    *,
    error: Mapping[str, Any] | None = None,
    result: Mapping[str, Any] | None = None,
    model: Mapping[str, Any] | None = None,
) -> Job:
    """Ends the current attempt of `job` (locked). Later writes of this attempt are fenced.

    error: {class, code, message} if `outcome` is "failed".
    """
    now = db.clock()
    conn.execute(
        update(attempts)
        .where(attempts.c.job_id == job.id, attempts.c.attempt == job.attempt)
        .values(state="ended", ended_at=now, outcome=outcome, error=error, claim_sha256=None)
    )
    overdue = bool(job.error) and (job.error or {}).get("code") == DEADLINE
    kind = None if error is None else str(error.get("class"))
    ending = after_attempt(
        job.state,
        outcome,
        kind,
        job.failures,
        progressed=job.step > job.failed_step,
        overdue=overdue,
    )
    values: dict[str, Any] = {"failures": dict(ending.failures)}
    reason = None
    if outcome == "failed":
        values["failed_step"] = job.step
        reason = str((error or {}).get("message", "the runner failed"))
        if ending.state == "failed" and not overdue:
            values["error"] = {**(error or {}), "class": kind if kind in BUDGETS else "internal"}
    if ending.state == "failed" and overdue:
        reason = str((job.error or {}).get("message"))
    if ending.state == "completed":
        values["result"], values["error"] = result, None
    if ending.state == "recovering":
        values["not_before"] = now + ending.wait_s
    job = move(conn, db, job, ending.state, by, reason, **values)
    if ending.state == "completed" and model is not None:
        _add_model(conn, db, job, model)
    return job


def fail_overdue(conn: Connection, db: Database, job: Job) -> Job:
    """Fails a job that is past its deadline. If a runner works on the job, it is first told to stop."""
    assert job.deadline_at is not None
    error = {
        "class": "user",
        "code": DEADLINE,
        "message": f"the job did not end within {job.deadline_at - job.created_at:g} s of being submitted;"
        " submit it again with a later deadline",
    }
    if job.state == "cancelling":  # it ends soon
        return change(conn, db, job, deadline_at=None)
    to: Any = "cancelling" if job.active else "failed"
    return move(conn, db, job, to, "dispatcher", error["message"], error=error, deadline_at=None)


def _add_model(conn: Connection, db: Database, job: Job, model: Mapping[str, Any]) -> None:
    now = db.clock()
    row = {
        "id": new_id("mdl_", now),
        "project": job.project,
        "job_id": job.id,
        "name": job.name,
        "path": str(model["path"]),
        "bytes": int(model.get("bytes", 0)),
        "info": {key: value for key, value in model.items() if key not in ("path", "bytes")},
        "created_at": now,
    }
    db.insert_new(conn, models, row)
