"""What a runner and the service say to each other. JSON over HTTP; the runner's side and the store share it.

    POST /v1/runner/claims                {job, attempt, code}                      -> {token}
    GET  /v1/runner/jobs/{id}                                                       -> Assignment
    POST /v1/runner/jobs/{id}/reports     Report                                    -> Answer
    POST /v1/runner/jobs/{id}/heartbeats  {attempt, progress: {...} | null, disk}   -> Answer
    GET  /v1/runner/jobs/{id}/datasets/{dataset_id}                                 -> bytes

All but the first carry `Authorization: Bearer <runner token>`, bound to one attempt of one job.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from distbp_service.policy import Outcome


@dataclass(frozen=True)
class End:
    """How an attempt ended. `error`: {class, code, message} where it failed (see policy.BUDGETS for classes).
    `model`: {path, bytes, ...} of the model it left on the work volume, relative to that."""

    outcome: Outcome
    result: Mapping[str, Any] | None = None
    error: Mapping[str, Any] | None = None
    model: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Report:
    """`seq` counts a runner's reports from 1; the store takes each once, in order. `events`: {kind, ...}; the
    kind "attempt_started" carries `from_step` and takes back every metric of a later step. `metrics`: lines
    of metrics.jsonl, each with `step`. `log`: text to append. `disk`: bytes that the job's folder has.
    `joins`: how many reports travel as this one; `seq` is the number of the last."""

    attempt: int
    seq: int
    events: tuple[Mapping[str, Any], ...] = ()
    metrics: tuple[Mapping[str, Any], ...] = ()
    log: str = ""
    progress: Mapping[str, Any] | None = None
    end: End | None = None
    disk: int | None = None
    joins: int = 1

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Report:
        """From `to_json`'s mapping, or one like it. Raises KeyError or TypeError where it is not."""
        end = data.get("end")
        return Report(
            attempt=int(data["attempt"]),
            seq=int(data["seq"]),
            events=tuple(data.get("events") or ()),
            metrics=tuple(data.get("metrics") or ()),
            log=str(data.get("log") or ""),
            progress=data.get("progress"),
            end=End(**end) if end is not None else None,
            disk=data.get("disk"),
            joins=int(data.get("joins", 1)),
        )


def joined(reports: Sequence[Report]) -> Report:
    """Reports of one attempt that follow each other, as one."""
    return replace(
        reports[-1],
        events=tuple(event for report in reports for event in report.events),
        metrics=tuple(line for report in reports for line in report.metrics),
        log="".join(report.log for report in reports),
        joins=len(reports),
    )


@dataclass(frozen=True)
class Answer:
    """To a report or heartbeat. `received`: the highest report stored. `command`: "pause", "cancel" or None.
    `workers`: what the job was scaled to, or None: as the job says. `disk`: bytes that its folder may have
    until the next answer; None: any number."""

    received: int
    command: str | None = None
    workers: int | None = None
    disk: int | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Assignment:
    """What a runner is to do. `job`: TrainingJob.to_mapping(). `received`: for each earlier attempt, the
    highest report stored, so that a successor hands in the rest. `init`: where the model lies that the job
    begins with, relative to the work volume; None where it names none, or the model is gone. `slots`:
    processes that may compute; 0: not said. `disk`: as in Answer."""

    job_id: str
    attempt: int
    job: Mapping[str, Any]
    workers: int | None = None
    received: Mapping[str, int] = field(default_factory=dict)
    init: str | None = None
    slots: int = 0
    disk: int | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)
