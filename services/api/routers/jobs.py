"""Jobs: submit, validate, list, get, cancel, pause, resume, scale, delete."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Header, Path, Query, Response

from distbp.job import TrainingJob
from services.api import schemas
from services.api.auth import Caller
from services.api.confine import check_data, slots_of
from services.api.routes import CallerArg, Route, ServiceArg, opens
from services.api.service import Service
from services.states import State
from services.store import Job

router = APIRouter(prefix="/v1", tags=["jobs"], route_class=Route)
JobId = Annotated[str, Path(pattern=schemas.JOB_ID)]
Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        pattern=r"^[\x21-\x7e]{1,200}$",
        description="the same key gives the same job, however often it is sent",
    ),
]


@router.post("/jobs", status_code=202, operation_id="submit_job", **opens("submit", 409, body="job"))
def submit(
    body: schemas.Submission, caller: CallerArg, service: ServiceArg, response: Response, key: Key = None
) -> schemas.JobOut:
    """Queues a job. Its faults are all named at once; with an Idempotency-Key it may be sent again."""
    job = _checked(service, caller, body.job)
    canonical = json.dumps(body.model_dump(), sort_keys=True, separators=(",", ":"))
    found, new = service.store.jobs.submit(
        caller.project,
        job.to_mapping(),
        digest=job.digest,
        submitted_by=caller.token.id if caller.token else None,
        key=key,
        body_sha256=hashlib.sha256(canonical.encode()).hexdigest(),
        priority=body.priority,
        slots=slots_of(job),
        deadline_s=body.deadline_s,
        most_waiting=service.config.limits.waiting_jobs,
    )
    response.headers["Location"] = f"/v1/jobs/{found.id}"
    if not new:
        response.headers["Idempotency-Replayed"] = "true"
    return schemas.JobOut.of(found)


@router.post("/jobs:validate", operation_id="validate_job", **opens("read", body="job"))
def validate(body: schemas.Validation, caller: CallerArg, service: ServiceArg) -> schemas.Valid:
    """Checks a job as submitting does, and queues nothing."""
    job = _checked(service, caller, body.job)
    return schemas.Valid(digest=job.digest, job=job.to_mapping())


@router.get("/jobs", operation_id="list_jobs", **opens("read"))
def page(
    caller: CallerArg,
    service: ServiceArg,
    state: Annotated[list[State] | None, Query(max_length=10)] = None,
    name: Annotated[
        str | None, Query(pattern=r"^[A-Za-z0-9 ._-]{1,100}$", description="text in the name")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
    cursor: Annotated[str | None, Query(pattern=schemas.JOB_ID)] = None,
) -> schemas.JobPage:
    """The project's jobs, newest first."""
    found = service.store.jobs.page(
        caller.project, states=tuple(state or ()), name=name, limit=limit, cursor=cursor
    )
    return schemas.JobPage(items=[schemas.JobOut.of(job) for job in found.items], cursor=found.cursor)


@router.get("/jobs/{job_id}", operation_id="get_job", **opens("read", 404))
def get(job_id: JobId, caller: CallerArg, service: ServiceArg) -> schemas.JobDetail:
    """All about one job: with what was submitted, its result, its model and its attempts."""
    job = service.store.jobs.get(caller.project, job_id)
    model = service.store.models.of_job(caller.project, job_id)
    attempts = [
        schemas.AttemptOut(**{name: getattr(attempt, name) for name in schemas.AttemptOut.model_fields})
        for attempt in service.store.jobs.attempts(caller.project, job_id)
    ]
    return schemas.JobDetail.with_all(job, None if model is None else model.id, attempts)


@router.delete("/jobs/{job_id}", status_code=204, operation_id="delete_job", **opens("manage", 404, 409))
def delete(job_id: JobId, caller: CallerArg, service: ServiceArg) -> None:
    """Removes a job that has ended, with its checkpoints. Its model stays."""
    model = service.store.models.of_job(caller.project, job_id)
    service.store.jobs.delete(caller.project, job_id)
    service.places.remove_job(job_id, keep_model=model is not None)


@router.post("/jobs/{job_id}:cancel", status_code=202, operation_id="cancel_job", **opens("manage", 404, 409))
def cancel(job_id: JobId, caller: CallerArg, service: ServiceArg) -> schemas.JobOut:
    """Cancels a job, or begins to where a runner works on it. Fine to repeat."""
    return _asked(service, caller, job_id, service.store.jobs.cancel, "cancelled")


@router.post("/jobs/{job_id}:pause", status_code=202, operation_id="pause_job", **opens("manage", 404, 409))
def pause(job_id: JobId, caller: CallerArg, service: ServiceArg) -> schemas.JobOut:
    """Pauses a job, or begins to: its runner leaves a checkpoint first. Fine to repeat."""
    return _asked(service, caller, job_id, service.store.jobs.pause, "paused")


@router.post("/jobs/{job_id}:resume", status_code=202, operation_id="resume_job", **opens("manage", 404, 409))
def resume(job_id: JobId, caller: CallerArg, service: ServiceArg) -> schemas.JobOut:
    """Queues a paused job again, to go on from its last checkpoint. Fine to repeat."""
    return _asked(service, caller, job_id, service.store.jobs.resume, "resumed")


@router.post(
    "/jobs/{job_id}:scale",
    status_code=202,
    operation_id="scale_job",
    **opens("manage", 404, 409, body="small"),
)
def scale(job_id: JobId, body: schemas.Scaling, caller: CallerArg, service: ServiceArg) -> schemas.JobOut:
    """Gives a job another number of workers; it ends with the same bits."""
    told = f"scaled by {caller.name}"
    return schemas.JobOut.of(service.store.jobs.scale(caller.project, job_id, body.workers, told))


def _checked(service: Service, caller: Caller, fields: schemas.Object) -> TrainingJob:
    job = TrainingJob.from_mapping(fields)
    check_data(job, caller.project, service.store, service.config.data_folder)
    return job


def _asked(
    service: Service, caller: Caller, job_id: str, ask: Callable[[str, str, str], Job], done: str
) -> schemas.JobOut:
    return schemas.JobOut.of(ask(caller.project, job_id, f"{done} by {caller.name}"))
