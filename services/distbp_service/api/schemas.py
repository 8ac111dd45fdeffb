"""The schemas of the API's requests and answers. Times are seconds since 1970 (UTC)."""

from __future__ import annotations

import math
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from distbp.client import names
from distbp.client.names import Scope, State
from distbp_service.store import Job
from distbp_service.store.line import Waiting

ID_OF_JOB = rf"^{names.JOB_ID}$"
MODEL_ID = rf"^{names.MODEL_ID}$"
DATASET_ID = rf"^{names.DATASET_ID}$"
TOKEN_ID = rf"^{names.TOKEN_ID}$"
SHA256 = r"^[0-9a-f]{64}$"
NAME = r"^[A-Za-z0-9][A-Za-z0-9 ._-]{0,99}$"
NAME_PART = r"^[A-Za-z0-9 ._-]{1,100}$"
NAME_OF_TOKEN = r"^[^\x00-\x1f\x7f]*$"
IDEMPOTENCY_KEY = r"^[\x21-\x7e]{1,200}$"
MOST_STEPS = 2**62

Object = dict[str, Any]


class Out(BaseModel):
    @classmethod
    def of(cls, record: Any) -> Self:
        """Made from a record of the store with the same fields."""
        return cls(**{name: getattr(record, name) for name in cls.model_fields})


class In(BaseModel):
    """A body: no unknown fields, no numbers as text."""

    model_config = ConfigDict(extra="forbid", strict=True)


# Jobs -------------------------------------------------------------------------------------------------------


class Submission(In):
    job: Object = Field(
        description="a TrainingJob as a mapping, see `distbp schema`. Data: made or built in, files below the"
        " service's data folder, {format: npz, path: 'dataset:ds_...'}, or {format: table, path:"
        " 'dataset:ds_.../rows.csv'} (a folder and a pattern will do, too)"
    )
    priority: int = Field(
        default=0, ge=-100, le=100, description="higher runs first, among the jobs of the project"
    )
    deadline_s: float | None = Field(
        default=None,
        gt=0,
        le=1e9,
        description="seconds from now after which the job fails; left out: as the service sets it",
    )


class Validation(In):
    job: Object = Field(description="a TrainingJob as a mapping")


class Valid(BaseModel):
    digest: str = Field(description="SHA-256 of the job's canonical form")
    job: Object = Field(description="the job with every default filled in")


class Scaling(In):
    workers: int = Field(ge=0, le=4096, description="processes that compute; the result stays the same")


class JobError(BaseModel):
    model_config = ConfigDict(extra="allow")
    code: str | None = None
    message: str | None = None


class InUse(BaseModel):
    project: str
    slots: int
    jobs: int


class WaitingOut(BaseModel):
    why: Literal["slots", "turn", "project_slots", "project_jobs", "never", "retry", "starting", "dispatcher"]
    message: str
    needed: int = Field(description="slots, at least")
    free: int | None = Field(description="slots that no job holds")
    slots: int | None = Field(description="of the service; null: no dispatcher has said yet")
    in_use: list[InUse] = Field(description="who holds slots, the largest ten first")
    place: int | None = Field(description="in line over all projects, which take turns; 1: next")
    retry_at: float | None = Field(description="when a job that recovers is queued again")

    @staticmethod
    def of(waiting: Waiting) -> WaitingOut:
        in_use = [InUse(project=name, slots=one.slots, jobs=one.jobs) for name, one in waiting.in_use]
        return WaitingOut(**{**vars(waiting), "in_use": in_use})


class JobOut(BaseModel):
    id: str
    name: str
    state: State
    reason: str | None = Field(description="why it is in this state, for people")
    digest: str
    priority: int
    slots: int = Field(description="those it holds; where it does not run, the fewest it needs")
    slots_most: int = Field(description="those it takes where more are free")
    disk_bytes: int = Field(description="of its run, checkpoints, model and fetched data, as last measured")
    eta_s: float | None = Field(description="seconds that training still takes, where that can be told")
    waiting: WaitingOut | None = Field(description="why it has not started; null: it does not wait")
    workers: int | None = Field(description="what it was scaled to; null: as the job says")
    submitted_by: str | None = Field(description="the id of a token")
    created_at: float
    updated_at: float
    queued_at: float
    started_at: float | None
    finished_at: float | None
    deadline_at: float | None
    attempt: int = Field(description="0 before the first")
    step: int = Field(description="the furthest that was reported")
    progress: Object | None = Field(description="what the runner says of itself now")
    metrics: Object | None = Field(description="of the result, once there is one")
    unhealthy: Object = Field(description="what is wrong with the run that ended, {name: sentence}")
    error: JobError | None

    @staticmethod
    def of(job: Job, waiting: Waiting | None = None) -> JobOut:
        return JobOut(**_fields(job, waiting))


class AttemptOut(Out):
    attempt: int
    state: str
    started_at: float
    ended_at: float | None
    from_step: int | None
    outcome: str | None
    error: JobError | None


