"""The values that the store returns: one frozen class for each table that callers read."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Generic, Self, TypeVar

from sqlalchemy import Row

from distbp.client.names import State
from distbp_service.states import ACTIVE, TERMINAL

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's: no i, l, o, u
T = TypeVar("T")


def new_id(prefix: str, now: float | None = None) -> str:
    """`prefix` and 20 characters: 10 for the time in milliseconds, so that ids sort by time, and 10 for 50
    random bits."""
    moment = int((time.time() if now is None else now) * 1000) & (2**50 - 1)
    number = (moment << 50) | (int.from_bytes(os.urandom(7)) >> 6)
    return prefix + "".join(_ALPHABET[(number >> shift) & 31] for shift in range(95, -5, -5))


@dataclass(frozen=True)
class _Record:
    @classmethod
    def of(cls, row: Row[Any]) -> Self:
        """The record of a row. The row must have a column for each field."""
        values = row._mapping
        return cls(**{field.name: values[field.name] for field in fields(cls)})


@dataclass(frozen=True)
class Job(_Record):
    """`job`: TrainingJob.to_mapping(). `slots`: the fewest that it can run with. `slots_most`: the most that
    it takes if they are free. `slots_held`: the slots that it holds now. `disk_bytes`: the size of its
    folder, as last measured. `disk_granted`: the bytes that the folder may have for now. `workers`: the
    number to which it was scaled, or None. `attempt`: the current attempt; 0: none yet. `step`: the furthest
    step that any attempt reported. `progress`: as the runner last reported it. `error`: {class, code,
    message}. `event_count`, `metric_count`, `log_count`: the highest numbers so far. Times are seconds since
    1970."""

    id: str
    project: str
    name: str
    state: State
    reason: str | None
    job: Mapping[str, Any]
    digest: str
    priority: int
    slots: int
    slots_most: int
    slots_held: int
    disk_bytes: int
    disk_granted: int
    workers: int | None
    submitted_by: str | None
    created_at: float
    updated_at: float
    queued_at: float
    started_at: float | None
    finished_at: float | None
    deadline_at: float | None
    not_before: float | None
    attempt: int
    failures: Mapping[str, int]
    failed_step: int
    step: int
    progress: Mapping[str, Any] | None
    event_count: int
    metric_count: int
    log_count: int
    result: Mapping[str, Any] | None
    error: Mapping[str, Any] | None

    @property
    def active(self) -> bool:
        return self.state in ACTIVE

    @property
    def ended(self) -> bool:
        return self.state in TERMINAL


@dataclass(frozen=True)
class Attempt(_Record):
    """`state`: starting, running or ended. `last_seq`: the number of the last stored report. `from_step`: the
    step at which it began to train. `handle`: see `launchers.Launcher`."""

    job_id: str
    attempt: int
    state: str
    started_at: float
    ended_at: float | None
    lease_expires_at: float
    last_seq: int
    from_step: int | None
    handle: Mapping[str, Any] | None
    outcome: str | None
    error: Mapping[str, Any] | None


@dataclass(frozen=True)
class Event(_Record):
    """`number` counts the events of a job from 1, without gaps."""

    job_id: str
    number: int
    at: float
    attempt: int
    kind: str
    data: Mapping[str, Any]


@dataclass(frozen=True)
class Metric(_Record):
    """`data`: the line of metrics.jsonl. `serial` rises with every change, so a stream can go on after the
    last serial that it sent. A later metric of the same step replaces the earlier one."""

    job_id: str
    step: int
    serial: int
    attempt: int
    data: Mapping[str, Any]


@dataclass(frozen=True)
class LogText(_Record):
    job_id: str
    number: int
    at: float
    attempt: int
    text: str


@dataclass(frozen=True)
class Token(_Record):
    id: str
    project: str
    name: str
    scopes: tuple[str, ...]
    created_at: float
    expires_at: float | None
    revoked_at: float | None
    last_used_at: float | None


@dataclass(frozen=True)
class Project(_Record):
    name: str
    created_at: float


@dataclass(frozen=True)
class Dataset(_Record):
    """`id`: "ds_" and the SHA-256 of the bytes. `info`: facts that the API found (shapes, dtypes, files)."""

    project: str
    id: str
    name: str
    bytes: int
    info: Mapping[str, Any]
    created_by: str | None
    created_at: float


@dataclass(frozen=True)
class Model(_Record):
    """`path`: of its folder, relative to the work volume. `info`: params_sha256, metrics, ..."""

    id: str
    project: str
    job_id: str
    name: str
    path: str
    bytes: int
    info: Mapping[str, Any]
    created_at: float


@dataclass(frozen=True)
class Pulse(_Record):
    """The parts of a job by which a stream knows whether it has anything to send."""

    id: str
    state: State
    updated_at: float
    event_count: int
    metric_count: int
    log_count: int
    progress: Mapping[str, Any] | None


@dataclass(frozen=True)
class Page(Generic[T]):
    """`cursor`: pass it to the next call for the next page; None: this is the last page."""

    items: tuple[T, ...]
    cursor: str | None = None


@dataclass(frozen=True)
class Lease:
    """A job that the dispatcher must start as `attempt`. `expires_at`: seconds since 1970."""

    job: Job
    attempt: int
    expires_at: float
