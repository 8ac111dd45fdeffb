"""The tables as they are after the last migration (see `migrations`, which makes them).

Times are seconds since 1970 (UTC). Columns of type JsonText hold JSON.
"""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import BigInteger, Column, Double, Index, Integer, MetaData, Table, Text, text
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

from distbp.run.run_directory import as_json


class JsonText(TypeDecorator[Any]):
    """JSON in a text column, the same on every database. None is stored as NULL. NaN and infinities become
    null, as in metrics.jsonl."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        if value is None:
            return None
        try:
            return json.dumps(value, allow_nan=False, separators=(",", ":"))
        except ValueError:
            return json.dumps(as_json(value), allow_nan=False, separators=(",", ":"))

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        return None if value is None else json.loads(value)


metadata = MetaData()


def _needed(name: str, kind: Any, **more: Any) -> Column[Any]:
    return Column(name, kind, nullable=False, **more)


schema_version = Table("schema_version", metadata, Column("version", Integer, primary_key=True))

projects = Table(
    "projects",
    metadata,
    Column("name", Text, primary_key=True),
    _needed("created_at", Double),
    Column("served_at", Double),  # when one of its jobs was last started
    _needed("disk_bytes", BigInteger),  # of its jobs that do not run now
)

# The limits that the dispatcher announced: one row, with the number 1.
room = Table(
    "room",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),
    _needed("slots", Integer),
    _needed("project_slots", Integer),
    _needed("project_jobs", Integer),
    Column("memory_bytes", BigInteger),
)

tokens = Table(
    "tokens",
    metadata,
    Column("id", Text, primary_key=True),
    _needed("project", Text),
    _needed("name", Text),
    _needed("sha256", Text),  # of the secret; the secret itself is not stored
    _needed("scopes", JsonText),
    _needed("created_at", Double),
    Column("expires_at", Double),
    Column("revoked_at", Double),
    Column("last_used_at", Double),
    Index("tokens_project", "project"),
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", Text, primary_key=True),
    _needed("project", Text),
    _needed("name", Text),
    _needed("state", Text),
    Column("reason", Text),
    _needed("job", JsonText),
    _needed("digest", Text),
    _needed("priority", Integer),
    _needed("slots", Integer),
    _needed("slots_most", Integer),
    _needed("slots_held", Integer),
    _needed("disk_bytes", BigInteger),
    _needed("disk_granted", BigInteger),
    Column("workers", Integer),
    Column("submitted_by", Text),
    _needed("created_at", Double),
    _needed("updated_at", Double),
    _needed("queued_at", Double),
    Column("started_at", Double),
    Column("finished_at", Double),
    Column("deadline_at", Double),
    Column("not_before", Double),
    _needed("attempt", Integer),
    _needed("failures", JsonText),
    _needed("failed_step", BigInteger),
    _needed("step", BigInteger),
    Column("progress", JsonText),
    _needed("event_count", BigInteger),
    _needed("metric_count", BigInteger),
    _needed("log_count", BigInteger),
    Column("result", JsonText),
    Column("error", JsonText),
    Index("jobs_project", "project", "id", "name"),  # a search by name reads only this index
    Index("jobs_project_state", "project", "state", "id"),
    Index("jobs_queue", "state", "project", text("priority DESC"), "queued_at", "id", "slots"),
    Index("jobs_deadline", "deadline_at"),
)

attempts = Table(
    "attempts",
    metadata,
    Column("job_id", Text, primary_key=True),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    _needed("state", Text),  # starting, running, ended
    _needed("started_at", Double),
    Column("ended_at", Double),
    _needed("lease_expires_at", Double),
    _needed("last_seq", BigInteger),
    Column("from_step", BigInteger),
    Column("handle", JsonText),
    Column("outcome", Text),
    Column("error", JsonText),
    Column("token_sha256", Text),
    Column("claim_sha256", Text),
    Column("claim_expires_at", Double),
    Index("attempts_state", "state", "lease_expires_at"),
)

events = Table(
    "events",
    metadata,
    Column("job_id", Text, primary_key=True),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    _needed("at", Double),
    _needed("attempt", Integer),
    _needed("kind", Text),
    _needed("data", JsonText),
)

metrics = Table(
    "metrics",
    metadata,
    Column("job_id", Text, primary_key=True),
    Column("step", BigInteger, primary_key=True, autoincrement=False),
    _needed("serial", BigInteger),
    _needed("attempt", Integer),
    _needed("data", JsonText),
    Index("metrics_serial", "job_id", "serial"),
)

logs = Table(
    "logs",
    metadata,
    Column("job_id", Text, primary_key=True),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    _needed("at", Double),
    _needed("attempt", Integer),
    _needed("text", Text),
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("project", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    _needed("body_sha256", Text),
    _needed("job_id", Text),
    _needed("created_at", Double),
)

datasets = Table(
    "datasets",
    metadata,
    Column("project", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    _needed("name", Text),
    _needed("bytes", BigInteger),
    _needed("info", JsonText),
    Column("created_by", Text),
    _needed("created_at", Double),
)

models = Table(
    "models",
    metadata,
    Column("id", Text, primary_key=True),
    _needed("project", Text),
    _needed("job_id", Text),
    _needed("name", Text),
    _needed("path", Text),
    _needed("bytes", BigInteger),
    _needed("info", JsonText),
    _needed("created_at", Double),
    Index("models_project", "project", "id"),
    Index("models_job", "job_id", unique=True),
)
