"""Jobs: submit, validate, list, get, cancel, pause, resume, scale, delete."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Header, Query, Response

from distbp.client.names import State
from distbp.job import TrainingJob
from distbp_service.api import schemas
from distbp_service.api.auth import Caller
from distbp_service.api.confine import check_data, check_room, slots_of
from distbp_service.api.routes import CallerArg, JobId, Route, ServiceArg, opens
from distbp_service.api.service import Service
from distbp_service.policy import Usage
from distbp_service.states import TERMINAL
from distbp_service.store import Job
from distbp_service.store.line import reasons

router = APIRouter(prefix="/v1", tags=["jobs"], route_class=Route)
Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        pattern=schemas.IDEMPOTENCY_KEY,
        description="the same key gives the same job, however often it is sent",
    ),
]


@router.post("/jobs", status_code=202, operation_id="submit_job", **opens("submit", 409, body="job"))
def submit(
    body: schemas.Submission, caller: CallerArg, service: ServiceArg, response: Response, key: Key = None
) -> schemas.JobOut:
    """Queues a job. Its faults are all named at once; with an Idempotency-Key it may be sent again."""
    job = _checked(service, caller, body.job)
    limits, (least, most) = service.config.limits, slots_of(job)
    canonical = json.dumps(body.model_dump(), sort_keys=True, separators=(",", ":"))
    found, new = service.store.jobs.submit(
        caller.project,
        job.to_mapping(),
        digest=job.digest,
        submitted_by=caller.token.id if caller.token else None,
        key=key,
        body_sha256=hashlib.sha256(canonical.encode()).hexdigest(),
        priority=body.priority,
        slots=least,
        slots_most=most,
        deadline_s=limits.deadline_s if body.deadline_s is None else body.deadline_s,
        most_waiting=limits.waiting_jobs,
        most_disk=limits.disk.project,
    )
    response.headers["Location"] = f"/v1/jobs/{found.id}"
    if not new:
        response.headers["Idempotency-Replayed"] = "true"
    return _out(service, found)


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
    name: Annotated[str | None, Query(pattern=schemas.NAME_PART, description="text in the name")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
    cursor: Annotated[str | None, Query(pattern=schemas.ID_OF_JOB)] = None,
) -> schemas.JobPage:
    """The project's jobs, newest first."""
    found = service.store.jobs.page(
        caller.project, states=tuple(state or ()), name=name, limit=limit, cursor=cursor
    )
    why = reasons(service.store.db, caller.project, found.items)
    items = [schemas.JobOut.of(job, why.get(job.id)) for job in found.items]
    return schemas.JobPage(items=items, cursor=found.cursor)


@router.get("/jobs/{job_id}", operation_id="get_job", **opens("read", 404))
def get(job_id: JobId, caller: CallerArg, service: ServiceArg) -> schemas.JobDetail:
    """All about one job: with what was submitted, its result, its model and its attempts."""
    job = service.store.jobs.get(caller.project, job_id)
    model = service.store.models.of_job(caller.project, job_id)
    attempts = [schemas.AttemptOut.of(one) for one in service.store.jobs.attempts(caller.project, job_id)]
    why = reasons(service.store.db, caller.project, [job]).get(job_id)
    return schemas.JobDetail.with_all(job, why, None if model is None else model.id, attempts)


@router.delete("/jobs/{job_id}", status_code=204, operation_id="delete_job", **opens("manage", 404, 409))
def delete(job_id: JobId, caller: CallerArg, service: ServiceArg) -> None:
    """Removes a job that has ended, with its checkpoints. Its model stays, until it is deleted itself."""
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
    return _out(service, service.store.jobs.scale(caller.project, job_id, body.workers, told))


@router.get("/usage", operation_id="get_usage", **opens("read"))
def usage(caller: CallerArg, service: ServiceArg) -> schemas.UsageOut:
    """What the project uses, and the most that it may use."""
    store, limits, project = service.store, service.config.limits, caller.project
    held, room = store.queue.used().get(project, Usage()), store.queue.room()
    counts = store.jobs.counts(project)
    waiting = sum(number for state, number in counts.items() if state not in TERMINAL)
    return schemas.UsageOut(
        project=project,
        slots=schemas.Share(used=held.slots, most=None if room is None else room.widest),
        running=schemas.Share(used=held.jobs, most=None if room is None else room.project_jobs),
        waiting=schemas.Share(used=waiting, most=limits.waiting_jobs),
        disk_bytes=schemas.Share(used=store.disk_bytes(project), most=limits.disk.project),
        deadline_s=limits.deadline_s,
    )


def _out(service: Service, job: Job) -> schemas.JobOut:
    return schemas.JobOut.of(job, reasons(service.store.db, job.project, [job]).get(job.id))


def _checked(service: Service, caller: Caller, fields: schemas.Object) -> TrainingJob:
    job = TrainingJob.from_mapping(fields)
    check_data(job, caller.project, service.store, service.config.data_folder)
    check_room(job, caller.project, service.store)
    return job


def _asked(
    service: Service, caller: Caller, job_id: str, ask: Callable[[str, str, str], Job], done: str
) -> schemas.JobOut:
    return _out(service, ask(caller.project, job_id, f"{done} by {caller.name}"))
