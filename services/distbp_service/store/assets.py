"""The records of uploaded datasets and trained models. Their files lie on the work volume."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar

from sqlalchemy import Select, Table, delete, func, select

from distbp_service.errors import NotFoundError
from distbp_service.store.database import Database, clean, page_of
from distbp_service.store.journal import change, lock_job, settle_disk
from distbp_service.store.records import Dataset, Model, Page
from distbp_service.store.schema import datasets, models

_ID = re.compile(r"(ds|mdl)_[0-9a-z]{1,64}")
T = TypeVar("T", Dataset, Model)


class Datasets:
    def __init__(self, db: Database) -> None:
        self._db = db

    def add(
        self,
        project: str,
        dataset_id: str,
        *,
        name: str,
        size: int,
        info: Mapping[str, Any] | None = None,
        created_by: str | None = None,
    ) -> tuple[Dataset, bool]:
        """Records an upload of `size` bytes. Returns the dataset, and whether it is new to the project."""
        row = {
            "project": project,
            "id": dataset_id,
            "name": clean(name, "name"),
            "bytes": size,
            "info": dict(info or {}),
            "created_by": created_by,
            "created_at": self._db.clock(),
        }
        with self._db.write() as conn:
            new = self._db.insert_new(conn, datasets, row)
            found = conn.execute(_one(datasets, project, dataset_id)).one()
        return Dataset.of(found), new

    def get(self, project: str, dataset_id: str) -> Dataset:
        return _get(self._db, datasets, Dataset, project, dataset_id)

    def page(self, project: str, *, limit: int = 50, cursor: str | None = None) -> Page[Dataset]:
        """The project's datasets, in the order of their ids."""
        query = select(datasets).where(datasets.c.project == project)
        rows, more = page_of(self._db, query, datasets.c.id, cursor, limit, newest_first=False)
        return Page(tuple(map(Dataset.of, rows)), more)

    def delete(self, project: str, dataset_id: str) -> bool:
        """Deletes the record. Returns True if no other project has the same dataset, so that the caller may
        remove its file. Raises NotFoundError."""
        with self._db.write() as conn:
            mine = (datasets.c.project == project, datasets.c.id == dataset_id)
            found = conn.execute(_one(datasets, project, dataset_id)).one_or_none()
            if found is None or conn.execute(delete(datasets).where(*mine)).rowcount == 0:
                raise NotFoundError(f"there is no dataset {dataset_id}")
            left = select(func.count()).select_from(datasets).where(datasets.c.id == dataset_id)
            return conn.execute(left).scalar_one() == 0


class Models:
    """A model is added when its job completes (see `Runs.report`)."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def get(self, project: str, model_id: str) -> Model:
        return _get(self._db, models, Model, project, model_id)

    def of_job(self, project: str, job_id: str) -> Model | None:
        query = select(models).where(models.c.job_id == job_id, models.c.project == project)
        with self._db.read() as conn:
            row = conn.execute(query).one_or_none()
        return None if row is None else Model.of(row)

    def page(self, project: str, *, limit: int = 50, cursor: str | None = None) -> Page[Model]:
        """The project's models, newest first."""
        query = select(models).where(models.c.project == project)
        rows, more = page_of(self._db, query, models.c.id, cursor, limit, newest_first=True)
        return Page(tuple(map(Model.of, rows)), more)

    def delete(self, project: str, model_id: str) -> tuple[Model, bool]:
        """Deletes the record; the caller removes the files. Returns the model, and whether its job still
        exists. Raises NotFoundError."""
        found = self.get(project, model_id)
        with self._db.write() as conn:
            conn.execute(delete(models).where(models.c.id == model_id, models.c.project == project))
            try:
                job = lock_job(conn, found.job_id, project)
            except NotFoundError:
                return found, False
            less = min(found.bytes, job.disk_bytes)
            change(conn, self._db, job, disk_bytes=job.disk_bytes - less)
            settle_disk(conn, project, -less)
            return found, True


def _one(table: Table, project: str, item_id: str) -> Select[Any]:
    if not _ID.fullmatch(item_id):
        raise NotFoundError("there is nothing with such an id")
    return select(table).where(table.c.project == project, table.c.id == item_id)


def _get(db: Database, table: Table, kind: type[T], project: str, item_id: str) -> T:
    with db.read() as conn:
        row = conn.execute(_one(table, project, item_id)).one_or_none()
    if row is None:
        raise NotFoundError(f"there is no {kind.__name__.lower()} {item_id}")
    return kind.of(row)
