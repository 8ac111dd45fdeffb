"""A project's use of the disk: datasets, folders of jobs, and models whose job was deleted."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, case, func, select

from distbp_service.states import ACTIVE
from distbp_service.store.database import Database
from distbp_service.store.journal import change
from distbp_service.store.records import Job
from distbp_service.store.schema import datasets, jobs, models, projects


@dataclass(frozen=True)
class DiskQuota:
    """The most bytes of a whole project, and of the folder of one job."""

    project: int
    job: int


def disk_bytes(conn: Connection, project: str) -> int:
    """The bytes that the project uses, as last measured."""
    return _settled(conn, project) + _sum(conn, jobs.c.disk_bytes, _running(project))


def grant(conn: Connection, db: Database, job: Job, used: int, quota: DiskQuota) -> Job:
    """Records that the folder of a running job has `used` bytes, and grants it (`disk_granted`) the bytes
    that it may have until its next report. The grant is an equal share of the project's free bytes for each
    running job, limited to the bytes that are not granted to others. So a project's jobs together never
    exceed the quota."""
    conn.execute(select(projects.c.name).where(projects.c.name == job.project).with_for_update())
    taken = case((jobs.c.disk_granted > jobs.c.disk_bytes, jobs.c.disk_granted), else_=jobs.c.disk_bytes)
    query = select(
        func.coalesce(func.sum(jobs.c.disk_bytes), 0), func.coalesce(func.sum(taken), 0), func.count()
    ).where(_running(job.project) & (jobs.c.id != job.id))
    theirs, granted, running = conn.execute(query).one()
    left = quota.project - _settled(conn, job.project)
    share = max(0, left - int(theirs) - used) // (int(running) + 1)
    allowed = max(0, min(used + share, left - int(granted), quota.job))
    if (used, allowed) == (job.disk_bytes, job.disk_granted):
        return job
    return change(conn, db, job, disk_bytes=used, disk_granted=allowed)


def _running(project: str) -> ColumnElement[bool]:
    return jobs.c.state.in_(ACTIVE) & (jobs.c.project == project)


def _settled(conn: Connection, project: str) -> int:
    """The bytes of jobs that do not run, of datasets, and of models whose job was deleted."""
    there = select(jobs.c.id).where(jobs.c.id == models.c.job_id).exists()
    kept = _sum(conn, models.c.bytes, (models.c.project == project) & ~there)
    uploaded = _sum(conn, datasets.c.bytes, datasets.c.project == project)
    return kept + uploaded + _sum(conn, projects.c.disk_bytes, projects.c.name == project)


def _sum(conn: Connection, column: ColumnElement[int], where: ColumnElement[bool]) -> int:
    return int(conn.execute(select(func.coalesce(func.sum(column), 0)).where(where)).scalar_one())
