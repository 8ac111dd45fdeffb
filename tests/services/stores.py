"""What the tests of the store and of all that stands on it share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
from distbp_service.store import Job, Store
from distbp_service.store.schema import metadata

BACKENDS = ("sqlite", "postgresql")
JOB = {"name": "wine", "model": {"layers": ["linear"]}}


class Clock:
    """Seconds since 1970, which pass when a test says so."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def pass_(self, seconds: float) -> None:
        self.now += seconds


def empty_database(backend: str, fixture: Callable[[str], str], folder: Path) -> str:
    if backend == "sqlite":
        return f"sqlite:///{folder / 'store.db'}"
    url: str = fixture("postgresql")
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("DROP SCHEMA public CASCADE")
        conn.execute("CREATE SCHEMA public")
    return url


def database_without_rows(backend: str, fixture: Callable[[str], str], folder: Path) -> str:
    """The URL of a database that may have its tables already (making them takes PostgreSQL a while)."""
    if backend == "sqlite":
        return empty_database(backend, fixture, folder)
    url = fixture("postgresql_with_tables")
    with psycopg.connect(url, autocommit=True) as conn:
        for name in metadata.tables:
            if name != "schema_version":
                conn.execute(f"DELETE FROM {name}".encode())
    return url


def submit(store: Store, project: str = "main", **more: Any) -> Job:
    """A job in the queue."""
    job, _ = store.jobs.submit(project, JOB, digest="0" * 64, **more)
    return job
