"""The messages between a runner and the service, JSON over HTTP. The runner and the store share this module.

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
    """The end of an attempt. `error`: {class, code, message} if it failed (see policy.BUDGETS for classes).
    `model`: {path, bytes, ...} of its model; the path is relative to the work volume."""

    outcome: Outcome
    result: Mapping[str, Any] | None = None
    error: Mapping[str, Any] | None = None
    model: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Report:
    """`seq` counts a runner's reports from 1; the store takes each once, in order. `events`: {kind, ...}; the
    kind "attempt_started" has `from_step`, and removes the metrics of all later steps. `metrics`: lines of
    metrics.jsonl, each with `step`. `log`: text to append. `disk`: the bytes in the job's folder. `joins`:
    how many reports are sent as this one; `seq` is then the number of the last."""

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
        """The inverse of `to_json`. Raises KeyError or TypeError for another mapping."""
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
    """Joins consecutive reports of one attempt into one."""
    return replace(
        reports[-1],
        events=tuple(event for report in reports for event in report.events),
        metrics=tuple(line for report in reports for line in report.metrics),
        log="".join(report.log for report in reports),
        joins=len(reports),
    )


@dataclass(frozen=True)
class Answer:
    """The answer to a report or heartbeat. `received`: the number of the last stored report. `command`:
    "pause", "cancel" or None. `workers`: the number to which the job was scaled; None: the job's own. `disk`:
    the bytes that its folder may have until the next answer; None: no limit."""

    received: int
    command: str | None = None
    workers: int | None = None
    disk: int | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Assignment:
    """A runner's task. `job`: TrainingJob.to_mapping(). `received`: for each earlier attempt, the number of
    its last stored report; the runner hands in the later ones. `init`: the path of the model that the job
    begins with, relative to the work volume; None without one, or if the model was deleted. `slots`: how
    many processes may compute; 0: not known. `disk`: as in Answer."""

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