class JobDetail(JobOut):
    job: Object
    result: Object | None
    model_id: str | None
    attempts: list[AttemptOut]

    @staticmethod
    def with_all(
        job: Job, waiting: Waiting | None, model_id: str | None, attempts: list[AttemptOut]
    ) -> JobDetail:
        return JobDetail(
            **_fields(job, waiting),
            job=dict(job.job),
            result=_maybe(job.result),
            model_id=model_id,
            attempts=attempts,
        )


class JobPage(BaseModel):
    items: list[JobOut]
    cursor: str | None = Field(description="give it to the next call; null: this was all")


def _fields(job: Job, waiting: Waiting | None) -> Object:
    made = ("metrics", "unhealthy", "error", "eta_s", "waiting")
    found = {name: getattr(job, name) for name in JobOut.model_fields if name not in made}
    found["slots"] = job.slots_held or job.slots
    found["waiting"] = None if waiting is None else WaitingOut.of(waiting)
    found["eta_s"] = _eta_s(job)
    if waiting is not None:
        found["reason"] = waiting.message
    found["error"] = None if job.error is None else JobError(**job.error)
    result = job.result or {}
    found["metrics"], found["unhealthy"] = _maybe(result.get("metrics")), dict(result.get("unhealthy") or {})
    return found


def _eta_s(job: Job) -> float | None:
    """The seconds for the remaining steps at the latest speed, without evaluations; None if not known."""
    told = [(job.progress or {}).get(name) for name in ("samples_per_second", "total_steps", "step")]
    speed, total, step = (value if isinstance(value, int | float) else 0 for value in told)
    batch = job.job.get("batch_size", 1)
    if job.state != "running" or speed <= 0 or total <= 0 or batch == "full":  # rows not known
        return None
    left = max(0, total - step) * batch / speed
    return left if math.isfinite(left) else None


class Share(BaseModel):
    used: int
    most: int | None = Field(description="null: not known")


class UsageOut(BaseModel):
    project: str
    slots: Share = Field(description="held by its jobs")
    running: Share = Field(description="jobs that hold slots")
    waiting: Share = Field(description="jobs that have not ended, running or not")
    disk_bytes: Share = Field(description="of its datasets, jobs and models")
    deadline_s: float = Field(description="of a job that is submitted without one")


def _maybe(value: Any) -> Object | None:
    return None if value is None else dict(value)


# Records of a job -------------------------------------------------------------------------------------------


class EventOut(Out):
    number: int = Field(description="counts from 1 without gaps")
    at: float
    attempt: int
    kind: str
    data: Object


class EventPage(BaseModel):
    items: list[EventOut]
    after: int = Field(description="give it to the next call for what follows")


class MetricOut(Out):
    step: int
    attempt: int
    data: Object = Field(description="the line of metrics.jsonl")


class MetricRange(BaseModel):
    items: list[MetricOut]
    total: int = Field(description="rows that the choice was made from")


class LogOut(Out):
    number: int
    at: float
    attempt: int
    text: str


class LogPage(BaseModel):
    items: list[LogOut]
    after: int = Field(description="give it to the next call for what follows")


class CheckpointOut(Out):
    step: int
    bytes: int
    sha256: str = Field(description="of what downloading it gives: state.safetensors")
    created_at: float


class CheckpointList(BaseModel):
    items: list[CheckpointOut]


class ModelOut(Out):
    id: str
    job_id: str
    name: str
    bytes: int
    created_at: float
    info: Object = Field(description="params_sha256, job_digest, metrics, ...")


class ModelPage(BaseModel):
    items: list[ModelOut]
    cursor: str | None


# Datasets, tokens -------------------------------------------------------------------------------------------


class DatasetOut(Out):
    id: str = Field(description="ds_ and the SHA-256 of the bytes")
    name: str
    bytes: int
    created_by: str | None
    created_at: float
    info: Object = Field(
        description="rows, and shape and dtype of each array; of a table: how many files, and names"
    )


class DatasetPage(BaseModel):
    items: list[DatasetOut]
    cursor: str | None


class TokenIn(In):
    scopes: list[Scope] = Field(min_length=1, max_length=4, description="admin may do all in its project")
    name: str = Field(default="", max_length=200, pattern=NAME_OF_TOKEN)
    expires_in_s: float | None = Field(default=None, gt=0, le=1e10)


class TokenOut(Out):
    id: str
    name: str
    project: str
    scopes: list[str]
    created_at: float
    expires_at: float | None
    revoked_at: float | None
    last_used_at: float | None


class LinkIn(In):
    code: str = Field(min_length=1, max_length=100, description="of the link, after #link=")


class SignedIn(BaseModel):
    secret: str = Field(description="the text of a token")


class TokenMade(BaseModel):
    token: TokenOut
    secret: str = Field(description="the token itself, dbp_...; it is shown this once and kept nowhere")


class TokenList(BaseModel):
    items: list[TokenOut]


class Me(BaseModel):
    token: TokenOut
    version: str = Field(description="of distbp on the service")


# Health -----------------------------------------------------------------------------------------------------


class Live(BaseModel):
    status: Literal["ok"]


class Ready(BaseModel):
    status: Literal["ready", "not ready"]
    checks: dict[str, str] = Field(description="database and dispatcher: 'ok', or what is wrong")
