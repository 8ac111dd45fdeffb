"""The schemas of a runner's requests and answers (see `distbp_service.reports`)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from distbp_service.api.schemas import ID_OF_JOB, MOST_STEPS, In, Object


class _Open(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)


class EventIn(_Open):
    kind: str = Field(pattern=r"^[a-z][a-z_]{0,49}$")
    at: float | None = Field(default=None, ge=0, le=1e11)
    from_step: int | None = Field(default=None, ge=0, le=MOST_STEPS)

    @model_validator(mode="after")
    def _start(self) -> EventIn:
        if self.kind == "attempt_started" and self.from_step is None:
            raise ValueError("attempt_started needs from_step")
        return self


class MetricIn(_Open):
    step: int = Field(ge=0, le=MOST_STEPS)


class ErrorIn(_Open):
    code: str = Field(max_length=100)
    message: str = Field(max_length=100_000)


class ModelIn(_Open):
    path: str = Field(max_length=1000)
    bytes: int = Field(ge=0, le=MOST_STEPS)


class EndIn(In):
    outcome: Literal["completed", "interrupted", "failed"]
    result: Object | None = None
    error: ErrorIn | None = None
    model: ModelIn | None = None


AttemptNumber = Annotated[int, Field(ge=1, le=10**9)]
DiskBytes = Annotated[int, Field(ge=0, le=MOST_STEPS, description="bytes that the job's folder has")]


class ReportIn(In):
    attempt: AttemptNumber
    seq: int = Field(ge=1, le=MOST_STEPS, description="counts the reports of an attempt from 1")
    events: list[EventIn] = Field(default=[], max_length=10_000)
    metrics: list[MetricIn] = Field(default=[], max_length=10_000)
    log: str = Field(default="", max_length=2**20)
    progress: Object | None = None
    end: EndIn | None = None
    disk: DiskBytes | None = None
    joins: int = Field(
        default=1, ge=1, le=10_000, description="reports in this one; `seq` is the last of them"
    )


class HeartbeatIn(In):
    attempt: AttemptNumber
    progress: Object | None = None
    disk: DiskBytes | None = None


class AnswerOut(BaseModel):
    received: int = Field(description="the highest report that is stored")
    command: Literal["pause", "cancel"] | None
    workers: int | None
    disk: int | None = Field(description="bytes that the job's folder may have now; null: any number")


class AssignmentOut(BaseModel):
    job_id: str
    attempt: int
    job: Object
    workers: int | None
    received: dict[str, int] = Field(description="by earlier attempt, the highest report that is stored")
    init: str | None = Field(default=None, description="the model to begin with, on the work volume")
    slots: int = Field(description="processes that may compute")
    disk: int | None = Field(description="bytes that the job's folder may have now; null: any number")


class ClaimIn(In):
    job: str = Field(pattern=ID_OF_JOB)
    attempt: AttemptNumber
    code: str = Field(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9_-]+$")


class ClaimOut(BaseModel):
    token: str = Field(description="of the runner, dbr_...")
