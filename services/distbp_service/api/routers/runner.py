"""The routes for runners (see distbp_service.reports). The token decides which attempt calls."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request
from starlette.responses import StreamingResponse

from distbp_service.api import runner_schemas, schemas
from distbp_service.api.auth import PUBLIC, RUNNER, Caller, address
from distbp_service.api.places import contents, open_file
from distbp_service.api.routes import CallerArg, JobId, Route, ServiceArg, opens
from distbp_service.errors import BadValueError, FencedError, NotFoundError
from distbp_service.reports import Answer, Report

router = APIRouter(prefix="/v1/runner", tags=["runner"], route_class=Route)


@router.post("/claims", operation_id="claim", **opens(PUBLIC, 409, body="small"))
def claim(body: runner_schemas.ClaimIn, request: Request, service: ServiceArg) -> runner_schemas.ClaimOut:
    """Exchanges a claim code, once, for the token of an attempt."""
    try:
        return runner_schemas.ClaimOut(token=service.store.runs.claim(body.job, body.attempt, body.code))
    except FencedError:
        service.failures.take(address(request))
        raise


@router.get("/jobs/{job_id}", operation_id="get_assignment", **opens(RUNNER, 404, 409))
def assignment(job_id: JobId, caller: CallerArg, service: ServiceArg) -> runner_schemas.AssignmentOut:
    """What the attempt is to do."""
    _own(caller, job_id)
    quota = service.config.limits.disk
    return runner_schemas.AssignmentOut(
        **service.store.runs.assignment(job_id, caller.attempt, quota).to_json()
    )


@router.post("/jobs/{job_id}/reports", operation_id="report", **opens(RUNNER, 404, 409, body="report"))
def report(
    job_id: JobId, body: runner_schemas.ReportIn, caller: CallerArg, service: ServiceArg
) -> runner_schemas.AnswerOut:
    """Stores a report, once; the answer says what to do."""
    _own(caller, job_id, body.attempt)
    _check_model(body, job_id)
    answer = service.store.runs.report(
        job_id,
        Report.from_json(body.model_dump(exclude_unset=True)),
        service.config.lease_s,
        quota=service.config.limits.disk,
    )
    return _answered(answer)


@router.post("/jobs/{job_id}/heartbeats", operation_id="heartbeat", **opens(RUNNER, 404, 409, body="small"))
def heartbeat(
    job_id: JobId, body: runner_schemas.HeartbeatIn, caller: CallerArg, service: ServiceArg
) -> runner_schemas.AnswerOut:
    """The runner lives; the answer says what to do."""
    _own(caller, job_id, body.attempt)
    return _answered(
        service.store.runs.heartbeat(
            job_id,
            caller.attempt,
            body.progress,
            service.config.lease_s,
            disk=body.disk,
            quota=service.config.limits.disk,
        )
    )


_DATASET = opens(RUNNER, 404, 409)
_DATASET["responses"][200] = {
    "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
}


@router.get(
    "/jobs/{job_id}/datasets/{dataset_id}",
    operation_id="fetch_dataset",
    response_class=StreamingResponse,
    **_DATASET,
)
def dataset(
    job_id: JobId,
    dataset_id: Annotated[str, Path(pattern=schemas.DATASET_ID)],
    caller: CallerArg,
    service: ServiceArg,
) -> StreamingResponse:
    """The bytes of a dataset that the job names."""
    _own(caller, job_id)
    job = service.store.runs.check(job_id, caller.attempt)
    sources = [source for source in job.job.get("data", {}).values() if isinstance(source, dict)]
    named = {str(source.get("path")).partition("/")[0] for source in sources}
    if f"dataset:{dataset_id}" not in named:
        raise NotFoundError("the job names no such dataset")
    found = service.store.datasets.get(job.project, dataset_id)
    handle = open_file(service.places.dataset(dataset_id))
    headers = {"Content-Length": str(found.bytes)}
    return StreamingResponse(contents(handle), media_type="application/octet-stream", headers=headers)


def _own(caller: Caller, job_id: str, attempt: int | None = None) -> None:
    if caller.job_id != job_id:
        raise NotFoundError("the token is of another job")
    if attempt is not None and attempt != caller.attempt:
        raise FencedError(f"the token is of attempt {caller.attempt}, not {attempt}. Stop")


def _check_model(body: runner_schemas.ReportIn, job_id: str) -> None:
    """Raises BadValueError if a reported model is not in the folder of its job."""
    if body.end is None or body.end.model is None:
        return
    parts = body.end.model.path.split("/")
    if parts[0] != job_id or not all(part not in ("", ".", "..") for part in parts):
        raise BadValueError("the model is not in the folder of its job", "end.model.path")


def _answered(answer: Answer) -> runner_schemas.AnswerOut:
    return runner_schemas.AnswerOut.model_validate(answer.to_json())
